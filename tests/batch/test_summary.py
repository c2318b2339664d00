"""What a finished job says of itself."""

from dataclasses import replace

from cogbatch.batch.summary import Summary

DONE = Summary(
    name="captions",
    rows=10,
    ok=10,
    errors=0,
    error_kinds=(),
    candidates=80,
    candidates_missing=0,
    tokens=900,
    shards=2,
    shards_done_now=2,
    duplicate_ids=0,
    seconds=7.0,
    working_s=5.0,
    items_per_s=2.0,
    tokens_per_s=180.0,
    parts="runs/captions/parts",
    model_fingerprint="m",
    job_fingerprint="j",
)


def test_candidates_that_are_missing_are_counted_aloud() -> None:
    assert not any("fewer" in line for line in DONE.lines())
    lines = replace(DONE, candidates=77, candidates_missing=3).lines()
    assert "3 candidates fewer than asked for: not as many different texts" in lines


def test_speed_is_that_of_workers_that_had_their_model() -> None:
    said = (
        "2 of 2 shards done now in 7.0 s, 2.0 s of it before a worker was ready: 2.00 items/s, 180 tokens/s"
    )
    assert said in DONE.lines()


def test_a_job_without_any_answer_is_told_from_a_good_one() -> None:
    assert "warning: no row was answered; see the reasons above" in replace(DONE, ok=0, errors=10).lines()
