"""One of the jobs that a driver works on: what is missing, how many rows it has, and why it was given up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from cogbatch.batch.backend import JobPlan
from cogbatch.batch.tally import Kind, Tally, over_rate, too_many_errors
from cogbatch.dataset.object_path import Place
from cogbatch.dataset.parts import write_part
from cogbatch.dataset.rows import Row, make_id
from cogbatch.dataset.run_lock import Guard
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.dataset.shards import Shard
from cogbatch.errors import CogbatchError, RunDirectoryError
from cogbatch.types import RequestError, RequestOutput


class Work(Protocol):
    """What a driver asks of the disk."""

    @property
    def parts(self) -> Place:
        """Where parts of whole shards go."""

    def missing(self, shards: Iterable[Shard]) -> tuple[Shard, ...]:
        """Those that are still to do."""

    def staging(self, shard: Shard) -> Place:
        """Where the items of a split shard go."""

    def missing_staged(self, shard: Shard, *, job_fingerprint: str) -> tuple[Shard, ...]:
        """The items of a split shard that are still to do."""

    def commit_staged(self, shard: Shard, *, job_fingerprint: str) -> object:
        """Makes the part of a split shard once all items are there."""


@dataclass
class Ongoing:
    """A job while a driver works on it.

    Args:
        name: for messages. work: what is missing and how it is committed: the run directory itself, or a
            round over its error rows.
        left: shards that may be missing. before: counts of the parts that earlier runs left.
        rows_total: rows of the job. guard: raises RunDirectoryError when this driver may not go on.
        failure: why it was given up while others may go on.
    """

    name: str
    plan: JobPlan
    work: Work
    left: tuple[Shard, ...]
    before: Tally
    rows_total: int
    max_error_rate: float
    guard: Guard = lambda: None
    failure: CogbatchError | None = None
    _blamed: Tally = field(default_factory=Tally)

    def missing(self) -> tuple[Shard, ...]:
        """The shards without a part, as the disk says; none once the job was given up."""
        self.left = () if self.failure else self.work.missing(self.left)
        return self.left

    def counts(self, seen: Tally | None) -> Tally:
        """Rows of all runs: parts from before, what workers report (seen), and items blamed here."""
        counts = Tally()
        for tally in (self.before, seen or Tally(), self._blamed):
            counts.add(tally)
        return counts

    def find_failure(self, seen: Tally | None) -> None:
        """Gives the job up when the lock is lost, or when it has too many errors and rows left to do."""
        try:
            self.guard()
        except RunDirectoryError as err:
            self.failure = err
            return
        counts = self.counts(seen)
        if counts.rows < self.rows_total and over_rate(counts, self.max_error_rate):
            self.failure = too_many_errors(counts, self.max_error_rate, finished=False)

    def blame(self, item: Shard, *, folder: Place, model_fingerprint: str, message: str) -> None:
        """Stages, in a folder, the error row of an item that failed alone in its worker."""
        row = self._read_one(item)
        error = RequestError(stage="worker", type="WorkerError", message=message)
        values = record(
            row,
            RequestOutput(id=row.id, error=error),
            model_fingerprint=model_fingerprint,
            job_fingerprint=self.plan.fingerprint,
        )
        write_part(folder, item.part_name, rows_to_table([values], carried=self.plan.dataset.carried))
        self._blamed.rows += 1
        self._blamed.add_error(Kind(error.stage, error.type), message)

    def _read_one(self, item: Shard) -> Row:
        try:
            return next(iter(self.plan.dataset.read(item)))
        except Exception:  # reading may be what fails; the identity is known all the same
            file = self.plan.dataset.files[item.file_index].path
            return Row(file, item.first_row, make_id((), input_file=file, input_row=item.first_row))
