"""Laws of a sweep on real local Ray: points are ordinary runs, weights are loaded once, failures alone."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_backend import FAKE, NOTING, REFUSING, prepare, refuse_broken
from job_files import ENVIRONMENT, began, rows_of, wait_for_worker

from cogbatch.batch.backend import ReadyModel
from cogbatch.batch.job import run_job
from cogbatch.batch.progress import Status
from cogbatch.batch.retry import retry_failed
from cogbatch.batch.spec import JobSpec, load_spec
from cogbatch.batch.sweep import plan_sweep, run_sweep
from cogbatch.batch.sweep_spec import Sweep, parse_sweep
from cogbatch.dataset.parts import list_parts
from cogbatch.errors import JobError, RunDirectoryError
from cogbatch.eval.report import write_report
from cogbatch.eval.stored_sweep import open_sweep
from cogbatch.eval.sweep_table import SweepTable, tabulate

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def make_sweep(folder: Path, prompts: list[str], **keys: Any) -> Sweep:
    """Over one prompt per item, in runs of at most 20 items a shard."""
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"id": f"i{n}", "prompt": p}) + "\n" for n, p in enumerate(prompts)))
    job = {
        "model": {"checkpoint": "m"},
        "input": {"path": str(data), "id_column": "id", "image_column": None, "prompt_column": "prompt"},
        "generation": {"num_candidates": 2},
        "output": {"shard_size": 20},
        "cluster": {"max_workers": 2},
    }
    return parse_sweep({"job": job, "output": {"path": str(folder / "sweep")}, **keys})


def content(spec: JobSpec) -> dict[str, list[dict[str, Any]]]:
    """Every part of a run, without the seconds."""
    folder = Path(spec.output.path) / "parts"
    return {
        n: pq.read_table(folder / n).drop_columns("seconds").to_pylist() for n in list_parts(folder.parent)
    }


def compared(sweep: Sweep) -> SweepTable:
    """What its sweep.json and its parts say."""
    return tabulate(open_sweep(sweep.path))


def spec_of(sweep: Sweep, name: str) -> JobSpec:
    (found,) = [point.spec for point in sweep.points if point.name == name]
    return found


class Lines:
    """What a sweep said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.last: Status | None = None

    def say(self, line: str) -> None:
        self.said.append(line)

    def update(self, status: Status) -> None:
        self.last = status

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Swept:
    sweep: Sweep
    failures: dict[str, str]
    table: SweepTable
    progress: Lines
    folder: Path


