"""How a command that can be started again ends when it is told to: Ctrl-C, SIGTERM, SIGHUP."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from cogbatch.batch.progress import Progress


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end a command as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def resumable(kept: str) -> Iterator[Progress]:
    """Where the command says how it goes; closed afterwards.

    Args:
        kept: what is said after a signal: what is left and how to go on. The exit code is 128 and the number
            of the signal: 130, 143 or 129.
    """
    from cogbatch.batch.progress import open_progress
    from cogbatch.batch.signals import handled_by, held_back

    progress = open_progress()
    with handled_by(_terminate, signal.SIGTERM, signal.SIGHUP):
        try:
            yield progress
        except KeyboardInterrupt as err:
            number = err.number if isinstance(err, _TerminatedError) else signal.SIGINT
            # Another signal, or a terminal that is gone, changes nothing.
            with contextlib.suppress(KeyboardInterrupt, OSError), held_back():
                progress.close()
                typer.echo(f"{'Interrupted' if number == signal.SIGINT else 'Terminated'}. {kept}", err=True)
            raise typer.Exit(128 + number) from None
        finally:
            with contextlib.suppress(OSError):
                progress.close()


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise _TerminatedError(number)
