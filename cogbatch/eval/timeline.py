"""When the rows of a run were written, from its parts' footers: speed over the time in which it worked.

A part counts at the moment it was written, and one that retry-failed replaced at the last time. What the time
of a single item was spent on is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np

from cogbatch.dataset.parts import PartFooter

PAUSE_FACTOR, SHORTEST_PAUSE_S = 10, 60.0  # a pause is longer than that many typical gaps, and than this
PARTS_A_BIN, MOST_BINS, FEWEST_BINS = 4, 40, 4


@dataclass(frozen=True)
class Pause:
    """A time without any part: stopped and resumed, or waiting. at_s: in working time; length_s: left out."""

    at_s: float
    length_s: float


@dataclass(frozen=True)
class Timeline:
    """Rows over working time: the time from the first start to the last part, without pauses.

    Args:
        edges_s: of the bins, ascending from 0. rows: written in each bin; not those of a part that ends a
            pause, as the time that it took is cut out with the pause.
        unknown_rows: in parts that do not say when they were written.
    """

    edges_s: tuple[float, ...]
    rows: tuple[int, ...]
    pauses: tuple[Pause, ...]
    unknown_rows: int

    @property
    def working_s(self) -> float:
        """Length of the working time."""
        return self.edges_s[-1]

    @property
    def mean_rows_per_s(self) -> float:
        """Over all of the working time."""
        return sum(self.rows) / self.working_s

    @property
    def rows_per_s(self) -> tuple[float, ...]:
        """The mean speed in each bin."""
        widths = (end - start for start, end in pairwise(self.edges_s))
        return tuple(rows / width for rows, width in zip(self.rows, widths, strict=True))


def timeline(job: Mapping[str, Any], parts: Sequence[PartFooter]) -> Timeline | None:
    """The timeline of a run; None where fewer than two parts say when they were written, or all at once."""
    known = sorted(
        (part.written_s, part.num_rows)
        for part in parts
        if part.written_s is not None and math.isfinite(part.written_s)
    )
    if len(known) < 2 or known[0][0] == known[-1][0]:
        return None
    times = [when for when, _ in known]
    gaps = np.diff(times)
    limit_s = max(SHORTEST_PAUSE_S, PAUSE_FACTOR * float(np.median(gaps[gaps > 0])))
    started = _started_s(job, times[0])
    working, pauses = 0.0, list[Pause]()
    at, counted = list[float](), list[int]()
    for before, (when, num_rows) in zip([started, *times], known, strict=False):
        gap = when - before
        if gap > limit_s:
            pauses.append(Pause(working, gap))
            continue
        working += gap
        at.append(working)
        counted.append(num_rows)
    num_bins = min(max(len(known) // PARTS_A_BIN, FEWEST_BINS), MOST_BINS)
    rows, edges = np.histogram(at, bins=num_bins, range=(0.0, working), weights=counted)
    return Timeline(
        edges_s=tuple(edges.tolist()),
        rows=tuple(int(count) for count in rows),
        pauses=tuple(pauses),
        unknown_rows=sum(part.num_rows for part in parts) - sum(num_rows for _, num_rows in known),
    )


def _started_s(job: Mapping[str, Any], first_s: float) -> float:
    """When the job was first started, or its first part's time where it does not say."""
    try:
        return min(datetime.fromisoformat(str(job.get("started"))).timestamp(), first_s)
    except ValueError:
        return first_s
