"""The results in Markdown, and the place in a file where they belong."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers

from tests.bench.cases import Case, Found
from tests.bench.results import Results, Roofline, Target, decode_rate, rate, ratio
from tests.bench.setting import Setting

BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"
_WAYS = {
    "engine, 1 item": ("engine", 1, False),
    "engine, 4 items": ("engine", 4, False),
    "engine, 4 prompts of 1 image": ("engine", 4, True),
    "`generate`, item by item": ("generate", 1, False),
    "k calls": ("calls", 1, False),
    "expanded cache, 1 item": ("expanded", 1, False),
    "expanded cache, 4 items": ("expanded", 4, False),
}


def write_between_markers(path: Path, text: str) -> None:
    """Replaces what stands between the markers. Raises ValueError: the file has none."""
    whole = path.read_text()
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no lines {BEGIN!r} and {END!r}: put them where the tables belong")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def page(
    results: Results, rooflines: Sequence[Roofline], targets: Sequence[Target], setting: Setting, threads: int
) -> str:
    """All tables."""
    parts = [_where(setting, threads), _targets(targets)]
    for title, cell in _CELLS.items():
        parts.append(f"**{title}**\n\n{_by_k(results, cell)}")
    parts.append("**tokens/s of 4 items over others**\n\n" + _ratios(results))
    parts.append(_streams(results, setting))
    parts += [_roofline(found) for found in rooflines]
    return "\n\n".join(part for part in parts if part)


def machine() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _where(setting: Setting, threads: int) -> str:
    return (
        f"{datetime.date.today().isoformat()}, {machine()}, {threads} threads, float32, "
        f"torch {torch.__version__}, transformers {transformers.__version__}. "
        f"{setting.config.num_image_tokens} image tokens, "
        f"prompts of {', '.join(map(str, setting.prompt_tokens))} tokens, {setting.new_tokens} new tokens."
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _targets(targets: Sequence[Target]) -> str:
    rows = [
        [target.name, f"{target.value:.2f}", f"{target.least:g}", "met" if target.is_met else "missed"]
        for target in targets
    ]
    return _table(["", "measured", "target", ""], rows) if rows else ""


def _first_token(found: Found) -> str:
    return f"{found['first_token_s']:.2f}"


def _keys_and_values(found: Found) -> str:
    return f"{found['kv_bytes'] / 1e6:,.1f}" if "kv_bytes" in found else ""


_CELLS: dict[str, Callable[[Found], str]] = {
    "tokens/s": lambda found: f"{rate(found):,.0f}",
    "peak memory beyond the loaded model, MB": lambda found: f"{found['beyond_model_mb']:,.0f}",
    "keys and values, MB, counted from the tensors": _keys_and_values,
    "seconds to the first token": _first_token,
}


def _by_k(results: Results, cell: Callable[[Found], str]) -> str:
    """A row for each k, a column for each way of doing it."""
    rows = []
    for k in sorted({case.k for case in results}):
        cells = []
        for method, items, shared in _WAYS.values():
            found = results.get(Case(method, k, items, shared))
            cells.append("" if found is None else cell(found))
        rows.append([str(k), *cells])
    return _table(["k", *_WAYS], rows)


def _ratios(results: Results) -> str:
    def over(k: int, method: str, items: int) -> str:
        value = ratio(results, Case("engine", k, 4), Case(method, k, items))
        return "" if value is None else f"{value:.1f}x"

    columns = {
        "`generate`": ("generate", 1),
        "k calls": ("calls", 1),
        "expanded cache, 4 items": ("expanded", 4),
        "engine, 1 item": ("engine", 1),
    }
    ks = sorted({case.k for case in results})
    rows = [[str(k), *(over(k, *column) for column in columns.values())] for k in ks]
    return _table(["k", *columns], rows)


def _streams(results: Results, setting: Setting) -> str:
    names = {"stream": "all rows run to the end", "ending": "rows end at random"}
    rows = []
    for case, found in results.items():
        if case.method in names:
            mean = found["tokens"] / setting.stream_items / case.k
            what = [names[case.method], str(case.k), f"{mean:.1f}"]
            rows.append([*what, f"{rate(found):,.0f}", f"{decode_rate(found):,.0f}"])
    if not rows:
        return ""
    title = f"**{setting.stream_items} items, 4 at a time**"
    header = ["", "k", "tokens a row", "tokens/s", "tokens/s without prefill"]
    return f"{title}\n\n{_table(header, rows)}"


def _roofline(found: Roofline) -> str:
    rows = []
    for line in (*found.lines, *found.inside):
        measured = "" if line.measured_s is None else f"{line.measured_s:.3f}"
        share = "" if not line.measured_s else f"{100 * line.ideal_s / line.measured_s:.0f} %"
        amounts = [f"{line.operations / 1e9:,.1f}", f"{line.bytes / 1e6:,.0f}"]
        rows.append([line.name, *amounts, f"{line.ideal_s:.3f}", measured, share])
    total = [
        f"{sum(getattr(line, name) for line in found.lines) / unit:,.{digits}f}"
        for name, unit, digits in (("operations", 1e9, 1), ("bytes", 1e6, 0))
    ]
    rows.append(
        ["**all**", *total, f"{found.ideal_s:.3f}", f"{found.seconds:.3f}", f"{100 * found.fraction:.0f} %"]
    )
    items = "1 item" if found.case.items == 1 else f"{found.case.items} items"
    title = (
        f"**Roofline, {items}, k = {found.case.k}** "
        f"(a copy moves {found.copy_bytes_per_s / 1e9:.1f} GB/s, read and written)"
    )
    header = ["stage", "GFLOP", "MB", "seconds at least", "seconds measured", "share"]
    return f"{title}\n\n{_table(header, rows)}"
