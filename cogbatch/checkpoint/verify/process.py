"""Programs in processes of their own: started with a request in a file, waited for together."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cogbatch

# How our programs begin the line that says what is wrong with what they were given.
_SAID = "Error: "
_PACKAGE_ROOT = Path(cogbatch.__file__).parents[1]


def run_programs(
    commands: Sequence[Sequence[str]],
    environments: Sequence[Mapping[str, str]],
    *,
    logs: Path,
    grace_s: float = 3.0,
) -> str:
    """Runs them at the same time. One that fails ends the others.

    Args:
        environments: of each program, in addition to this process's.
        logs: a folder for what they write to stderr; also their current directory.
        grace_s: how long after one failed the others may still say why they do.

    Returns:
        "" when all ended well; else what a failing one said last.
    """
    files = [logs / f"program-{i}.txt" for i in range(len(commands))]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command, environment, file in zip(commands, environments, files, strict=True):
            with file.open("wb") as stream:
                running.append(
                    subprocess.Popen(
                        command,
                        env={**os.environ, **environment},
                        cwd=logs,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=stream,
                    )
                )
        deadline = math.inf
        while None in (codes := [process.poll() for process in running]) and time.monotonic() < deadline:
            if any(codes):
                deadline = min(deadline, time.monotonic() + grace_s)
            time.sleep(0.05)
        reasons = [_reason(code, file) for code, file in zip(codes, files, strict=True) if code]
    finally:
        for process in running:
            process.kill()
            process.wait()
    # What a program says of itself, rather than that it lost its neighbour.
    told = next((reason for reason in reasons if reason.startswith(_SAID)), next(iter(reasons), ""))
    return told.removeprefix(_SAID)


def write_request(file: Path, request: object) -> Path:
    file.write_text(json.dumps(request), encoding="utf-8")
    return file


def alone(program: Path, request: Path) -> list[str]:
    """The command of a file that finds nothing of ours, nor of the user's environment."""
    return [sys.executable, "-I", str(program), str(request)]


def with_cogbatch(module: str, request: Path) -> tuple[list[str], dict[str, str]]:
    """The command of a module of this very cogbatch, and the environment that lets it be found."""
    return [sys.executable, "-P", "-m", module, str(request)], {"PYTHONPATH": str(_PACKAGE_ROOT)}


def _reason(code: int, log: Path) -> str:
    if code == -signal.SIGKILL:
        return "killed by the system; is there enough memory?"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(_SAID)]
    return ((said or lines or [f"ended with code {code}"])[-1])[:500]
