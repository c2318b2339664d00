"""Some items of a run: by id, by place in the input, or drawn at random. Reads the parts that they are in."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from heapq import nlargest
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz import fuzz, process

from cogbatch.dataset.parts import PartFooter
from cogbatch.eval.runs import Item, Run

THREADS = 8
NEAR_IDS = 3  # named where there is no such id


@dataclass(frozen=True)
class Found:
    """Items with one name, in input order. count: how many there are, of which items are the first."""

    items: tuple[Item, ...]
    count: int


def find_items(run: Run, name: str, *, max_items: int) -> Found:
    """The items with that id, or the one item at FILE:ROW of the input, the identity that no other item has.

    Reads the column of ids, or for FILE:ROW nothing, and then the parts with the rows found.

    Raises ValueError: no such item (with the nearest ids), or its row is not done yet. RunDirectoryError: a
    part cannot be read.
    """
    positions = _at_place(run, name)
    if positions is None:
        positions = _with_id(run, name)
    return Found(tuple(run.some(positions[:max_items])), len(positions))


def draw_items(run: Run, num_items: int, *, seed: int = 0) -> tuple[Item, ...]:
    """That many items, or all where there are fewer, drawn uniformly; in input order."""
    rows = run.num_finished
    return tuple(run.some(random.Random(seed).sample(range(rows), min(num_items, rows))))


def _at_place(run: Run, name: str) -> list[int] | None:
    """Where the row FILE:ROW is among the rows of the parts; None where name is no such place."""
    file, _, row = name.rpartition(":")
    if file not in run.job["files"] or not row.isdecimal():
        return None
    grid = {shard.part_name: shard for shard in run.shards}
    starts = accumulate((part.num_rows for part in run.parts), initial=0)
    for start, part in zip(starts, run.parts, strict=False):
        shard = grid.get(part.name)
        if shard is None or run.job["files"][shard.file_index] != file:
            continue
        if 0 <= (offset := int(row) - shard.first_row) < shard.num_rows:
            return [start + offset]
    raise ValueError(
        f"row {row} of {file} is not in a part of {run.path}: not done yet, or no row of the job"
    )


def _with_id(run: Run, name: str) -> list[int]:
    """Where the rows with that id are among the rows of the parts."""
    name = name.encode(errors="backslashreplace").decode()  # no id is what was typed in another encoding

    def places(part: PartFooter) -> list[int]:
        found: list[int] = pc.indices_nonzero(pc.equal(run.column(part, "id"), name)).to_pylist()
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        starts = accumulate((part.num_rows for part in run.parts), initial=0)
        found = zip(starts, pool.map(places, run.parts), strict=False)
        positions = [start + place for start, rows in found for place in rows]
        if positions:
            return positions
        ids = pool.map(lambda part: run.column(part, "id"), run.parts)
        near = [match for column in ids for match in _near(name, column)]
    names = dict.fromkeys(match[0] for match in nlargest(NEAR_IDS, near, key=lambda match: match[1]))
    raise ValueError(
        f"no item {name!r} among the {run.num_finished} finished rows of {run.path}; the nearest ids are "
        f"{', '.join(map(repr, names))}; FILE:ROW names a row of the input"
    )


def _near(name: str, ids: pa.ChunkedArray) -> list[tuple[str, float]]:
    found = process.extract(name, ids.to_pylist(), scorer=fuzz.ratio, limit=NEAR_IDS)
    return [(other, score) for other, score, _ in found]
