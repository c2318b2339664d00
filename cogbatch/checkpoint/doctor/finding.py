"""One ill of a model directory, as it is told and as it is mended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cogbatch.checkpoint.doctor.changes import Changes


@dataclass(frozen=True)
class Finding:
    """One ill.

    ill: its short name. what: what was found, and where. why: what it does to whoever loads the directory.
    advice: what a fix does, or, where mend is None, what to do. files: the files it is about.
    """

    ill: str
    what: str
    why: str
    advice: str
    files: tuple[str, ...] = ()
    mend: Callable[[Changes], None] | None = None
