"""What came out of a job, counted from its parts: footers, and the error column of parts that have errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from cogbatch.batch.tally import Kind, Tally
from cogbatch.dataset.object_path import Place
from cogbatch.dataset.parts import PartFooter, read_part

SHOWN_KINDS = 10


@dataclass(frozen=True)
class ErrorKind:
    """Error rows of one kind, with the message of one of them."""

    stage: str
    type: str
    count: int
    message: str


@dataclass(frozen=True)
class Summary:
    """A finished job. seconds, working_s (since a worker had its model), items_per_s and tokens_per_s (of
    working_s) are those of the last run that did work.

    candidates_missing: that the ok rows fall short of num_candidates each; strategies that promise different
    texts, and selectors, deliver fewer where there are fewer.
    """

    name: str
    rows: int
    ok: int
    errors: int
    error_kinds: tuple[ErrorKind, ...]
    candidates: int
    candidates_missing: int
    tokens: int
    shards: int
    shards_done_now: int
    duplicate_ids: int
    seconds: float
    working_s: float
    items_per_s: float
    tokens_per_s: float
    parts: str
    model_fingerprint: str
    job_fingerprint: str

    def to_json(self) -> dict[str, Any]:
        """A plain dict, as in summary.json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for a person."""
        speed = f"{self.items_per_s:.2f} items/s, {self.tokens_per_s:.0f} tokens/s"
        done = (
            f"{self.shards_done_now} of {self.shards} shards done now in {self.seconds:.1f} s, "
            f"{self.seconds - self.working_s:.1f} s of it before a worker was ready: {speed}"
        )
        lines = [
            f"{self.name}: {self.rows} rows, {self.ok} ok, {self.errors} errors, "
            f"{self.candidates} candidates, {self.tokens} tokens",
            done if self.shards_done_now else "nothing was missing, nothing was redone",
        ]
        lines += [
            f"  {kind.count} x {kind.stage}/{kind.type}, for example: {kind.message}"
            for kind in self.error_kinds[:3]
        ]
        if self.rows and not self.ok:
            lines.append("warning: no row was answered; see the reasons above")
        if self.candidates_missing:
            lines.append(
                f"{self.candidates_missing} candidates fewer than asked for: not as many different texts"
            )
        if self.duplicate_ids:
            lines.append(f"ids shared with an earlier row: {self.duplicate_ids} rows")
        return [*lines, f"parts: {self.parts}"]


def count_parts(parts: Place, footers: Iterable[PartFooter]) -> Tally:
    """The counts of parts, with kinds of errors from the parts that have any."""
    tally = Tally()
    for footer in footers:
        tally.rows += footer.num_rows
        tally.candidates += footer.candidates
        tally.tokens += footer.tokens
        if footer.errors:
            column = read_part(parts, footer.name, ["error"])["error"]
            for error in column.to_pylist():
                if error is not None:
                    tally.add_error(Kind(error["stage"], error["type"]), error["message"])
    return tally


def error_kinds(tally: Tally) -> tuple[ErrorKind, ...]:
    """The commonest kinds first."""
    common = Counter(tally.kinds).most_common(SHOWN_KINDS)
    return tuple(ErrorKind(*kind, count, tally.examples.get(kind, "")) for kind, count in common)
