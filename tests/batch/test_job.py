"""Laws of a job on real local Ray: rows in = rows out, whatever dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fake_backend import FAKE, REFUSING, FakeEngine, MakeSpec, die_loading, refuse_once
from job_files import ENVIRONMENT, began, check_rows, driver_of, rows_of, start_driver, wait_for_worker

from cogbatch.batch.backend import JobPlan, ReadyModel, WorkerPlan
from cogbatch.batch.driver import Driver
from cogbatch.batch.job import run_job
from cogbatch.batch.ongoing import Ongoing
from cogbatch.batch.plan import plan_job
from cogbatch.batch.progress import Silent
from cogbatch.batch.tally import Tally
from cogbatch.dataset import RunDirectory, open_dataset
from cogbatch.errors import JobError, RunDirectoryError

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


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
    job = Path(spec.output.path) / "job.json"
    job.write_text(json.dumps({k: v for k, v in json.loads(job.read_text()).items() if k != "duplicate_ids"}))
    again = run_job(spec, backend=REFUSING)  # nothing is missing, so no worker is asked
    assert (again.rows, again.shards_done_now) == (19, 0)
    assert began(spec) == before == Counter({f"i{n}": 1 for n in range(19)})


def test_a_row_that_kills_its_process_becomes_the_only_error_row_and_ray_stays_off_the_terminal(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(["say"] * 6 + ["die"] + ["say"] * 9)
    done = subprocess.run(driver_of(spec, tmp_path), env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "16 rows, 1 errors\n")
    assert "16/16 items" in done.stderr
    assert "raylet" not in done.stderr
    assert "(raylet)" in (Path(spec.output.path) / "logs" / "ray.log").read_text()
    rows = rows_of(spec)
    assert len(rows) == 16
    assert [name for name, row in rows.items() if row["error"]] == ["i6"]
    assert rows["i6"]["error"]["stage"] == "worker"
    assert not list((Path(spec.output.path) / "staging").iterdir())


def test_a_killed_worker_costs_nothing_but_time(make_spec: MakeSpec) -> None:
    spec = make_spec(["sleep 0.1"] * 40)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(run_job, spec, backend=FAKE)
        os.kill(wait_for_worker(spec, items=6), signal.SIGKILL)
        summary = job.result(timeout=120)
    check_rows(spec, 40)
    assert summary.errors == 0
    redone = began(spec).total() - 40
    assert 1 <= redone <= 8, "at most the two shards in flight are redone"


@pytest.mark.slow
def test_a_stalled_item_is_found_and_slow_ones_are_left_alone(make_spec: MakeSpec) -> None:
    spec = make_spec(
        ["sleep 3", "say", "say", "say", "hang", "say", "say", "say"],
        errors={"stall_timeout_s": 1.5, "shard_attempts": 1},
    )
    summary = run_job(spec, backend=FAKE)
    rows = rows_of(spec)
    assert len(rows) == 8
    assert [name for name, row in rows.items() if row["error"]] == ["i4"]
    assert summary.error_kinds[0].stage == "worker"
    logs = [log.read_text() for log in (Path(spec.output.path) / "logs").glob("worker-*.log")]
    assert logs
    assert all("Timeout" in log for log in logs)


@pytest.mark.slow
def test_an_engine_that_fails_is_replaced_and_its_item_blamed(make_spec: MakeSpec) -> None:
    spec = make_spec(["say", "crash", "say"], errors={"shard_attempts": 1})
    run_job(spec, backend=FAKE)
    rows = rows_of(spec)
    assert [name for name, row in rows.items() if row["error"]] == ["i1"]
    assert "the GPU fell off" in str(rows["i1"]["error"])


def test_no_node_that_can_prove_its_weights_ends_the_job_with_the_reason(make_spec: MakeSpec) -> None:
    spec = make_spec(["say"] * 8)
    with pytest.raises(JobError, match=r"no worker can start.*m/model\.safetensors differs"):
        run_job(spec, backend=REFUSING)
    assert not list((Path(spec.output.path) / "parts").iterdir())


def test_workers_that_die_while_loading_blame_no_row_and_end_the_job(make_spec: MakeSpec) -> None:
    spec = make_spec(["say"], cluster={"max_workers": 1})
    with pytest.raises(JobError, match=r"no worker can start: .*: 2 workers died while loading the model"):
        run_job(spec, backend=replace(FAKE, open_engine=die_loading))
    assert not list((Path(spec.output.path) / "parts").iterdir())


def test_a_passing_failure_to_load_does_not_exclude_a_node_that_works(make_spec: MakeSpec) -> None:
    spec = make_spec(["sleep 0.2"] * 16)
    summary = run_job(spec, backend=replace(FAKE, open_engine=refuse_once))
    assert (len(rows_of(spec)), summary.errors) == (16, 0)


def test_workers_that_see_other_storage_than_the_driver_end_the_job(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(["say"])
    here, elsewhere = RunDirectory(spec.output.path), RunDirectory(tmp_path / "elsewhere")
    for run in (here, elsewhere):
        run.start({"job_fingerprint": "j"})
    dataset = open_dataset(spec.input)
    job = JobPlan(str(elsewhere.path), dataset, "j", spec.generation)
    plan = WorkerPlan(
        jobs=(job,),
        model=ReadyModel("m", "f", "base", "float32"),
        device="cpu",
        num_threads=1,
        stall_timeout_s=60.0,
        probe="token",
    )
    ongoing = Ongoing("run", job, here, dataset.shards(), Tally(), rows_total=1, max_error_rate=0.05)
    driver = Driver([ongoing], plan, home=here, open_engine=FakeEngine, progress=Silent(), shard_attempts=2)
    with pytest.raises(JobError, match=r"elsewhere is another folder at the driver: use a shared file sys"):
        driver.finish()
    assert list(elsewhere.logs.iterdir()) == [], "nothing was loaded"


def test_a_worker_that_fits_nowhere_ends_the_job_at_once(make_spec: MakeSpec) -> None:
    spec = make_spec(["say"], cluster={"gpus_per_worker": 1})
    with pytest.raises(JobError, match=r"no node has 1 GPU and 1 CPU; this cluster has 1 x 5 CPU: lower"):
        run_job(spec, backend=FAKE)


def test_too_many_errors_stop_the_job_early_with_the_three_commonest(make_spec: MakeSpec) -> None:
    kinds = ["bad ValueError"] * 9 + ["bad OSError"] * 6 + ["bad KeyError"] * 4 + ["bad IndexError"]
    spec = make_spec(kinds * 6 + ["sleep 1"] * 80)
    with pytest.raises(
        JobError, match=r"stopped: 1\d\d of 1\d\d rows are errors.*max_error_rate 0\.05"
    ) as err:
        run_job(spec, backend=FAKE)
    said = re.findall(r"\d+ x generate/(\w+): cannot answer i\d+", str(err.value))
    assert said == ["ValueError", "OSError", "KeyError"]
    assert began(spec).total() < 160


def test_a_job_with_too_many_errors_that_came_to_its_end_says_so(make_spec: MakeSpec) -> None:
    spec = make_spec(["bad"] * 100, output={"shard_size": 100})
    with pytest.raises(JobError, match=r"finished with too many errors: 100 of 100 .*raise errors\.max_e"):
        run_job(spec, backend=FAKE)
    assert len(rows_of(spec)) == 100


def test_another_job_in_the_same_directory_is_refused_with_what_differs(make_spec: MakeSpec) -> None:
    spec = make_spec(["say"])
    run_job(spec, backend=FAKE)
    assert plan_job(spec, backend=FAKE).missing_shards == 0
    other = spec.model_copy(update={"generation": replace(spec.generation, seed=1)})
    for command in (run_job, plan_job):
        with pytest.raises(RunDirectoryError, match=r"another job: generation\.seed: 0 -> 1;"):
            command(other, backend=FAKE)
    longer = make_spec(["say", "more"])
    with pytest.raises(RunDirectoryError, match="another job: the input files changed;"):
        plan_job(longer, backend=FAKE)


@pytest.mark.slow
def test_a_killed_driver_is_resumed_where_its_parts_end(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec(["sleep 0.1"] * 60)
    driver = start_driver(spec, tmp_path)
    try:
        wait_for_worker(spec, items=20)
        with pytest.raises(RunDirectoryError, match=rf"in use by another driver \(pid {driver.pid} "):
            run_job(spec, backend=FAKE)
    finally:
        driver.kill()
        driver.wait()
    summary = run_job(spec, backend=FAKE)
    check_rows(spec, 60)
    assert summary.rows == 60
    assert 0 < summary.shards_done_now < 15
    assert began(spec).total() - 60 <= 16, "at most the four shards in flight are redone"


@pytest.mark.slow
def test_a_frozen_worker_whose_own_timer_cannot_fire_is_killed_by_the_driver(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(
        ["say", f"freeze {tmp_path / 'frozen'}", "say", "say"] + ["say"] * 8, errors={"stall_timeout_s": 1.5}
    )
    run_job(spec, backend=FAKE)
    check_rows(spec, 12)
