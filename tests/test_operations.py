"""docs/operations.md keeps its word: its names are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "operations.md").read_text()


def test_every_metric_is_documented() -> None:
    source = (ROOT / "cogbatch" / "batch" / "metrics.py").read_text()
    counters = set(re.findall(r'counter\("(\w+)"', source))
    assert counters == set(re.findall(r"`ray_cogbatch_(\w+)_total", TEXT))
    assert len(counters) == 5


def test_every_state_of_a_run_is_documented() -> None:
    source = (ROOT / "cogbatch" / "batch" / "status.py").read_text()
    states = set(re.findall(r'"(\w+)"', source.partition("def _state")[2].partition("def ")[0]))
    documented = set(re.findall(r"^\| `([a-z]+)` \|", TEXT, flags=re.MULTILINE))
    assert documented == states
    assert len(states) == 4
