"""The recount of a table from its definitions alone: it agrees where the table is right, and only there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_run import Outputs, write_run

from cogbatch.eval.stored_sweep import PointRun, StoredSweep
from cogbatch.eval.sweep_files import write_table
from cogbatch.eval.sweep_table import tabulate
from cogbatch.types import JudgeOptions, RequestError
from tests.recount import disagreements

POINTS: Mapping[str, Outputs] = {
    "alike": [["a red cat", "A red cat.", "a red cat"], ["sits", "sits", "a"]],
    "mixed": [["a red cat sits on a mat", "one car", "a red dog"], RequestError("read", "X", "no")],
    "worse": [["one two three", "one three two", "two two"], ["x", "y", "x"]],
}


@dataclass(frozen=True)
class Verdict:
    """What check says of a text."""

    correct: bool
    content: str

    @property
    def score(self) -> float:
        return len(self.content) / 10


def check(text: str, row: Mapping[str, object]) -> Verdict:  # noqa: ARG001 # a checker is told the row
    """Right is what speaks of "a" something; what that is, is its content."""
    words = text.lower().rstrip(".").split()
    return Verdict("a" in words, words[-1])


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of three points over two items, and one that failed, as files."""
    folder = tmp_path / "sweep"
    runs = [PointRun("failed", "nowhere", {"a.b": 0}, "no worker can start")]
    for name, outputs in POINTS.items():
        made = write_run(tmp_path / name, outputs, seconds=[1, 4])
        (folder / "points").mkdir(parents=True, exist_ok=True)
        runs.append(PointRun(name, str(made.rename(folder / "points" / name)), {"a.b": 1}))
    table = tabulate(StoredSweep("small", tuple(runs), JudgeOptions(checker="test_recount:check")))
    write_table(table, folder)
    (folder / "sweep.json").write_text(json.dumps({"quality": None, "diversity": None}))
    return folder


def test_it_agrees_with_the_table_and_says_what_it_does_not_count(sweep: Path) -> None:
    compared, wrong, uncounted = disagreements(sweep, check)
    assert (compared > 3 * 24, wrong) == (True, [])
    ends = [name for name in uncounted if name.endswith(("_low", "_high"))]
    assert sorted(set(uncounted) - set(ends)) == ["self_bleu", "self_bleu_items"]


def test_every_number_that_is_wrong_is_found(sweep: Path) -> None:
    rows = pq.read_table(sweep / "table.parquet").to_pylist()
    rows[2]["on_front"] = not rows[2]["on_front"]
    columns = ("vendi_score", "rouge_l_distance", "distinct_correct", "score", "best_score", "pass@2")
    rows[2] |= {column: rows[2][column] + 1e-6 for column in columns}
    pq.write_table(pa.Table.from_pylist(rows), sweep / "table.parquet")
    _, wrong, _ = disagreements(sweep, check)
    assert {line.split(" ")[1].rstrip(":") for line in wrong} == {"on_front", *columns}
