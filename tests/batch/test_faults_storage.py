"""Laws of a job whose storage fails, on real local Ray: no row is blamed, nothing computed in vain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_backend import FAKE, MakeSpec
from job_files import ENVIRONMENT, began, check_rows

from cogbatch.batch.job import run_job
from cogbatch.errors import JobError

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SMALL_DISK = """
import json, os, subprocess, sys, fake_backend, ray
from pathlib import Path
from cogbatch.batch.job import run_job
from cogbatch.batch.spec import parse_spec
from cogbatch.errors import JobError

ray.cloudpickle.register_pickle_by_value(fake_backend)
spec = parse_spec(json.loads(Path(sys.argv[1]).read_text()))
disk = spec.output.path
os.mkdir(disk)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=320k", "none", disk], check=True)
try:
    run_job(spec, backend=fake_backend.FAKE)
    said = "nothing"
except (JobError, OSError) as err:
    said = str(err)
parts = len(os.listdir(disk + "/parts"))
subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
summary = run_job(spec, backend=fake_backend.FAKE)
result = {"said": said, "parts": parts, "rows": summary.rows, "errors": summary.errors}
print(json.dumps(result | {"done_now": summary.shards_done_now}))
"""


@pytest.mark.usefixtures("local_ray")
def test_a_part_truncated_by_hand_is_the_only_one_that_is_redone(make_spec: MakeSpec) -> None:
    spec = make_spec(["say"] * 18)
    run_job(spec, backend=FAKE)
    part = Path(spec.output.path) / "parts" / "part-0-8-4.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    assert run_job(spec, backend=FAKE).shards_done_now == 1
    check_rows(spec, 18)
    assert {name for name, times in began(spec).items() if times > 1} == {"i8", "i9", "i10", "i11"}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_parts_that_cannot_be_written_stop_the_job_blame_no_row_and_are_done_once_there_is_room(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the full disk: any machine has it."""
    spec = make_spec(["say"] * 8 + [f"fill {tmp_path / 'room'}"] * 392)
    with pytest.raises(
        JobError, match=r"parts in a row could not be written to .*parts: OSError: .*make room"
    ):
        run_job(spec, backend=FAKE)
    assert began(spec).total() <= 80, "it does not go on generating what it cannot keep"
    done = len(list((Path(spec.output.path) / "parts").glob("part-*.parquet")))
    (tmp_path / "room").touch()
    summary = run_job(spec, backend=FAKE)
    check_rows(spec, 400)
    assert summary.shards_done_now == 100 - done


def can_mount() -> bool:
    """Whether this user may mount in a namespace of its own."""
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs user namespaces")
def test_a_disk_that_is_really_full_stops_the_job_and_the_same_command_goes_on(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(["sleep 0.01"] * 400)
    job = tmp_path / "job.json"
    job.write_text(spec.model_dump_json())
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", SMALL_DISK, str(job)],
        env=ENVIRONMENT | {"RAY_TMPDIR": os.environ.get("RAY_TMPDIR", "/tmp")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert "No space left on device" in result["said"]
    assert 0 < result["parts"] < 100
    assert (result["rows"], result["errors"]) == (400, 0)
    assert result["done_now"] == 100 - result["parts"]
