"""Several runs read one after the other: a judge for all over the same rows, one sample, one progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from cogbatch.eval.digest import Digest, digest_run
from cogbatch.eval.judge import Judge, open_judge
from cogbatch.eval.runs import Run
from cogbatch.types import JudgeOptions


def digest_runs(
    runs: Sequence[Run],
    *,
    max_items: int = 0,
    judge: JudgeOptions | None = None,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Digest, Judge | None]]:
    """Each run's digest and what judged it, in order.

    Args:
        max_items: size of the first run's sample; the others' samples have the same items.
        workers, on_progress: see digest_run; the rows are those of all runs.

    Raises as digest_run and open_judge do.
    """
    judges = dict[str, Judge]()
    total, done = sum(run.num_finished for run in runs), 0
    wanted: frozenset[tuple[str, int]] | None = None
    for run in runs:
        opened = None
        if judge is not None:
            rows = _rows_of(run)
            opened = judges.get(rows) or judges.setdefault(rows, open_judge(judge, run))
        digest = digest_run(
            run,
            max_items=max_items,
            judge=opened,
            wanted=wanted,
            workers=workers,
            on_progress=on_progress and partial(_add, on_progress, done, total),
        )
        done += run.num_finished
        if wanted is None:
            wanted = frozenset(item.identity for item in digest.sample)
        yield digest, opened


def _rows_of(run: Run) -> str:
    """Equal for runs with the same rows of the same input: what a judge knows of all references is equal."""
    is_whole = run.num_finished == run.num_rows
    parts = None if is_whole else [run.job["shards"], [part.name for part in run.parts]]
    return json.dumps([run.job["dataset_fingerprint"], run.job["spec"]["input"], parts], sort_keys=True)


def _add(tell: Callable[[int, int], None], before: int, total: int, rows: int, _: int) -> None:
    tell(before + rows, total)
