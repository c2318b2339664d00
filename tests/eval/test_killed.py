"""What reads runs may be killed: it leaves what was there before, and nothing half done in its place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import MakeRun

ROOT = Path(__file__).parents[2]
CHECKER = """
import os, signal
def check(text, row):
    if text == "last" and "SPARED" not in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return True
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", [["export", "--format", "llava", "--overwrite"], ["report"]], ids=str)
def test_a_killed_export_or_report_leaves_the_old_one_whole(make_run: MakeRun, command: list[str]) -> None:
    """By a checker that kills its process at the last row, when most is written."""
    run = make_run([["a"], ["b"], ["c"], ["last"]])
    (run.parent / "killer.py").write_text(CHECKER)
    name, *options = command
    out = run.parent / "out" if name == "export" else run / "report.html"
    paths = [str(run), str(out)] if name == "export" else [str(run)]

    def start(*more: str, **env: str) -> int:
        program = [
            sys.executable,
            "-c",
            "from cogbatch.cli import main; main()",
            name,
            *paths,
            *options,
            *more,
        ]
        path = os.pathsep.join([str(ROOT), str(run.parent)])
        return subprocess.run(program, env=os.environ | {"PYTHONPATH": path} | env, check=False).returncode

    judged = ("--checker", "killer:check")
    assert start(*judged) == -signal.SIGKILL
    assert not out.exists(), "nothing, rather than a half"
    assert start() == 0
    before = content(out)
    assert start(*judged) == -signal.SIGKILL
    assert content(out) == before
    left = [path.name for path in out.parent.iterdir() if path.name.startswith(f".{out.name}.")]
    assert all(path.endswith(".tmp") for path in left)
    assert len(left) == (2 if name == "export" else 0)
    assert start(*judged, SPARED="yes") == 0
    assert content(out) != before


def content(place: Path) -> dict[str, bytes]:
    """Every file of a folder, or the one file."""
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files}
