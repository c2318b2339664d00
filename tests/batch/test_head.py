"""Laws of jobs on a real head: what is submitted runs there, is followed to its end, and is found again."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
import yaml
from cutting_proxy import cutting_proxy
from head import ROOT, Head, running_head

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head() as running:
        yield running


def demo(folder: Path, **sections: dict[str, object]) -> Path:
    """The demo's job, small, in a file, with a run directory in that folder."""
    job = yaml.safe_load((ROOT / "jobs/demo/job.yaml").read_text())
    job["output"] = {"path": str(folder / "run"), "shard_size": 2}
    for name, section in sections.items():
        job[name] = {**job[name], **section}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def last_json(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """The object that a command ended with."""
    assert done.returncode == 0, done.stderr
    value: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return value


@pytest.mark.slow
def test_a_job_is_submitted_followed_listed_and_asked_about(head: Head, tmp_path: Path) -> None:
    """Instead of cogbatch the head runs cat, which prints the spec that it got."""
    job, at = str(demo(tmp_path)), ("--address", head.address)
    done = head.cogbatch("submit", job, *at, "--command", "cat job.yaml #", "--id", "first", "--json")
    made = last_json(done)
    assert (made["job_id"], made["status"], made["exit_code"]) == ("first", "SUCCEEDED", 0)
    assert f"checkpoint: {ROOT}/jobs/demo/checkpoint" in done.stderr, "followed on stderr, path absolute"
    assert "Uploading" not in done.stderr
    followed = head.cogbatch("logs", "first", "-f", *at)
    assert followed.returncode == 0
    assert followed.stdout in done.stderr
    assert f"checkpoint: {ROOT}/jobs/demo/checkpoint" in followed.stdout
    jobs = last_json(head.cogbatch("list", *at, "--json"))["jobs"]
    assert isinstance(jobs, list)
    assert jobs[0]["job_id"] == "first"
    asked = last_json(head.cogbatch("status", "first", *at, "--json"))
    assert (asked["status"], asked["run_path"], asked["run"]) == ("SUCCEEDED", str(tmp_path / "run"), None)


@pytest.mark.slow
def test_a_job_that_fails_exits_1_with_one_line_that_says_how(head: Head, tmp_path: Path) -> None:
    job, at = str(demo(tmp_path)), ("--address", head.address)
    failed = head.cogbatch("submit", job, *at, "--command", "exit 3 #", "--id", "second")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "Error: job second failed with exit code 3; finished parts are kept" in failed.stderr
    again = head.cogbatch("submit", job, *at, "--id", "second")
    assert (again.returncode, again.stdout) == (1, "")
    assert "Error: job second: the id was used before; choose another --id" in again.stderr
    missing = head.cogbatch("submit", job, *at, "--command", "/nowhere/cogbatch")
    assert missing.returncode == 1
    assert "the head does not find cogbatch on its PATH" in missing.stderr
    printed = head.cogbatch("logs", "second", *at)
    assert (printed.returncode, "INFO job_manager" in printed.stdout) == (0, True)
    unknown = head.cogbatch("status", "third", *at)
    assert (
        unknown.stderr == "Error: job third: the head knows no such job; cogbatch list shows those it knows\n"
    )


def test_without_the_token_the_head_answers_nobody(head: Head) -> None:
    hidden = {key: value for key, value in head.environment.items() if "AUTH" not in key}
    for more in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "of-another-cluster"}):
        stranger = Head(head.address, head.metrics, hidden | more)
        done = stranger.cogbatch("list", "--address", head.address)
        assert done.returncode == 1
        assert "the head wants its token: export RAY_AUTH_MODE=token" in done.stderr
    named = {key: value for key, value in head.environment.items() if key != "RAY_AUTH_MODE"}
    done = Head(head.address, head.metrics, named).cogbatch("list", "--address", head.address)
    assert done.returncode == 0, "a token that the environment names is used without being told to"


