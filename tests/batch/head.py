"""A real head of a cluster for tests: `ray start --head` in a process of its own, with a token of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
RAY_PORTS = range(10_000, 20_000)  # where Ray puts workers by default
# Ends when its stdin does, so that no head outlives the tests, however they end.
START = 'ray start --head --block "$@" <&- & head=$!; read _; kill $head; wait $head'


@dataclass(frozen=True)
class Head:
    """Where it is, and the environment for commands that talk to it."""

    address: str
    metrics: str
    environment: dict[str, str]

    def cogbatch(self, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """A command of ours in a process of its own, far from the Ray of other tests."""
        command = [sys.executable, "-c", "from cogbatch.cli import main; main()", *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=folder, capture_output=True, text=True, check=False
        )


@contextmanager
def running_head() -> Iterator[Head]:
    """A head with room for two workers; gone when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="ray-head-", dir="/tmp"))  # paths of sockets must be short
    bin_dir = folder / "bin"
    bin_dir.mkdir()
    script = bin_dir / "cogbatch"  # what the entrypoint finds, whether or not this checkout is installed
    script.write_text(f"#!{sys.executable}\nfrom cogbatch.cli import main\nmain()\n")
    script.chmod(0o755)
    ports = _free_ports(5)
    environment = os.environ | {
        "PATH": os.pathsep.join([str(bin_dir), str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_metrics_report_interval_ms": "500",
        "RAY_health_check_failure_threshold": "100",  # a busy machine is no dead node
        "COGBATCH_CACHE": str(folder / "cache"),
    }
    environment.pop("RAY_ADDRESS", None)
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "metrics-export-port")
    options = [f"--{name}={port}" for name, port in zip(names, ports, strict=False)]
    options += ["--dashboard-host=127.0.0.1", "--include-dashboard=true", "--min-worker-port=0"]
    options += [f"--ray-client-server-port={ports[4]}", "--max-worker-port=0", "--num-cpus=4", "--num-gpus=0"]
    options += [f"--object-store-memory={100 * 2**20}"]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", START, "bash", *options],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    head = Head(f"http://127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[3]}/metrics", environment)
    try:
        _wait_for(head, process, folder / "head.log")
        yield head
        assert process.poll() is None, (folder / "head.log").read_text()[-2_000:]
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(head: Head, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 180.0) -> None:
    token = {"Authorization": f"Bearer {head.environment['RAY_AUTH_TOKEN']}"}
    deadline = time.monotonic() + timeout_s
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with suppress(httpx.TransportError):
            if httpx.get(f"{head.address}/api/version", headers=token, trust_env=False).is_success:
                return
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody uses at this moment, different ones."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            if port not in RAY_PORTS and port not in found:
                found.append(port)
    return found
