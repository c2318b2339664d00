"""Laws of the stall timer; each in a process of its own, because it ends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys, time
from cogbatch.batch.stall import StallTimer
timer = StallTimer(0.6, log=open(sys.argv[1], "w"))
timer.arm()
{deed}
print("alive")
"""


def outcome(tmp_path: Path, deed: str) -> tuple[int, str, str]:
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(deed=deed), str(log)], capture_output=True, text=True
    )
    return done.returncode, done.stdout, log.read_text()


def test_silence_ends_the_process_and_leaves_its_stacks(tmp_path: Path) -> None:
    code, printed, log = outcome(tmp_path, "time.sleep(20)")
    assert (code, printed) == (1, "")
    assert "Timeout" in log


def test_progress_keeps_a_slow_process_alive(tmp_path: Path) -> None:
    deed = "for _ in range(12):\n    time.sleep(0.1)\n    timer.progress()"
    assert outcome(tmp_path, deed) == (0, "alive\n", "")


def test_nothing_to_do_is_not_a_stall(tmp_path: Path) -> None:
    deed = "timer.disarm()\ntimer.progress()\ntime.sleep(1.0)"
    assert outcome(tmp_path, deed) == (0, "alive\n", "")
