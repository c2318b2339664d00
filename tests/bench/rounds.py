"""Processes that run one case each, in rounds: every process once, then every process again.

So a machine that gets slower gets slower for all, and peak memory is one case's. The processes are forked
from one that has imported everything and run nothing.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from typing import Any, Protocol

from tests.bench.cases import Case, Found, serve
from tests.bench.setting import Setting

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.bench.cases"])


def run_rounds(cases: Sequence[Case], setting: Setting, *, rounds: int, threads: int) -> dict[Case, Found]:
    """What every case came to: medians over the rounds, and the largest of what is a peak."""
    with ExitStack() as stack:
        connections = {case: _started(case, setting, threads, stack) for case in cases}
        found: dict[Case, list[Found]] = {case: [] for case in cases}
        for round_index in range(rounds):
            for case, connection in connections.items():
                connection.send(round_index)
                found[case].append(received(connection))
                print(f"round {round_index + 1} of {rounds}: {case.name}", file=sys.stderr, flush=True)
    return {case: summary(runs) for case, runs in found.items()}


def _started(case: Case, setting: Setting, threads: int, stack: ExitStack) -> Connection:
    """A process that is warm, and ends with the stack."""
    here, there = _FORKS.Pipe()
    process = _FORKS.Process(target=serve, args=(there, setting, case, threads), daemon=True)
    process.start()
    there.close()
    stack.callback(process.join)
    stack.callback(here.close)
    stack.callback(_told_to_end, here)
    received(here)
    return here


def _told_to_end(connection: Connection) -> None:
    with suppress(OSError):  # it has ended already
        connection.send(None)


class Sender(Protocol):
    """The side of a connection that answers come from."""

    def recv(self) -> Any: ...


def received(connection: Sender) -> Any:
    """An answer. Raises SystemExit: there is none to come, or it is what went wrong."""
    try:
        answer = connection.recv()
    except EOFError:
        raise SystemExit("a case's process ended without a word: did memory run out?") from None
    if isinstance(answer, str):
        raise SystemExit(answer)
    return answer


def summary(runs: Sequence[Found]) -> Found:
    """Value by value over the rounds, also inside of dicts."""
    first = runs[0]
    return {
        name: summary([run[name] for run in runs])
        if isinstance(value, dict)
        else (max if name.startswith("peak") or name.endswith("_mb") else statistics.median)(
            run[name] for run in runs
        )
        for name, value in first.items()
    }
