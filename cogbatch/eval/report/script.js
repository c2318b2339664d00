"use strict";
// Search, sort and filter of the gallery, and tips for the marks of charts. The page is whole without it.
{
  const byId = (name) => document.getElementById(name);
  const controls = byId("controls");
  if (controls) {
    const box = byId("cards");
    const cards = [...box.children].map((node) => ({
      node,
      text: node.textContent.toLowerCase(),
      has: node.dataset.has.split(" "),
      key: (name) => (name in node.dataset ? Number(node.dataset[name]) : NaN),
    }));
    const passes = {
      all: () => true,
      errors: (card) => card.key("errors") > 0,
      correct: (card) => card.has.includes("correct"),
      incorrect: (card) => card.has.includes("incorrect"),
      "none-correct": (card) => card.has.includes("incorrect") && !card.has.includes("correct"),
    };
    const compare = (name, sign) => (one, other) => {
      const difference = sign * (one.key(name) - other.key(name));
      if (Number.isNaN(difference)) {
        // What has no value comes last, whichever way the others are sorted.
        return Number.isNaN(one.key(name)) - Number.isNaN(other.key(name)) || one.key("order") - other.key("order");
      }
      return difference || one.key("order") - other.key("order");
    };
    const update = () => {
      const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      const [name, direction] = byId("sort").value.split("-");
      const keep = passes[byId("filter").value];
      let shown = 0;
      for (const card of cards) {
        card.node.hidden = !(keep(card) && words.every((word) => card.text.includes(word)));
        shown += card.node.hidden ? 0 : 1;
      }
      byId("found").textContent = `${shown} of ${cards.length} items`;
      return [name, direction];
    };
    const arrange = () => {
      const [name, direction] = update();
      box.append(...[...cards].sort(compare(name, direction === "down" ? -1 : 1)).map((card) => card.node));
    };
    let waiting = 0;
    byId("search").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(update, 80);
    });
    byId("sort").addEventListener("change", arrange);
    byId("filter").addEventListener("change", update);
    byId("marks").addEventListener("change", (event) => box.classList.toggle("unmarked", !event.target.checked));
    controls.addEventListener("submit", (event) => event.preventDefault());
    controls.hidden = false;
    arrange(); // a browser may have kept what was chosen before a reload
  }

  const tip = byId("tip");
  let owner = null; // the chart whose tip is shown
  const show = (chart, mark) => {
    owner = chart;
    const place = mark.getBoundingClientRect();
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const left = Math.min(place.left + place.width / 2 - tip.offsetWidth / 2, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${place.top + scrollY - tip.offsetHeight - 8}px`;
  };
  const hide = (chart) => {
    if (owner === chart) tip.hidden = true;
  };
  for (const chart of document.querySelectorAll("svg.chart")) {
    const marks = [...chart.querySelectorAll(".mark")];
    let current = -1;
    chart.setAttribute("tabindex", "0");
    // Not pointerover: that comes too when the page scrolls below a pointer at rest, and keys scroll it.
    chart.addEventListener("pointermove", (event) => {
      const mark = event.target.closest(".mark");
      if (mark) show(chart, mark);
    });
    chart.addEventListener("pointerleave", () => hide(chart));
    chart.addEventListener("blur", () => hide(chart));
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide(chart);
      if (step === undefined || marks.length === 0) return;
      event.preventDefault();
      current = Math.min(Math.max(current + step, 0), marks.length - 1);
      show(chart, marks[current]);
    });
  }
}
