"""Laws of tasks: they survive JSON, and jobs take turns over the same rows."""

from __future__ import annotations

from cogbatch.batch.task import Task, in_turn
from cogbatch.dataset.shards import Shard

A, B, C = (Shard(index, 0, 8 * index, 8) for index in range(3))


def test_a_task_is_the_same_after_json() -> None:
    task = Task(3, A, "s3://bucket/run/parts")
    assert Task.from_json(task.to_json()) == task
    assert task.key == (3, "part-0-0-8.parquet")


def test_jobs_stand_side_by_side_and_each_shard_begins_with_another() -> None:
    assert list(in_turn({0: (A, B, C), 1: (A, B, C), 2: (A, B)})) == [
        *((0, A), (1, A), (2, A)),
        *((1, B), (2, B), (0, B)),
        *((0, C), (1, C)),
    ]


def test_the_shards_of_one_job_stay_in_order() -> None:
    assert list(in_turn({0: (A, B, C)})) == [(0, A), (0, B), (0, C)]
