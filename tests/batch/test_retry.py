"""Laws of retry-failed on real local Ray: only error rows run again, each part is the old or the new one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_backend import FAKE, REFUSING, MakeSpec
from job_files import began, check_rows, rows_of, start_driver, wait_for_worker

from cogbatch.batch.job import run_job
from cogbatch.batch.retry import retry_failed
from cogbatch.batch.spec import JobSpec
from cogbatch.dataset import RunDirectory
from cogbatch.errors import JobError, RunDirectoryError

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

RETRY_DRIVER = """
import json, sys, fake_backend, ray
from cogbatch.batch.retry import retry_failed
ray.cloudpickle.register_pickle_by_value(fake_backend)
retry_failed(json.load(open(sys.argv[1]))["output"]["path"], backend=fake_backend.FAKE)
"""


def tables(spec: JobSpec) -> dict[str, bytes]:
    """The bytes of every part."""
    return {part.name: part.read_bytes() for part in (Path(spec.output.path) / "parts").iterdir()}


def test_only_error_rows_run_again_and_the_others_stay_bit_for_bit(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    need = f"needs {tmp_path / 'image'} say"
    spec = make_spec(["say"] * 4 + ["say", need, "bad", need] + [need] * 3)
    run_job(spec, backend=FAKE)
    check_rows(spec, 11, errors=("i5", "i6", "i7", "i8", "i9", "i10"))
    before, rows = tables(spec), rows_of(spec)
    (tmp_path / "image").touch()
    result = retry_failed(spec.output.path, backend=FAKE)
    check_rows(spec, 11, errors=("i6",))
    assert (result.rows_retried, result.rows_mended, result.parts_replaced, result.errors) == (6, 5, 2, 1)
    assert [(kind.type, kind.count) for kind in result.error_kinds] == [("ValueError", 1)]
    after = rows_of(spec)
    for name in ("i0", "i1", "i2", "i3", "i4"):
        assert (after[name], began(spec)[name]) == (rows[name], 1)
    assert tables(spec)["part-0-0-4.parquet"] == before["part-0-0-4.parquet"], "not even written again"
    schemas = [pq.read_schema(part) for part in (Path(spec.output.path) / "parts").iterdir()]
    assert all(schema.equals(schemas[0]) for schema in schemas)
    assert json.loads((Path(spec.output.path) / "summary.json").read_text())["errors"] == 1
    assert run_job(spec, backend=REFUSING).shards_done_now == 0
    assert retry_failed(spec.output.path, backend=FAKE).rows_mended == 0, "tried once, not for ever"


@pytest.mark.slow
def test_a_row_that_kills_its_process_then_costs_no_other_row_its_second_chance(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    need = f"needs {tmp_path / 'image'}"
    prompts = ["say", f"{need} die", f"{need} say", "say", f"{need} say"]
    spec = make_spec(prompts, errors={"shard_attempts": 1})
    run_job(spec, backend=FAKE)
    (tmp_path / "image").touch()
    result = retry_failed(spec.output.path, backend=FAKE)
    check_rows(spec, 5, errors=("i1",))
    assert rows_of(spec)["i1"]["error"]["stage"] == "worker"
    assert (result.rows_retried, result.rows_mended) == (3, 2)
    assert not list((Path(spec.output.path) / "staging").iterdir())


@pytest.mark.slow
def test_killed_in_the_middle_every_row_is_there_once_and_a_second_try_ends_it(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec([f"needs {tmp_path / 'image'} sleep 0.1", "say"] * 30)
    run_job(spec, backend=FAKE)
    (tmp_path / "image").touch()
    driver = start_driver(spec, tmp_path, program=RETRY_DRIVER)
    try:
        wait_for_worker(spec, items=60 + 10)
        with pytest.raises(RunDirectoryError, match="in use by another driver"):
            retry_failed(spec.output.path, backend=FAKE)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    left = sum(row["error"] is not None for row in rows_of(spec).values())
    assert 0 < left < 30
    assert len(rows_of(spec)) == 60
    result = retry_failed(spec.output.path, backend=FAKE)
    check_rows(spec, 60)
    assert result.rows_mended <= left, "what a dying worker still wrote counts"
    assert all(began(spec)[f"i{n}"] == 1 for n in range(1, 60, 2)), "rows that were fine"
    assert began(spec).total() <= 60 + 30 + 8, "at most the four shards in flight are redone"


def test_parts_of_a_job_that_was_stopped_can_be_retried_and_the_rest_is_named(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    need = f"needs {tmp_path / 'image'} say"
    spec = make_spec([need] * 120 + ["sleep 1"] * 40, output={"shard_size": 20})
    with pytest.raises(JobError, match="stopped"):
        run_job(spec, backend=FAKE)
    (tmp_path / "image").touch()
    missing = len(RunDirectory(spec.output.path).missing(shards_of(spec)))
    result = retry_failed(spec.output.path, backend=FAKE)
    assert (result.missing_shards, result.errors) == (missing, 0)
    assert f"{missing} shards are missing: run the job itself" in "\n".join(result.lines())
    assert result.rows == result.rows_mended


def test_what_is_no_run_and_what_would_be_another_job_is_refused(make_spec: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="nowhere: no such folder; expected a run directory"):
        retry_failed(tmp_path / "nowhere")
    spec = make_spec(["bad"])
    run_job(spec, backend=FAKE)
    with pytest.raises(RunDirectoryError, match=r"another job: generation\.seed: 0 -> 1"):
        retry_failed(spec.output.path, overrides=["generation.seed=1"], backend=FAKE)
    with pytest.raises(JobError, match="did you mean seed"):
        retry_failed(spec.output.path, overrides=["generation.sed=1"], backend=FAKE)


def shards_of(spec: JobSpec):
    """The grid of a job."""
    from cogbatch.dataset import open_dataset

    return open_dataset(spec.input).shards(spec.output.shard_size)