@pytest.mark.slow
def test_a_stream_that_is_cut_twice_shows_every_line_once(head: Head, tmp_path: Path) -> None:
    """The job prints 60 lines, then waits until both cuts were made, and prints the last."""
    at, enough = ("--address", head.address), tmp_path / "enough"
    talk = f"seq -f 'line %g' 0 59; until [ -e {enough} ]; do sleep 0.1; done; echo line 60 #"
    submit = ("submit", str(demo(tmp_path)), *at, "--id", "talker", "--no-wait", "--command", talk)
    assert head.cogbatch(*submit).returncode == 0
    with cutting_proxy(head.address, cuts=2, after_bytes=700, then=enough.touch) as proxy:
        followed = head.cogbatch("logs", "talker", "-f", "--address", proxy.address)
    assert followed.returncode == 0, followed.stderr
    printed = [line for line in followed.stdout.splitlines() if line.startswith("line")]
    assert printed == [f"line {number}" for number in range(61)]
    assert followed.stdout == head.cogbatch("logs", "talker", *at).stdout


@pytest.mark.slow
def test_a_stopped_job_keeps_its_parts_and_the_next_one_does_only_what_is_missing(
    head: Head, tmp_path: Path
) -> None:
    """The demo itself. What its workers count is there for Prometheus, and status needs no head."""
    run, at = tmp_path / "run", ("--address", head.address)
    job = str(
        demo(tmp_path, generation={"max_new_tokens": 48, "ignore_eos": True}, cluster={"max_workers": 1})
    )
    made = last_json(head.cogbatch("submit", job, *at, "--no-wait", "--json"))
    job_id = str(made["job_id"])
    assert made["status"] in ("PENDING", "RUNNING")
    _wait_for_parts(run, 3)
    running = last_json(head.cogbatch("status", job_id, *at, "--json"))["run"]
    assert isinstance(running, dict)
    assert (running["state"], running["rows_total"]) == ("running", 128)
    counted = _counted(head)
    stopped = last_json(head.cogbatch("stop", job_id, *at, "--json"))
    assert stopped["status"] == "STOPPED"
    parts = {path.name: path.stat().st_mtime_ns for path in (run / "parts").glob("part-*.parquet")}
    assert 3 <= len(parts) < 64
    status = last_json(head.cogbatch("status", str(run), "--json"))
    assert (status["state"], status["rows"]) == ("stopped", 2 * len(parts))
    asked = head.cogbatch("logs", job_id, "-f", *at)
    assert (asked.returncode, "is STOPPED; finished parts are kept" in asked.stderr) == (1, True)

    done = head.cogbatch("submit", job, *at, "--json")
    assert last_json(done)["status"] == "SUCCEEDED"
    assert f"{64 - len(parts)} of 64 shards to do" in done.stderr
    assert parts.items() <= {p.name: p.stat().st_mtime_ns for p in (run / "parts").iterdir()}.items()
    rows = pq.read_table(run / "parts", partitioning=None).to_pylist()
    assert len({row["id"] for row in rows}) == len(rows) == 128
    assert last_json(head.cogbatch("status", str(run), "--json"))["state"] == "finished"

    assert counted["cogbatch_items_total"] >= 3
    assert counted["cogbatch_candidates_total"] == 8 * counted["cogbatch_items_total"]
    assert counted["cogbatch_tokens_total"] >= 48 * counted["cogbatch_candidates_total"]
    assert {"load", "read", "generate", "write"} <= {stage for stage in counted if "_" not in stage}


def _wait_for_parts(run: Path, count: int, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while len(list((run / "parts").glob("part-*.parquet"))) < count:
        assert time.monotonic() < deadline, "no part is written"
        time.sleep(0.2)


def _counted(head: Head, timeout_s: float = 60.0) -> dict[str, float]:
    """What the exporter of the head's node says: sums by metric, and of cogbatch_seconds by stage."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        text = httpx.get(head.metrics, trust_env=False).text
        sums: dict[str, float] = {}
        for name, tags, value in re.findall(r"^ray_(cogbatch_\w+)\{(.*)\} (\S+)$", text, flags=re.MULTILINE):
            assert 'run="run"' in tags
            stage = re.search(r'stage="(\w+)"', tags)
            key = stage[1] if stage and name == "cogbatch_seconds_total" else name
            sums[key] = sums.get(key, 0.0) + float(value)
        if {"cogbatch_items_total", "write"} <= sums.keys():
            return sums
        time.sleep(0.5)
    raise AssertionError("no counter was exported")
