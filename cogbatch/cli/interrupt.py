"""How a command that can be started again ends when it is told to: Ctrl-C, or SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import threading
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
    from cogbatch.batch.signals import held_back

    progress = open_progress()
    with _sigterm_as_ctrl_c():
        try:
            yield progress
        except KeyboardInterrupt as err:
            terminated = isinstance(err, _TerminatedError)
            with contextlib.suppress(KeyboardInterrupt), held_back():  # one that comes again changes nothing
                progress.close()
                typer.echo(f"{'Terminated' if terminated else 'Interrupted'}. {kept}", err=True)
            raise typer.Exit(EXIT_TERMINATED if terminated else EXIT_INTERRUPTED) from None
        finally:
            progress.close()


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, _terminate)
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> None:
    raise _TerminatedError
