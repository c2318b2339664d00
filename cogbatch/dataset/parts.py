"""Parts: the Parquet files of finished shards, the only kind of finished result. A footer has its counts."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cogbatch.dataset.atomic import write_atomically
from cogbatch.dataset.object_path import Place, names_in, place_of, refresh
from cogbatch.errors import RunDirectoryError
from cogbatch.redact import one_line

PART_NAME = re.compile(r"part-(\d+)-(\d+)-(\d+)\.parquet")  # file index, first row, rows
FOOTER_THREADS = 16
KEY_PREFIX = "cogbatch."  # of our keys in the footer's key-value metadata


@dataclass(frozen=True)
class PartFooter:
    """What the footer of a part says: whose it is, and its counts, so that a summary reads no rows.

    retry: the round of retry-failed that replaced the part; empty for one that was never replaced.
    written_s: when, in seconds since the epoch by the clock of its worker; copying the file does not change
    it. None in parts of versions that did not say.
    """

    name: str
    num_rows: int
    errors: int
    candidates: int
    tokens: int
    job_fingerprint: str
    model_fingerprint: str
    retry: str = ""
    written_s: float | None = None


def write_part(
    directory: str | Place, name: str, table: pa.Table, *, retry: str = "", now_s: float | None = None
) -> PartFooter:
    """Writes the table (of schema.part_schema) as the part `name`, whole or not at all; returns its footer.

    Local: temporary name in the same folder, fsync, rename. Object store: one PUT. Replaces an earlier part.

    Args:
        now_s: seconds since the epoch; None is now.

    Raises ValueError: not a part's name, another number of rows than the name says, or mixed fingerprints.
    """
    match = PART_NAME.fullmatch(name)
    if match is None or int(match[3]) != table.num_rows:
        raise ValueError(
            f"{name!r} cannot hold {table.num_rows} rows; expected part-<file>-<row>-<rows>.parquet"
        )
    footer = _footer_of(name, table, retry=retry, written_s=time.time() if now_s is None else now_s)
    marks = {
        KEY_PREFIX + key: str(value) for key, value in vars(footer).items() if key not in ("name", "num_rows")
    }
    table = table.replace_schema_metadata(marks)
    write_atomically(place_of(directory) / name, lambda file: pq.write_table(table, file, compression="zstd"))
    return footer


def read_part(directory: str | Place, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a part. columns: only those. Raises OSError: absent; RunDirectoryError: damaged."""
    path = place_of(directory) / name
    try:
        if columns is None:
            return pq.read_table(pa.BufferReader(path.read_bytes()))
        with path.open("rb") as file:
            return pq.read_table(file, columns=list(columns))
    except (pa.ArrowException, OSError) as err:
        if isinstance(err, OSError) and err.errno is not None:  # of the file system, not of Arrow
            raise
        raise RunDirectoryError(
            f"{path} is damaged ({one_line(err)[:200]}); delete it and run the job again, which redoes it"
        ) from err


def list_parts(run_dir: str | Place) -> tuple[str, ...]:
    """Names of the parts of a run directory, in input order; temporary and other files are not parts."""
    return part_names(place_of(run_dir) / "parts")


def part_names(folder: Place) -> tuple[str, ...]:
    """Names of the parts in one folder, in input order; none when there is no such folder."""
    matches = [match for match in map(PART_NAME.fullmatch, names_in(folder)) if match]
    return tuple(match[0] for match in sorted(matches, key=lambda match: tuple(map(int, match.groups()))))


def read_footer(path: str | Place) -> PartFooter | None:
    """The footer of a part; None where there is no such file, it is truncated, or nothing of ours."""
    return _read_footer(place_of(path))


def read_footers(directory: str | Place, names: Iterable[str]) -> tuple[PartFooter | None, ...]:
    """read_footer of each name in the folder of parts, in order, read in parallel."""
    folder, names = place_of(directory), tuple(names)
    if names:
        refresh(folder)

    def read_some(start: int) -> list[PartFooter | None]:
        return [_read_footer(folder / name) for name in names[start::FOOTER_THREADS]]

    footers: list[PartFooter | None] = [None] * len(names)
    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        for start, some in enumerate(pool.map(read_some, range(FOOTER_THREADS))):
            footers[start::FOOTER_THREADS] = some
    return tuple(footers)


def is_complete(path: str | Place, expected_rows: int, *, job_fingerprint: str | None = None) -> bool:
    """True when the file is a whole part of that many rows (and of that job, when one is named)."""
    footer = read_footer(path)
    if footer is None or footer.num_rows != expected_rows:
        return False
    return job_fingerprint is None or footer.job_fingerprint == job_fingerprint


def _read_footer(path: Place) -> PartFooter | None:
    try:
        if isinstance(path, Path):  # no Python file: threads would wait for each other
            metadata = pq.read_metadata(path)
        else:
            with path.open("rb") as file:
                metadata = pq.read_metadata(file)
        marks = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()}
        return PartFooter(
            name=path.name,
            num_rows=metadata.num_rows,
            errors=int(marks[KEY_PREFIX + "errors"]),
            candidates=int(marks[KEY_PREFIX + "candidates"]),
            tokens=int(marks[KEY_PREFIX + "tokens"]),
            job_fingerprint=sys.intern(marks[KEY_PREFIX + "job_fingerprint"]),  # one for 100,000 parts
            model_fingerprint=sys.intern(marks[KEY_PREFIX + "model_fingerprint"]),
            retry=marks.get(KEY_PREFIX + "retry", ""),
            written_s=float(marks[KEY_PREFIX + "written_s"]) if KEY_PREFIX + "written_s" in marks else None,
        )
    except (FileNotFoundError, pa.ArrowException, KeyError, ValueError):
        return None
    except OSError as err:
        if err.errno is not None:  # the storage failed; what is there may be whole
            raise
        return None  # Arrow's word for a footer that cannot be parsed


def _footer_of(name: str, table: pa.Table, *, retry: str, written_s: float) -> PartFooter:
    fingerprints = {}
    for key in ("job_fingerprint", "model_fingerprint"):
        values = pc.unique(table[key]).to_pylist()
        if len(values) != 1 or values[0] is None:
            raise ValueError(
                f"part {name!r} has {len(values)} values in {key}, expected one for all rows: {values}"
            )
        fingerprints[key] = values[0]
    tokens = pc.struct_field(pc.list_flatten(table["candidates"]), "num_tokens")
    return PartFooter(
        name=name,
        num_rows=table.num_rows,
        errors=table.num_rows - table["error"].null_count,
        candidates=pc.sum(table["num_candidates"]).as_py() or 0,
        tokens=pc.sum(tokens).as_py() or 0,
        retry=retry,
        written_s=written_s,
        **fingerprints,
    )
