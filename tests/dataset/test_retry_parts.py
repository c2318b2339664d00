"""Error rows tried again: which they are, and that a part is replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogbatch.dataset.parts import read_footer, read_part, write_part
from cogbatch.dataset.retry import RetryRound, failed_offsets, pick, replace_rows
from cogbatch.dataset.rows import Row
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.dataset.shards import Shard
from cogbatch.errors import RunDirectoryError
from cogbatch.types import Candidate, RequestError, RequestOutput

SHARD = Shard(0, 0, 10, 4)
FAILED = RequestError("image", "ImageError", "404")


def table(shard: Shard, errors: tuple[int, ...] = (), *, text: str = "old") -> pa.Table:
    """One candidate a row; errors: offsets of error rows."""
    rows = []
    for offset in range(shard.num_rows):
        candidates = (Candidate(0, f"{text} {shard.first_row + offset}", (5, 2), -0.125, 2, "stop"),)
        output = RequestOutput("", error=FAILED) if offset in errors else RequestOutput("", candidates)
        row = Row("f", shard.first_row + offset, str(shard.first_row + offset))
        rows.append(record(row, output, model_fingerprint="m", job_fingerprint="j"))
    return rows_to_table(rows)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.start({"job_fingerprint": "j"})
    return run


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_replaced_rows_are_the_failed_ones_in_their_places(failed: list[bool]) -> None:
    shard = Shard(0, 0, 0, len(failed))
    errors = tuple(offset for offset, is_error in enumerate(failed) if is_error)
    old, new = table(shard, errors), table(shard, text="new")
    assert failed_offsets(old) == errors
    assert list(pick(map(str, range(len(failed))), errors)) == [str(offset) for offset in errors]
    replaced = replace_rows(old, errors, new.take(pa.array(errors, pa.int64())))
    assert replaced.schema.equals(old.schema)
    assert replaced["input_row"].to_pylist() == list(range(len(failed)))
    for offset, is_error in enumerate(failed):
        source = new if is_error else old
        assert replaced.slice(offset, 1).to_pylist() == source.slice(offset, 1).to_pylist()


def test_a_part_is_missing_until_this_round_replaced_it(run: RunDirectory) -> None:
    write_part(run.parts, SHARD.part_name, table(SHARD, (1,)))
    first, second = RetryRound(run, "first"), RetryRound(run, "second")
    assert first.missing([SHARD]) == (SHARD,)
    write_part(run.parts, SHARD.part_name, table(SHARD, (1,)), retry="first")
    assert (first.missing([SHARD]), second.missing([SHARD])) == ((), (SHARD,))
    assert run.missing([SHARD]) == (), "a part like any other"


def test_staged_error_rows_replace_their_part_once_all_are_there(run: RunDirectory) -> None:
    round_ = RetryRound(run, "round")
    write_part(run.parts, SHARD.part_name, table(SHARD, (1, 3)))
    _, second, _, fourth = SHARD.split()
    assert round_.missing_staged(SHARD, job_fingerprint="j") == (second, fourth)
    write_part(round_.staging(SHARD), second.part_name, table(second, text="new"))
    assert round_.missing_staged(SHARD, job_fingerprint="j") == (fourth,)
    assert round_.commit_staged(SHARD, job_fingerprint="j") is None
    assert read_part(run.parts, SHARD.part_name).equals(table(SHARD, (1, 3)))
    write_part(round_.staging(SHARD), fourth.part_name, table(fourth, (0,)))
    assert round_.commit_staged(SHARD, job_fingerprint="j") == read_footer(run.parts / SHARD.part_name)
    part = read_part(run.parts, SHARD.part_name)
    assert failed_offsets(part) == (3,), "it failed again"
    texts = [candidates[0]["text"] if candidates else None for candidates in part["candidates"].to_pylist()]
    assert texts == ["old 10", "new 11", "old 12", None]
    assert round_.missing([SHARD]) == ()
    (round_.parts / SHARD.part_name).unlink()
    with pytest.raises(RunDirectoryError, match="is gone or damaged; run the job itself"):
        round_.missing([SHARD])
    assert not list((run.path / "staging").iterdir())
