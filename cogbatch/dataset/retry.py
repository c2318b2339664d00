"""Error rows of finished parts tried again: which they are, and the new part that replaces an old one whole.

The one way in which a finished part changes; only under the run's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cogbatch.dataset.object_path import Place
from cogbatch.dataset.parts import PartFooter, read_footers, read_part, write_part
from cogbatch.dataset.rows import Row
from cogbatch.dataset.run_directory import RunDirectory
from cogbatch.dataset.shards import Shard
from cogbatch.errors import RunDirectoryError


@dataclass(frozen=True)
class RetryRound:
    """One round over the error rows of a run, with the questions that a driver asks of a run directory.

    token: marks the parts that this round replaced, so that a row which fails again is not tried for ever.
    """

    run: RunDirectory
    token: str

    @property
    def parts(self) -> Place:
        """The folder of parts, which are replaced in place."""
        return self.run.parts

    def staging(self, shard: Shard) -> Place:
        """The folder, created, for error rows that are tried alone."""
        return self.run.staging(shard)

    def missing(self, shards: Iterable[Shard]) -> tuple[Shard, ...]:
        """Those of the shards whose part this round has not replaced yet.

        Raises RunDirectoryError: a part is gone.
        """
        shards = tuple(shards)
        footers = read_footers(self.parts, (shard.part_name for shard in shards))
        pairs = list(zip(shards, footers, strict=True))
        gone = [self.parts / shard.part_name for shard, footer in pairs if footer is None]
        if gone:
            raise RunDirectoryError(
                f"{gone[0]} is gone or damaged; run the job itself, which redoes it, then retry-failed again"
            )
        return tuple(shard for shard, footer in pairs if footer and footer.retry != self.token)

    def missing_staged(self, shard: Shard, *, job_fingerprint: str) -> tuple[Shard, ...]:
        """The error rows of the shard, as shards of one row, that are not staged yet."""
        failed = set(failed_items(shard, read_part(self.parts, shard.part_name, ["error"])))
        missing = self.run.missing_staged(shard, job_fingerprint=job_fingerprint)
        return tuple(item for item in missing if item in failed)

    def commit_staged(self, shard: Shard, *, job_fingerprint: str) -> PartFooter | None:
        """Puts the staged rows into the part, then removes them; None while an error row is missing."""
        if self.missing_staged(shard, job_fingerprint=job_fingerprint):
            return None
        old, folder = read_part(self.parts, shard.part_name), self.staging(shard)
        failed = failed_offsets(old)
        items = shard.split()
        new = [read_part(folder, items[offset].part_name) for offset in failed]
        table = replace_rows(old, failed, pa.concat_tables(new)) if new else old
        footer = write_part(self.parts, shard.part_name, table, retry=self.token)
        self.run.remove_staging(shard)
        return footer


def failed_offsets(part: pa.Table) -> tuple[int, ...]:
    """Which rows of a part are errors, in order."""
    valid = part["error"].is_valid().to_numpy()
    return tuple(int(offset) for offset in np.flatnonzero(valid))


def failed_items(shard: Shard, part: pa.Table) -> tuple[Shard, ...]:
    """The error rows of the shard's part as shards of one row."""
    return tuple(shard.part_of(start=offset, num_rows=1) for offset in failed_offsets(part))


def pick(rows: Iterable[Row], offsets: Sequence[int]) -> Iterator[Row]:
    """The rows of a shard at these offsets."""
    wanted = set(offsets)
    return (row for offset, row in enumerate(rows) if offset in wanted)


def replace_rows(old: pa.Table, offsets: Sequence[int], new: pa.Table) -> pa.Table:
    """The old table with its rows at offsets replaced by those of new, in order; all others untouched."""
    pieces, start = list[pa.Table](), 0  # not by take, which knows fewer types
    for number, offset in enumerate(offsets):
        pieces += [old.slice(start, offset - start), new.slice(number, 1)]
        start = offset + 1
    return pa.concat_tables([*pieces, old.slice(start)]).combine_chunks()
