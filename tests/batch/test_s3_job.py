"""Laws of a job whose input and output lie on s3://, on real local Ray: as on disk, also when killed."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_backend import FAKE, REFUSING
from job_files import ENVIRONMENT, began, driver_of, rows_of, wait_for_worker

from cogbatch.batch.job import run_job
from cogbatch.batch.plan import plan_job
from cogbatch.batch.spec import JobSpec, parse_spec
from cogbatch.dataset.object_path import ObjectPath
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.errors import RunDirectoryError
from cogbatch.eval.report import write_report
from tests.s3 import s3_server

RETRY = """
import json, sys, fake_backend, ray
from cogbatch.batch.retry import retry_failed
ray.cloudpickle.register_pickle_by_value(fake_backend)
path = json.load(open(sys.argv[1]))["output"]["path"]
retried = retry_failed(path, backend=fake_backend.FAKE)
print(f"{retried.rows_mended} mended, {retried.errors} errors, {retried.rows} rows")
"""

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Mapping[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def environment(server: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a driver needs to reach the server; its logs are under tmp_path, also for this process."""
    monkeypatch.setenv("COGBATCH_CACHE", str(tmp_path / "cache"))
    return {**ENVIRONMENT, **server, "COGBATCH_CACHE": os.environ["COGBATCH_CACHE"]}


def make_spec(name: str, prompts: list[str], images: list[str | None], **sections: Any) -> JobSpec:
    folder = ObjectPath(f"s3://bucket/{name}")
    columns = {
        "id": [f"i{n}" for n in range(len(prompts))],
        "image": pa.array(images, pa.string()),
        "prompt": prompts,
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=10)
    (folder / "data.parquet").write_bytes(sink.getvalue())
    (folder / "images/a.png").write_bytes(b"the fake engine does not look at it")
    tree = {
        "model": {"checkpoint": "m"},
        "input": {"path": str(folder / "data.parquet"), "id_column": "id", "prompt_column": "prompt"},
        "generation": {"num_candidates": 2},
        "output": {"path": str(folder / "run"), "shard_size": 4},
        "cluster": {"max_workers": 2},
        "errors": {"shard_attempts": 1},
    }
    return parse_spec({**tree, **sections})


@pytest.mark.slow
def test_a_job_on_s3_has_every_row_once_and_runs_once(environment: dict[str, str], tmp_path: Path) -> None:
    """With a row that kills its process, so that its shard is staged, and an image that is not there."""
    prompts = ["say"] * 6 + ["die"] + ["say"] * 9
    spec = make_spec("once", prompts, ["images/a.png"] * 14 + ["images/none.png", None])
    done = subprocess.run(driver_of(spec, tmp_path), env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "16 rows, 2 errors\n"), done.stderr
    rows = rows_of(spec)
    assert set(rows) == {f"i{n}" for n in range(16)}
    errors = {name: row["error"] for name, row in rows.items() if row["error"]}
    assert {name: error["stage"] for name, error in errors.items()} == {"i6": "worker", "i14": "image"}
    assert errors["i14"]["message"] == "image 'images/none.png': cannot be read: no such file"
    run = RunDirectory(spec.output.path)
    names = ObjectPath(spec.output.path).names()
    assert names == ["job.json", "lock", "parts", "probes", "summary.json"]
    assert "nobody" not in ObjectPath(f"{spec.output.path}/job.json").read_text()
    assert plan_job(spec, backend=FAKE).missing_shards == 0
    assert run_job(spec, backend=REFUSING).shards_done_now == 0  # nothing is missing, no worker is asked
    assert "i15/0/" in ObjectPath(str(write_report(spec.output.path))).read_text()  # what differs is marked
    other = spec.model_copy(update={"generation": spec.generation.__class__(num_candidates=3)})
    with pytest.raises(RunDirectoryError, match=r"s3://bucket/once/run belongs to another job"):
        run_job(other, backend=FAKE)
    with run.lock(), pytest.raises(RunDirectoryError, match=r"in use by another driver \(pid \d+"):
        run_job(spec, backend=FAKE)


@pytest.mark.slow
def test_a_job_on_s3_that_was_killed_is_resumed_at_once_and_redoes_what_was_in_flight(
    environment: dict[str, str], tmp_path: Path
) -> None:
    spec = make_spec("killed", ["sleep 0.2"] * 40, [None] * 40)
    for items in (8, 24):
        with subprocess.Popen(driver_of(spec, tmp_path), env=environment) as driver:
            wait_for_worker(spec, items=items)
            driver.kill()
    done = subprocess.run(driver_of(spec, tmp_path), env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "40 rows, 0 errors\n"), done.stderr
    assert "sign of life" not in done.stderr  # the killed one was a process of this machine
    assert set(rows_of(spec)) == {f"i{n}" for n in range(40)}
    assert began(spec).total() - 40 <= 2 * 2 * 2 * 4  # kills x workers x shards each x items


@pytest.mark.slow
def test_error_rows_on_s3_are_retried(environment: dict[str, str], tmp_path: Path) -> None:
    spec = make_spec("retried", ["say"] * 7 + [f"needs {tmp_path / 'there'} say"], [None] * 8)
    command = driver_of(spec, tmp_path)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "8 rows, 1 errors\n", done.stderr
    (tmp_path / "there").touch()
    # In a process of its own too: a Ray that other tests left running knows no credentials.
    command = driver_of(spec, tmp_path, program=RETRY)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "1 mended, 0 errors, 8 rows\n", done.stderr