@pytest.fixture(scope="module")
def swept(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Swept:  # noqa: ARG001
    """Two points that share workers, one with another model, and one that is too hot for its prompts."""
    folder = tmp_path_factory.mktemp("sweep")
    sweep = make_sweep(
        folder,
        ["below 1.5"] * 119 + ["bad"],
        points=[
            {"name": "one"},
            {"name": "two", "generation.seed": 7, "generation.num_candidates": 3},
            {"name": "other", "model.checkpoint": "n"},
            {"name": "hot", "generation.temperature": 2.0},
        ],
    )
    progress = Lines()
    failures = run_sweep(sweep, backend=NOTING, progress=progress)
    return Swept(sweep, failures, compared(sweep), progress, folder)


@pytest.mark.ray
def test_every_point_has_bit_for_bit_the_rows_of_its_job_run_alone(swept: Swept) -> None:
    spec = spec_of(swept.sweep, "two")
    output = spec.output.model_copy(update={"path": str(swept.folder / "alone")})
    alone = spec.model_copy(update={"output": output})
    run_job(alone, backend=FAKE)
    assert content(spec) == content(alone)
    assert [c["text"] for c in rows_of(spec)["i5"]["candidates"]] == ["i5/7/0", "i5/7/1", "i5/7/2"]


def test_weights_are_loaded_once_in_each_worker_and_not_for_each_point(swept: Swept) -> None:
    loads = [log.read_text().split() for log in swept.folder.glob("sweep/points/*/logs/loads.txt")]
    assert len(loads) == 2, "two groups"
    found = Counter(name for log in loads for name in log)
    assert set(found) == {"m", "n"}
    assert max(found.values()) <= 2, "one load a worker"
    said = "\n".join(swept.progress.said)
    assert (said.count("preparing m"), said.count("preparing n")) == (1, 1)


def test_a_point_with_too_many_errors_fails_alone(swept: Swept) -> None:
    assert list(swept.failures) == ["hot"]
    assert swept.table.failures == swept.failures
    assert "rows are errors, more than errors.max_error_rate 0.05" in swept.table.failures["hot"]
    assert [(p.name, p.items, p.errors) for p in swept.table.points[:3]] == [
        ("one", 120, 1),
        ("two", 120, 1),
        ("other", 120, 1),
    ]
    assert swept.table.points[0].averages["num_candidates"].mean == 2
    assert swept.table.points[3].averages == {}


def test_the_report_of_a_sweep_says_what_its_table_says(swept: Swept) -> None:
    """sweep.json, as run_sweep leaves it, is all that a report knows of points and failures."""
    page = write_report(swept.sweep.path, out=swept.folder / "report.html").read_text()
    assert "3 runs" in page
    assert f"hot failed: {swept.failures['hot']}" in html.unescape(page)
    front = [point.name for point in swept.table.points if point.on_front]
    plot = page[page.index("On the front") : page.index("Beaten by another")]
    assert [name for name in ("one", "two", "other") if f">{name}<" in plot] == front


def test_progress_is_that_of_all_points(swept: Swept) -> None:
    last = swept.progress.last
    assert last is not None
    assert last.jobs == 4
    assert last.jobs_done in (3, 4), "the hot one may come to its end before it is judged"
    assert last.line().startswith(f"{last.jobs_done}/4 points  ")
    assert last.rows >= 360


@pytest.mark.ray
def test_a_finished_sweep_is_only_counted_anew_and_points_are_ordinary_runs(swept: Swept) -> None:
    """run goes on with a point by the spec beside it, retry-failed mends one, and the sweep sees it."""
    kept = replace(swept.sweep, points=swept.sweep.points[:3])
    progress = Lines()
    assert run_sweep(kept, backend=REFUSING, progress=progress) == {}  # no worker is asked
    table = compared(kept)
    assert not [line for line in progress.said if "Ray" in line]
    assert (table.points, table.failures) == (swept.table.points[:3], {})
    own = load_spec(swept.folder / "sweep/points/one.yaml")
    assert run_job(own, backend=REFUSING).shards_done_now == 0
    assert retry_failed(own.output.path, backend=FAKE).rows_retried == 1
    assert plan_sweep(kept, backend=FAKE).points[0]["missing_shards"] == 0


@pytest.mark.ray
def test_a_directory_of_another_job_is_refused_before_anything_runs(swept: Swept) -> None:
    other = replace(swept.sweep.points[0].spec.generation, seed=99)
    point = replace(
        swept.sweep.points[0], spec=swept.sweep.points[0].spec.model_copy(update={"generation": other})
    )
    changed = replace(swept.sweep, points=(point,))
    for command in (plan_sweep, run_sweep):
        with pytest.raises(RunDirectoryError, match=r"points/one belongs to another job: generation\.seed"):
            command(changed, backend=REFUSING)


def test_what_is_wrong_with_points_is_said_for_all_of_them_before_ray(tmp_path: Path) -> None:
    sweep = make_sweep(
        tmp_path,
        ["say"],
        points=[
            {"name": "cold", "generation.temperature": 0.0},
            {"name": "gone", "model.checkpoint": "nowhere"},
            {"name": "fine"},
        ],
    )
    with pytest.raises(
        JobError, match=r"2 mistakes: point cold: generation: temperature.*; point gone: nowh"
    ):
        run_sweep(sweep, backend=FAKE)
    (tmp_path / "data.jsonl").unlink()
    with pytest.raises(JobError, match=r"sweep sweep: 1 mistake: .*data\.jsonl"):
        plan_sweep(replace(sweep, points=sweep.points[2:] * 2), backend=FAKE)


def test_a_gpu_that_this_machine_does_not_have_is_said_once_for_all_points(tmp_path: Path) -> None:
    points = [{"generation.seed": n, "cluster.gpus_per_worker": gpus} for n, gpus in enumerate((1, 1, 0))]
    plan = plan_sweep(make_sweep(tmp_path, ["say"], points=points), backend=FAKE, gpus_here=0)
    (problem,) = plan.problems
    assert plan.lines()[-1] == f"problem: {problem}"
    assert "this machine has no GPUs" in problem
    assert not plan_sweep(make_sweep(tmp_path, ["say"], points=points), backend=FAKE, gpus_here=1).problems


def test_the_directory_of_a_job_is_no_place_for_a_sweep(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, ["say"], points=[{}])
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "job.json").touch()
    with pytest.raises(RunDirectoryError, match="is the run directory of a job; use another"):
        plan_sweep(sweep, backend=FAKE)


