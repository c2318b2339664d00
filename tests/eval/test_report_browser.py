"""The report in a real browser: it shows, nothing complains, and every control does what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import missing, open_browser, show
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait
from small_run import write_run

from cogbatch.eval.report import write_report
from cogbatch.types import JudgeOptions, RequestError

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
LONG = "unbreakable" * 30
OUTPUTS = [
    ["a red cat", "a red cat", "a blue dog"],
    RequestError("image", "ImageError", HOSTILE),
    ["two birds", "three birds", "一只红色的猫"],
    ["a dog", "a dog", "a dog"],
    [LONG, HOSTILE, "a red cat"],
]
ANSWERS = ["a red cat", "x", "one bird", "a dog", "a red cat"]
JUDGE = JudgeOptions(references="answer", metric="exact")


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a judged run with an error."""
    path = write_run(
        tmp_path_factory.mktemp("one"),
        OUTPUTS,
        name=f"run {LONG}",
        carried={"answer": ANSWERS},
        written_s=[10, 20, 30],
    )
    report = write_report(path, judge=JUDGE)
    assert isinstance(report, Path)
    return report


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of three runs, one with a hostile name."""
    folder = tmp_path_factory.mktemp("several")
    runs = [
        write_run(folder / str(place), outputs, name=name, carried={"answer": ANSWERS})
        for place, (name, outputs) in enumerate(
            [("first", OUTPUTS), (f"</svg>{HOSTILE}", OUTPUTS), (LONG, [["a dog", "x"]] * 5)]
        )
    ]
    report = write_report(*runs, judge=JUDGE)
    assert isinstance(report, Path)
    return report


def shown(browser: Chrome) -> list[str]:
    """The ids of the items that are shown, in their order on the page."""
    cards = browser.find_elements(By.CSS_SELECTOR, "article:not([hidden]) h3")
    return [card.get_attribute("textContent").removeprefix("item-") for card in cards]


def wait_for(browser: Chrome, expected: list[str]) -> None:
    WebDriverWait(browser, 5, poll_frequency=0.02).until(
        lambda _: shown(browser) == expected, f"expected {expected}"
    )
    assert browser.find_element(By.ID, "found").text == f"{len(expected)} of 5 items"


def focus(browser: Chrome, name: str) -> None:
    """Reaches the control by the tab key alone."""
    browser.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    for _ in range(80):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.switch_to.active_element.get_attribute("id") == name:
            return
    raise AssertionError(f"{name} cannot be reached by keyboard")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("which", ["page", "compared"])
def test_the_page_shows_without_complaint_in_light_and_dark(
    browser: Chrome, request: pytest.FixtureRequest, which: str, dark: bool
) -> None:
    show(browser, request.getfixturevalue(which), dark=dark)
    assert browser.get_log("browser") == []
    assert len(shown(browser)) == 5
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    bright = sum(int(part) for part in colour.strip("rgb()").split(",")) > 382
    assert bright != dark
    fills = browser.execute_script(
        "return [...new Set([...document.querySelectorAll('svg .mark')].map(m => getComputedStyle(m).fill))]"
    )
    assert fills
    assert "rgb(0, 0, 0)" not in fills  # what a colour that is not understood becomes
    widths = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(widths) == 5
    assert all(widths)


@pytest.mark.parametrize("dark", [False, True])
def test_texts_stand_out_from_what_is_behind_them(browser: Chrome, page: Path, dark: bool) -> None:
    """Contrast of at least 4.5, WCAG 2.2 AA."""
    show(browser, page, dark=dark)
    faint = browser.execute_script("""
        const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
        const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
          .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
          .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (node) => {
          for (; node; node = node.parentElement) {
            const rgb = parse(getComputedStyle(node).backgroundColor);
            if (rgb.length === 3 || rgb[3] > 0) return rgb;
          }
        };
        const found = [];
        for (const node of document.querySelectorAll("main *, header *")) {
          const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
          if (!own || !node.getClientRects().length) continue;
          const style = getComputedStyle(node);
          const ink = light(parse(node.closest("svg") ? style.fill : style.color));
          const paper = light(behind(node));
          const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
          if (ratio < 4.5) found.push([node.textContent.slice(0, 40), ratio]);
        }
        return found;
    """)
    assert faint == []


def test_search_is_by_text_id_and_prompt(browser: Chrome, page: Path) -> None:
    show(browser, page)
    focus(browser, "search")
    field = browser.find_element(By.ID, "search")
    for words, expected in [
        ("RED cat", ["0", "4"]),
        ("红色", ["2"]),
        ("item-3", ["3"]),
        ("what is 3", ["3"]),
        ("<script>", ["1", "4"]),
        ("nothing of this", []),
        ("", ["0", "1", "2", "3", "4"]),
    ]:
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(words or Keys.DELETE)
        wait_for(browser, expected)


def test_sorting_and_filters_work_by_keyboard(browser: Chrome, page: Path) -> None:
    show(browser, page)
    focus(browser, "sort")
    for choice, expected in [
        ("Errors first", ["1", "0", "2", "3", "4"]),
        ("Most diverse first", ["4", "2", "0", "3", "1"]),
        ("Least diverse first", ["3", "0", "2", "4", "1"]),
        ("Best score first", ["3", "0", "4", "2", "1"]),  # what has no score comes last
        ("Worst score first", ["2", "4", "0", "3", "1"]),
    ]:
        browser.find_element(By.ID, "sort").send_keys(Keys.ARROW_DOWN)
        assert Select(browser.find_element(By.ID, "sort")).first_selected_option.text == choice
        wait_for(browser, expected)
    browser.find_element(By.ID, "sort").send_keys(Keys.HOME)
    focus(browser, "filter")
    for expected in (["1"], ["0", "3", "4"], ["0", "2", "4"], ["2"]):
        browser.find_element(By.ID, "filter").send_keys(Keys.ARROW_DOWN)
        wait_for(browser, expected)


def test_differences_can_be_left_unmarked(browser: Chrome, page: Path) -> None:
    show(browser, page)
    colour = "return getComputedStyle(document.querySelector('mark')).backgroundColor"
    assert browser.execute_script(colour) != "rgba(0, 0, 0, 0)"
    focus(browser, "marks")
    browser.find_element(By.ID, "marks").send_keys(Keys.SPACE)
    assert browser.execute_script(colour) == "rgba(0, 0, 0, 0)"


def test_marks_of_charts_say_their_values_by_pointer_and_by_keyboard(browser: Chrome, page: Path) -> None:
    show(browser, page)
    tip = browser.find_element(By.ID, "tip")
    assert not tip.is_displayed()
    mark = browser.find_element(By.CSS_SELECTOR, "svg .mark")
    ActionChains(browser).move_to_element(mark).perform()
    assert tip.text == mark.get_attribute("aria-label")
    chart = browser.find_elements(By.CSS_SELECTOR, "svg.chart")[-1]
    browser.execute_script("arguments[0].focus()", chart)
    for key, place in ((Keys.ARROW_RIGHT, 0), (Keys.ARROW_RIGHT, 1), (Keys.ARROW_LEFT, 0)):
        ActionChains(browser).send_keys(key).perform()
        assert tip.text == chart.find_elements(By.CSS_SELECTOR, ".mark")[place].get_attribute("aria-label")
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not tip.is_displayed()


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("which", ["page", "compared"])
def test_nothing_is_wider_than_the_window(
    browser: Chrome, request: pytest.FixtureRequest, which: str, width: int
) -> None:
    show(browser, request.getfixturevalue(which), width=width)
    browser.execute_script("for (const node of document.querySelectorAll('details')) node.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [400, 1200])
def test_a_table_that_is_cut_off_shows_it_and_scrolls_by_keyboard(
    browser: Chrome, compared: Path, width: int
) -> None:
    show(browser, compared, width=width)
    box = browser.find_element(By.CSS_SELECTOR, ".scroll[aria-label='Figures of all runs']")
    assert browser.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", box)
    moves = "return getComputedStyle(arguments[0]).backgroundAttachment"
    assert browser.execute_script(moves, box) == "local, local, scroll, scroll"  # covers, then shadows
    browser.execute_script("arguments[0].focus()", box)
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    WebDriverWait(browser, 5).until(lambda _: browser.execute_script("return arguments[0].scrollLeft", box))


def test_what_the_accessibility_tree_has_a_name_for(browser: Chrome, compared: Path) -> None:
    show(browser, compared)
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    needs_name = {
        "image",
        "img",
        "link",
        "searchbox",
        "combobox",
        "checkbox",
        "heading",
        "region",
        "navigation",
    }
    kinds = set()
    for node in nodes:
        role = node.get("role", {}).get("value")
        if not node["ignored"] and role in needs_name:
            kinds.add(role)
            assert node.get("name", {}).get("value", "").strip(), node
    assert needs_name - {"img"} <= kinds | {"image"}


def test_the_page_is_whole_without_a_script(browser: Chrome, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, page)
        assert len(shown(browser)) == 5
        assert not browser.find_element(By.ID, "controls").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
