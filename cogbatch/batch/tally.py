"""Counts of rows and of their errors, and when there are too many of the latter. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from cogbatch.errors import JobError

MAX_KINDS = 1_000  # remembered: a hostile dataset must not fill the driver's memory
JUDGED_ROWS, JUDGED_ERRORS = 1_000, 100  # an error rate says nothing before


class Kind(NamedTuple):
    """What errors are counted by."""

    stage: str
    type: str


@dataclass
class Tally:
    """Counts of finished rows; tokens are those of their candidates.

    kinds: error rows by kind; examples: one message for each kind.
    """

    rows: int = 0
    errors: int = 0
    candidates: int = 0
    tokens: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    examples: dict[Kind, str] = field(default_factory=dict)

    def add_error(self, kind: Kind, message: str) -> None:
        """Counts one error row (its row is counted by the caller)."""
        self.errors += 1
        if kind in self.kinds or len(self.kinds) < MAX_KINDS:
            self.kinds[kind] += 1
            self.examples.setdefault(kind, message)

    def add(self, other: Tally) -> None:
        """Adds the counts of other to this one."""
        self.rows += other.rows
        self.errors += other.errors
        self.candidates += other.candidates
        self.tokens += other.tokens
        self.kinds.update(other.kinds)
        for kind, message in other.examples.items():
            self.examples.setdefault(kind, message)

    def commonest(self, count: int = 3) -> list[str]:
        """The commonest errors, one phrase each: count, stage/type, one message."""
        return [
            f"{number} x {kind.stage}/{kind.type}: {self.examples.get(kind, '')}"
            for kind, number in self.kinds.most_common(count)
        ]


def over_rate(tally: Tally, max_error_rate: float) -> bool:
    """Whether a job has too many errors, once there are rows or errors enough to judge."""
    judged = tally.rows >= JUDGED_ROWS or tally.errors >= JUDGED_ERRORS
    return judged and tally.errors > max_error_rate * tally.rows


def too_many_errors(tally: Tally, max_error_rate: float, *, finished: bool) -> JobError:
    """What to say then. finished: every row was tried, nothing is left to run."""
    how = "finished with too many errors" if finished else "stopped"
    then = "" if finished else ", then run the same command again"
    return JobError(
        f"{how}: {tally.errors} of {tally.rows} rows are errors, more than errors.max_error_rate "
        f"{max_error_rate:g}; commonest: {'; '.join(tally.commonest())}. "
        f"Finished parts are kept; fix the input or raise errors.max_error_rate{then}."
    )
