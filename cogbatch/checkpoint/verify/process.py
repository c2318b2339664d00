"""Programs in processes of their own: started with a request in a file, waited for together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cogbatch

# How long after one program failed the others may still say why they do.
_GRACE_S = 1.0
_SAID = "Error: "
_PACKAGE_ROOT = Path(cogbatch.__file__).parents[1]


def run_programs(
    commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]], *, logs: Path
) -> str:
    """Runs them at the same time. One that fails ends the others.

    Returns:
        "" when all ended well; else the last line that a failing one wrote.
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
                        stdout=stream,
                        stderr=subprocess.STDOUT,
                    )
                )
        while any(process.poll() is None for process in running):
            if any(process.returncode for process in running):
                time.sleep(_GRACE_S)
                break
            time.sleep(0.05)
        reasons = [
            _reason(process.returncode, file)
            for process, file in zip(running, files, strict=True)
            if process.poll()
        ]
        # What a program says of itself, rather than that it lost its neighbour.
        told = next((reason for reason in reasons if reason.startswith(_SAID)), next(iter(reasons), ""))
        return told.removeprefix(_SAID)
    finally:
        for process in running:
            process.kill()
            process.wait()


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
    if code == -9:
        return "killed by the system; is there enough memory?"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else f"ended with code {code}")[:500]
