"""What every format is: how it writes, what it cannot hold, and how its consumer reads it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cogbatch.eval.export.example import Example, Split
from cogbatch.eval.export.options import ExportOptions
from cogbatch.eval.export.picture import MODES


class Writer(Protocol):
    """An open export of one format."""

    def write(self, example: Example, split: Split) -> None:
        """Adds a record."""

    def close(self) -> None:
        """Completes all files."""


def holds_all(example: Example) -> str | None:
    """Refuses nothing."""
    del example
    return None


@dataclass(frozen=True)
class About:
    """What an export is: a title, and the day its first run began, YYYY-MM-DD, or nothing."""

    title: str
    day: str


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        source: who documents it. open: a writer into a new folder, given the settings and what it is.
        data_files: of a split, as a pattern with {split}; None where `datasets` cannot load them.
        features: of the records as a card has them; None where the files say so themselves.
        task: the Hub's name for what it is for. reading: how it is read, for the card.
        refuse: why it cannot hold an example, or None. modes: of images that stay as they are.
        may_be_remote: consumers read it from object stores. has_prompts: records hold the prompt.
    """

    source: str
    open: Callable[[Path, ExportOptions, About], Writer]
    data_files: str | None
    task: str
    reading: str
    features: list[dict[str, Any]] | None = None
    refuse: Callable[[Example], str | None] = holds_all
    modes: Collection[str] = MODES
    may_be_remote: bool = False
    has_prompts: bool = True