def test_two_names_of_one_model_are_one_job(tmp_path: Path) -> None:
    def same(spec: Any, say: Any) -> ReadyModel:
        return replace(prepare(spec, say), path="m", fingerprint="f")

    sweep = make_sweep(tmp_path, ["say"], grid={"model.checkpoint": ["m", "copy-of-m"]})
    with pytest.raises(JobError, match="points checkpoint-m and checkpoint-copy-of-m are the same job"):
        run_sweep(sweep, backend=replace(FAKE, prepare=same))
    assert not (tmp_path / "sweep").exists()


SWEEPER = """
import json, pathlib, sys, fake_backend, ray
from cogbatch.batch.sweep import run_sweep
from test_sweep import make_sweep
ray.cloudpickle.register_pickle_by_value(fake_backend)
sweep = make_sweep(pathlib.Path(sys.argv[1]), **json.loads(sys.argv[2]))
run_sweep(sweep, backend=fake_backend.FAKE)
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_killed_sweep_is_resumed_where_its_parts_end(tmp_path: Path) -> None:
    made = {
        "prompts": ["sleep 0.05"] * 40,
        "grid": {"generation.seed": [1, 2, 3]},
        "set": {"output.shard_size": 4},
    }
    sweep = make_sweep(tmp_path, **made)
    home = sweep.points[0].spec
    command = [sys.executable, "-c", SWEEPER, str(tmp_path), json.dumps(made)]
    driver = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_worker(home, items=50)
        with pytest.raises(RunDirectoryError, match=rf"in use by another driver \(pid {driver.pid} "):
            run_sweep(sweep, backend=FAKE)
    finally:
        driver.kill()
        driver.wait()
    parts = sum(len(list_parts(point.spec.output.path)) for point in sweep.points)
    assert 0 < parts < 30
    run_sweep(sweep, backend=FAKE)
    table = compared(sweep)
    assert [(point.items, point.errors) for point in table.points] == [(40, 0)] * 3
    for point in sweep.points:
        assert set(rows_of(point.spec)) == {f"i{n}" for n in range(40)}
    begun = sum(began(point.spec).total() for point in sweep.points)
    assert begun - 120 <= 16, "at most the four shards in flight are redone"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_row_that_kills_its_process_becomes_the_only_error_row_of_every_point(tmp_path: Path) -> None:
    sweep = make_sweep(
        tmp_path,
        ["say"] * 6 + ["die"] + ["say"] * 5,
        grid={"generation.seed": [1, 2]},
        set={"output.shard_size": 4},
    )
    run_sweep(sweep, backend=FAKE)
    table = compared(sweep)
    for point in sweep.points:
        rows = rows_of(point.spec)
        assert [name for name, row in rows.items() if row["error"]] == ["i6"]
        seed = point.spec.generation.seed
        assert {row["candidates"][0]["text"] for name, row in rows.items() if name != "i6"} == {
            f"i{n}/{seed}/0" for n in range(12) if n != 6
        }
    assert [(point.items, point.errors) for point in table.points] == [(12, 1)] * 2


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_group_whose_workers_cannot_start_fails_and_the_others_go_on(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, ["say"] * 4, grid={"model.checkpoint": ["broken", "m"]})
    failures = run_sweep(sweep, backend=replace(FAKE, open_engine=refuse_broken))
    assert list(failures) == ["checkpoint-broken"]
    assert "no worker can start: " in failures["checkpoint-broken"]
    assert compared(sweep).points[1].items == 4
