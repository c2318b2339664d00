"""The engine against transformers' generate and against the roofline, as ratios: `make bench`.

Not a test: machines are noisy. Random weights; the end token is ignored, so every case does the same work.
Every case has a process of its own; those of one k take turns, and medians count. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cogbatch.engine.system_memory import machine_memory
from tests.bench.cases import Case, Found, expanded_bytes
from tests.bench.profiling import profile
from tests.bench.results import JUDGED_K, TOGETHER, Roofline, roofline, targets
from tests.bench.rounds import run_rounds
from tests.bench.setting import FULL, TINY, Setting
from tests.bench.table import machine, page, write_between_markers


@dataclass(frozen=True)
class Group:
    """Cases that take turns."""

    cases: list[Case]
    rounds: int


def groups(*, quick: bool, tiny: bool) -> Iterator[Group]:
    """What is run, in order."""
    k, few = JUDGED_K, 1 if tiny else 2
    judged = [*compared(k), Case("products", k, TOGETHER)]
    yield Group(judged, few if quick or tiny else 3)
    yield Group([Case("stream", k, TOGETHER), Case("ending", k, TOGETHER)], 1 if quick or tiny else 2)
    if quick or tiny:
        return
    for other in (1, 4, 16, 32):
        yield Group(compared(other), few)
    # The engine again, so that it and the products take turns.
    for case in (Case("products", k, 1), Case("products", 32, TOGETHER)):
        yield Group([Case("engine", case.k, case.items), case], few)


def compared(k: int) -> list[Case]:
    """All ways to k candidates."""
    return [
        Case("engine", k),
        Case("engine", k, TOGETHER),
        Case("engine", k, TOGETHER, shared=True),
        Case("generate", k),
        Case("calls", k),
        Case("expanded", k),
        Case("expanded", k, TOGETHER),
    ]


def fits(case: Case, setting: Setting) -> bool:
    """Whether this machine has the memory for it, with some to spare."""
    return case.method != "expanded" or expanded_bytes(setting, case) < 0.6 * machine_memory().available_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="k = 8 only")
    parser.add_argument("--tiny", action="store_true", help="sizes that mean nothing, to see that it runs")
    parser.add_argument("--profile", action="store_true", help="only where the engine's time goes, k = 8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=Path, help="a Markdown file, for the tables between its markers")
    options = parser.parse_args()
    setting = TINY if options.tiny else FULL
    if options.profile:
        print(profile(setting, Case("engine", JUDGED_K, TOGETHER), threads=options.threads))
        return

    results: dict[Case, Found] = {}
    rooflines: list[Roofline] = []
    for group in groups(quick=options.quick, tiny=options.tiny):
        cases = [case for case in group.cases if fits(case, setting)]
        for case in group.cases:
            if case not in cases:
                print(f"left out, it does not fit: {case.name}", file=sys.stderr)
        found = run_rounds(cases, setting, rounds=group.rounds, threads=options.threads)
        for case in found:
            if case.method == "products":
                engine = found[Case("engine", case.k, case.items)]
                rooflines.append(roofline(setting, case, engine, found[case]))
        results = found | results
    judged = targets(results, rooflines)
    text = page(results, rooflines, judged, setting, options.threads)
    print(text)
    if options.write:
        write_between_markers(options.write, text)
    print(json.dumps(as_data(results, rooflines, options.threads) | {"targets": [asdict(t) for t in judged]}))


def as_data(results: dict[Case, Found], rooflines: list[Roofline], threads: int) -> dict[str, Any]:
    """All figures, for machines."""
    return {
        "machine": machine(),
        "threads": threads,
        "cases": {case.name: rounded(found) for case, found in results.items()},
        "roofline": {
            f"k={line.case.k} items={line.case.items}": round(line.fraction, 3) for line in rooflines
        },
    }


def rounded(found: Found) -> Found:
    """Four digits are more than a noisy machine has."""
    return {
        name: rounded(value) if isinstance(value, dict) else float(f"{value:.4g}")
        for name, value in found.items()
    }


if __name__ == "__main__":
    main()
