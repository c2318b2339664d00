"""Laws of a job on real local Ray: rows in = rows out, whatever dies."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import MakeSpec
from fake_backend import FAKE, REFUSING

from cogbatch.batch.job import run_job
from cogbatch.batch.spec import JobSpec

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def rows_of(spec: JobSpec) -> dict[str, dict[str, object]]:
    """All rows by id; fails when one is there twice."""
    rows: dict[str, dict[str, object]] = {}
    for part in sorted((Path(spec.output.path) / "parts").glob("part-*.parquet")):
        for row in pq.read_table(part, partitioning=None).to_pylist():
            assert row["id"] not in rows, f"{row['id']} twice"
            rows[row["id"]] = row
    return rows


def began(spec: JobSpec) -> Counter[str]:
    """How often each item was begun by a worker."""
    logs = (Path(spec.output.path) / "logs").glob("began-*.txt")
    return Counter(line for log in logs for line in log.read_text().split())


def test_rows_in_are_rows_out_and_a_second_run_redoes_nothing(make_spec: MakeSpec) -> None:
    spec = make_spec(["say"] * 17 + ["bad", "say"])
    summary = run_job(spec, backend=FAKE)
    rows = rows_of(spec)
    assert (summary.rows, summary.ok, summary.errors, summary.candidates) == (19, 18, 1, 36)
    assert set(rows) == {f"i{n}" for n in range(19)}
    assert [c["text"] for c in rows["i3"]["candidates"]] == ["i3/0/0", "i3/0/1"]
    assert rows["i17"]["error"] == {
        "stage": "generate",
        "type": "ValueError",
        "message": "cannot answer i17",
    }
    assert [(kind.stage, kind.count) for kind in summary.error_kinds] == [("generate", 1)]
    assert json.loads((Path(spec.output.path) / "summary.json").read_text())["rows"] == 19
    before = began(spec)
    again = run_job(spec, backend=REFUSING)  # nothing is missing, so no worker is asked
    assert (again.rows, again.shards_done_now) == (19, 0)
    assert began(spec) == before == Counter({f"i{n}": 1 for n in range(19)})


def test_a_row_that_kills_its_process_becomes_the_only_error_row(make_spec: MakeSpec) -> None:
    spec = make_spec(["say"] * 6 + ["die"] + ["say"] * 9, cluster={"max_workers": 2})
    summary = run_job(spec, backend=FAKE)
    rows = rows_of(spec)
    assert len(rows) == 16
    errors = [name for name, row in rows.items() if row["error"]]
    assert (errors, summary.errors) == (["i6"], 1)
    assert rows["i6"]["error"]["stage"] == "worker"
    assert not list((Path(spec.output.path) / "staging").iterdir())
