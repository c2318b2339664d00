"""How a command that can be started again ends when it is told to: Ctrl-C, or SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from cogbatch.batch.progress import Progress

EXIT_INTERRUPTED, EXIT_TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


@contextmanager
def resumable(kept: str) -> Iterator[Progress]:
    """Where the command says how it goes; closed afterwards.

    Args:
        kept: what is said after a signal: what is left and how to go on. The exit code is 130 or 143.
    """
    from cogbatch.batch.progress import open_progress

    progress = open_progress()
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield progress
    except KeyboardInterrupt as err:
        progress.close()
        terminated = isinstance(err, _TerminatedError)
        typer.echo(f"{'Terminated' if terminated else 'Interrupted'}. {kept}", err=True)
        raise typer.Exit(EXIT_TERMINATED if terminated else EXIT_INTERRUPTED) from None
    finally:
        progress.close()
        signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> None:
    raise _TerminatedError
