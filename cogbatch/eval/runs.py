"""A run directory as what it holds: the job, and its items one by one. Reads only; judges nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cogbatch.dataset.object_path import Place
from cogbatch.dataset.parts import PartFooter
from cogbatch.dataset.run_directory import RunDirectory, no_run
from cogbatch.dataset.shards import Shard, stored_shards
from cogbatch.errors import RunDirectoryError
from cogbatch.types import Candidate, RequestError

BATCH_ROWS = 1024  # in memory at a time, as Python objects
COLUMNS = (
    "id",
    "image",
    "prompt",
    "error",
    "input_file",
    "input_row",
    "seconds",
    "model_fingerprint",
    "job_fingerprint",
)
# Token ids are most of a part and no metric needs them.
CANDIDATE_COLUMNS = (
    "index",
    "text",
    "cumulative_logprob",
    "num_tokens",
    "finish_reason",
    "weight",
    "score",
    "lane",
    "flags",
    "source",
)
JOB_KEYS = ("job_fingerprint", "model_fingerprint", "dataset_fingerprint", "spec", "files", "shards")


@dataclass(frozen=True)
class Item:
    """One row of a part.

    candidates: without their token ids. carried: the columns that were asked for. seconds: its share of the
    time that its engine worked, errors too.
    """

    id: str
    image: str | None
    prompt: str | None
    candidates: tuple[Candidate, ...]
    error: RequestError | None
    input_file: str
    input_row: int
    seconds: float
    model_fingerprint: str
    job_fingerprint: str
    carried: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[str, int]:
        """What names the input row, also where ids repeat."""
        return self.input_file, self.input_row


@dataclass(frozen=True)
class Run:
    """An opened run directory, finished or not.

    Args:
        path: absolute. job: job.json. shards: the grid of the job.
        parts: footers of the parts there are, in input order.
    """

    path: Place
    job: Mapping[str, Any]
    shards: tuple[Shard, ...]
    parts: tuple[PartFooter, ...]

    @property
    def public_name(self) -> str:
        """Its address, or the last part of its path: the rest says how this machine is arranged."""
        return self.path.name if isinstance(self.path, Path) else str(self.path)

    @property
    def num_rows(self) -> int:
        """Rows of the job, done or not."""
        return sum(shard.num_rows for shard in self.shards)

    @property
    def num_finished(self) -> int:
        """Rows in the parts."""
        return sum(part.num_rows for part in self.parts)

    @property
    def carried(self) -> tuple[str, ...]:
        """Columns of the input that the job carried to its parts."""
        return tuple(self.job["spec"]["input"].get("columns", ()))

    def items(self, *, carried: Sequence[str] = ()) -> Iterator[Item]:
        """All rows of the parts, in input order, a few at a time.

        Args:
            carried: columns of self.carried that the items have.

        Raises RunDirectoryError: a part is damaged, or gone since the run was opened.
        """
        for part in self.parts:
            with self._reading(part) as path, path.open("rb") as opened, pq.ParquetFile(opened) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=_columns(carried)):
                    yield from (_item(row, carried) for row in batch.to_pylist())

    def some(self, positions: Iterable[int]) -> Iterator[Item]:
        """The rows at these places among all rows of the parts, in input order; reads no other part.

        Raises RunDirectoryError: a part is damaged, or gone since the run was opened.
        """
        wanted, start = deque(sorted(set(positions))), 0
        for part in self.parts:
            rows = []
            while wanted and wanted[0] < start + part.num_rows:
                rows.append(wanted.popleft() - start)
            if rows:
                table = self._read(part, _columns()).take(rows)
                yield from (_item(row, ()) for row in table.to_pylist())
            start += part.num_rows

    def column(self, part: PartFooter, name: str) -> pa.ChunkedArray:
        """One column of a part, without reading the others. Raises RunDirectoryError as items does."""
        return self._read(part, [name])[name]

    def _read(self, part: PartFooter, columns: list[str]) -> pa.Table:
        with self._reading(part) as path, path.open("rb") as opened, pq.ParquetFile(opened) as file:
            return file.read(columns, use_threads=False)

    @contextmanager
    def _reading(self, part: PartFooter) -> Iterator[Place]:
        path = self.path / "parts" / part.name
        try:
            yield path
        except (pa.ArrowException, KeyError, OSError) as err:
            raise RunDirectoryError(
                f"{path} cannot be read ({' '.join(str(err).split())}); delete it and run the job again"
            ) from err


def open_run(path: str | Place) -> Run:
    """The run in a directory. Raises RunDirectoryError: not a run directory, or no part in it yet."""
    directory = RunDirectory(path)
    job = directory.read_job()
    if job is None:
        raise no_run(directory.path)
    absent = [key for key in JOB_KEYS if key not in job]
    if absent:
        raise RunDirectoryError(
            f"{directory.path / 'job.json'} lacks {', '.join(absent)}; was it written by another version?"
        )
    shards = stored_shards(job, where=directory.path / "job.json")
    parts = directory.footers()
    if not parts:
        raise RunDirectoryError(f"{directory.path} has no finished part; run its job first")
    return Run(directory.path, job, shards, parts)


def _columns(carried: Sequence[str] = ()) -> list[str]:
    return [*COLUMNS, *(f"candidates.list.element.{name}" for name in CANDIDATE_COLUMNS), *carried]


def _item(row: Mapping[str, Any], carried: Sequence[str]) -> Item:
    return Item(
        id=row["id"],
        image=row["image"],
        prompt=row["prompt"],
        candidates=tuple(map(_candidate, row["candidates"] or ())),
        error=row["error"] and RequestError(**row["error"]),
        input_file=row["input_file"],
        input_row=row["input_row"],
        seconds=row["seconds"] or 0.0,
        model_fingerprint=row["model_fingerprint"],
        job_fingerprint=row["job_fingerprint"],
        carried={name: row[name] for name in carried},
    )


def _candidate(values: Mapping[str, Any]) -> Candidate:
    return Candidate(
        index=values["index"],
        text=values["text"],
        token_ids=(),
        cumulative_logprob=values["cumulative_logprob"],
        num_tokens=values["num_tokens"],
        finish_reason=values["finish_reason"],
        weight=values["weight"],
        score=values["score"],
        lane=values["lane"],
        flags=tuple(values["flags"] or ()),
        source=values["source"],
    )
