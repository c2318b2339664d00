"""Laws of submitting, without a head: what travels, what is said of a job, what an answer means."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import yaml
from ray.exceptions import AuthenticationError

from cogbatch.batch import submission
from cogbatch.batch.spec import JobSpec, load_spec, parse_spec
from cogbatch.errors import JobError


class Head:
    """A head in memory: jobs end after so many questions."""

    def __init__(self, *, questions: int = 0) -> None:
        self.jobs: dict[str, SimpleNamespace] = {}
        self.specs: list[JobSpec] = []
        self.sent: list[dict[str, Any]] = []
        self._left = questions

    def submit_job(self, **sent: Any) -> str:
        folder = Path(sent["runtime_env"]["working_dir"])
        assert [path.name for path in folder.iterdir()] == ["job.yaml"]
        self.specs.append(load_spec(folder / "job.yaml"))
        self.sent.append(sent)
        job_id = sent["submission_id"] or f"raysubmit_{len(self.jobs)}"
        if job_id in self.jobs:
            raise RuntimeError(f"Request failed with status code 500: Trace\nJob {job_id} already exists")
        self.jobs[job_id] = info(job_id, metadata=sent["metadata"])
        return job_id

    def get_job_info(self, job_id: str) -> Any:
        if job_id not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist.")
        self._left -= 1
        if self._left < 0 and self.jobs[job_id].status == "STOPPING":
            self.jobs[job_id].status = "STOPPED"
        return self.jobs[job_id]

    def get_job_logs(self, job_id: str) -> str:
        return str(self.get_job_info(job_id).logs)

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        raise NotImplementedError(job_id)

    def list_jobs(self) -> list[Any]:
        return list(self.jobs.values())

    def stop_job(self, job_id: str) -> bool:
        self.get_job_info(job_id).status = "STOPPING"
        return True


def info(job_id: str | None, **values: Any) -> SimpleNamespace:
    """What Ray says of a job."""
    known = {"status": "RUNNING", "metadata": {}, "message": "", "driver_exit_code": None, "logs": ""}
    times = {"start_time": 1_700_000_000_000, "end_time": None}
    return SimpleNamespace(**{"submission_id": job_id, **known, **times, **values})


def spec(**sections: dict[str, Any]) -> JobSpec:
    tree: dict[str, Any] = {"model": {"checkpoint": "m"}, "input": {"path": "p"}, "output": {"path": "o"}}
    return parse_spec({**tree, **{name: {**tree.get(name, {}), **more} for name, more in sections.items()}})


def test_the_head_reads_the_same_spec_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local" / "model").mkdir(parents=True)
    head = Head()
    here = spec(
        model={"checkpoint": "local/model", "tokenizer": "lmsys/vicuna-7b-v1.5", "version": "vqa"},
        input={"path": "data/*.parquet", "image_root": "../photos", "columns": ["a"]},
        generation={"num_candidates": 3, "seed": 4, "preset": "evaluation"},
    )
    submission.submit_job(head, here)
    there = head.specs[0]
    assert there.model.checkpoint == str(tmp_path / "local/model")
    assert there.model.tokenizer == "lmsys/vicuna-7b-v1.5", "a hub id is no path"
    assert there.input.path == str(tmp_path / "data/*.parquet")
    assert there.input.image_root == str(tmp_path.parent / "photos")
    assert there.output.path == str(tmp_path / "o")
    assert (there.generation, there.input.columns) == (here.generation, here.input.columns)


@pytest.mark.parametrize("path", ["s3://bucket/data/*.jsonl", "/shared/data", "~/data"])
def test_urls_absolute_paths_and_the_heads_home_stay(path: str) -> None:
    assert submission.with_absolute_paths(spec(input={"path": path})).input.path == path


def test_nothing_of_the_environment_travels_but_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    head = Head()
    submission.submit_job(head, spec(), command="/opt/venv/bin/cogbatch", job_id="mine")
    sent = head.sent[0]
    assert set(sent["runtime_env"]) == {"working_dir"}
    assert sent["entrypoint"] == "/opt/venv/bin/cogbatch run job.yaml --address auto"
    assert set(sent["metadata"]) == {"cogbatch", "name", "run"}
    assert "hidden" not in yaml.safe_dump(head.specs[0].model_dump(mode="json")) + str(sent)


def test_an_id_is_used_once() -> None:
    head = Head()
    assert submission.submit_job(head, spec(), job_id="mine").job_id == "mine"
    with pytest.raises(JobError, match="job mine: the id was used before; choose another --id"):
        submission.submit_job(head, spec(), job_id="mine")


def test_a_job_that_nobody_knows_is_one_line() -> None:
    for ask in (submission.find_job, submission.stop_job):
        with pytest.raises(JobError, match="job nope: the head knows no such job; cogbatch list shows"):
            ask(Head(), "nope")


def test_the_list_is_of_our_jobs_in_the_order_of_their_start() -> None:
    head = Head()
    for number, name in enumerate(["late", "early"]):
        submission.submit_job(head, spec(), job_id=name)
        head.jobs[name].start_time -= number
    head.jobs["other"] = info("other", metadata={"name": "of somebody else"})
    head.jobs["driver"] = info(None)
    assert [job.job_id for job in submission.list_jobs(head)] == ["early", "late"]


def test_stop_returns_when_the_job_has_ended() -> None:
    head = Head(questions=4)
    submission.submit_job(head, spec(), job_id="mine")
    assert submission.stop_job(head, "mine").status == "STOPPED"


def test_a_job_that_does_not_stop_is_an_error() -> None:
    head = Head(questions=10**9)
    submission.submit_job(head, spec(), job_id="mine")
    with pytest.raises(JobError, match="job mine was told to stop and has not after 0 s"):
        submission.stop_job(head, "mine", wait_s=0)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ("FAILED", 1, "job j failed with exit code 1; finished parts are kept"),
        ("FAILED", 127, "the head does not find cogbatch on its PATH.* --command"),
        ("FAILED", None, "job j failed: the node is gone"),
        ("STOPPED", None, "job j is STOPPED; finished parts are kept: submit the same spec again"),
    ],
)
def test_an_end_that_is_not_good_says_what_to_do(status: str, code: int | None, said: str) -> None:
    head = Head()
    head.jobs["j"] = info("j", status=status, driver_exit_code=code, message="the node\nis gone")
    with pytest.raises(JobError, match=said):
        submission.require_success(submission.find_job(head, "j"))


def test_a_good_end_is_no_error() -> None:
    head = Head()
    head.jobs["j"] = info("j", status="SUCCEEDED", driver_exit_code=0)
    submission.require_success(submission.find_job(head, "j"))


@pytest.mark.parametrize("address", ["auto", "head:8265", "ray://head:10001", ""])
def test_an_address_that_is_no_dashboard_is_refused_at_once(address: str) -> None:
    with pytest.raises(JobError, match=r"expected the dashboard of the head, for example http://head:8265"):
        submission.connect(address)


def test_what_the_head_refuses_is_one_line() -> None:
    def ask(err: Exception) -> str:
        def fail() -> None:
            raise err

        with pytest.raises(JobError) as caught:
            submission.asking(fail, "jobs")
        return str(caught.value)

    assert "RAY_AUTH_MODE=token" in ask(AuthenticationError("Authentication required: no token"))
    assert "cogbatch status RUN_DIR" in ask(ConnectionError("Failed to connect"))
    assert ask(RuntimeError("Traceback:\n  File x\nValueError: no room\n")) == "jobs: ValueError: no room"
    pairs = itertools.pairwise([ask(RuntimeError("a\nb")), ask(RuntimeError(""))])
    assert list(pairs) == [("jobs: b", "jobs: RuntimeError")]


@pytest.mark.parametrize("broken", [ConnectionError(), requests.exceptions.ConnectionError("aborted")])
def test_a_connection_that_breaks_is_one_line_that_says_what_to_do(broken: OSError) -> None:
    def ask() -> None:
        raise broken

    with pytest.raises(JobError, match=r"job x: the head does not answer; .* cogbatch status RUN_DIR"):
        submission.asking(ask, "job x")
