"""Laws of one pass over a run: every row counted once, and what does not hold is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import MODEL, MakeRun

from cogbatch.dataset import RunDirectory
from cogbatch.errors import RunDirectoryError
from cogbatch.eval.digest import digest_run
from cogbatch.eval.parallel import measured
from cogbatch.eval.runs import open_run
from cogbatch.types import RequestError


def gone(name: str) -> RequestError:
    return RequestError("image", "ImageError", f"{name} is missing")


def test_items_come_back_as_they_were_written_in_input_order(make_run: MakeRun) -> None:
    run = open_run(make_run([["a", "红"], gone("x"), ["b"]]))
    items = list(run.items())
    assert [item.identity for item in items] == [("rows.jsonl", 0), ("rows.jsonl", 1), ("rows.jsonl", 2)]
    assert [[candidate.text for candidate in item.candidates] for item in items] == [["a", "红"], [], ["b"]]
    assert [item.error for item in items] == [None, gone("x"), None]
    first = items[0].candidates[1]
    assert (first.index, first.cumulative_logprob, first.num_tokens, first.finish_reason) == (
        1,
        -2.0,
        4,
        "stop",
    )
    assert (items[2].id, items[2].prompt, items[2].image) == ("item-2", "What is 2?", "2.png")


def test_counts_are_those_of_the_rows(make_run: MakeRun) -> None:
    run = open_run(make_run([["a", "a"], gone("x"), gone("y"), gone("x"), ["b", "c"]]))
    found = digest_run(run, max_items=0)
    assert (found.rows_in, found.rows_out, found.num_errors, found.is_exactly_once) == (5, 5, 3, True)
    assert (found.candidates, found.tokens) == (4, 16)
    assert found.model_fingerprints == (MODEL,)
    (group,) = found.errors
    assert (group.stage, group.type, group.count) == ("image", "ImageError", 3)
    said = [(one.message, one.count, one.first.id, one.is_one) for one in group.messages]
    assert said == [("x is missing", 2, "item-1", True), ("y is missing", 1, "item-2", True)]
    unique = found.averages[1]
    assert (unique.metric, unique.num_items, unique.mean) == ("unique_rate", 2, 0.75)


def test_messages_that_differ_in_quoted_words_and_numbers_are_one(make_run: MakeRun) -> None:
    errors = [
        gone("'a.png'"),
        gone("'b.png'"),
        gone("'a.png' (8 bytes)"),
        gone("'a.png' (8 bytes)"),
        gone("b2"),
    ]
    (group,) = digest_run(open_run(make_run([*errors, ["a"]])), max_items=0).errors
    said = [(one.message, one.count, one.first.input_row, one.is_one) for one in group.messages]
    assert said == [
        ("… is missing", 2, 0, False),
        ("'a.png' (8 bytes) is missing", 2, 2, True),
        ("b2 is missing", 1, 4, True),
    ]


def test_an_unfinished_run_lacks_rows(make_run: MakeRun) -> None:
    found = digest_run(open_run(make_run([["a"]] * 5, done=2)), max_items=9)
    assert (found.rows_in, found.rows_out, found.misplaced, found.is_exactly_once) == (5, 4, 0, False)
    assert len(found.sample) == 4


def test_a_second_model_is_seen(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 4, models=["m1", "m2"]))
    assert digest_run(run, max_items=0).model_fingerprints == ("m1", "m2")


def test_rows_of_another_job_and_rows_out_of_place_are_seen(make_run: MakeRun) -> None:
    path = make_run([["a"]] * 4)
    parts = path / "parts"
    (parts / "part-0-0-2.parquet").write_bytes((parts / "part-0-2-2.parquet").read_bytes())
    found = digest_run(open_run(path), max_items=0)
    assert (found.rows_out, found.misplaced, found.is_exactly_once) == (4, 2, False)

    (parts / "part-0-2-2.parquet").rename(parts / "part-7-2-2.parquet")  # a part that the grid does not have
    assert digest_run(open_run(path), max_items=0).misplaced == 4


def test_the_sample_is_seeded_uniform_and_in_input_order(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 12, shard_size=5))
    drawn = [
        [item.input_row for item in digest_run(run, max_items=4, seed=seed).sample] for seed in range(40)
    ]
    assert drawn[0] == [item.input_row for item in digest_run(run, max_items=4, seed=0).sample]
    assert all(rows == sorted(rows) and len(rows) == 4 for rows in drawn)
    assert {row for rows in drawn for row in rows} == set(range(12))
    assert len(digest_run(run, max_items=99).sample) == 12


def test_errors_that_were_not_drawn_are_added_one_for_five(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 40 + [gone("x")] * 10))
    found = digest_run(run, max_items=10, seed=3)
    errors = [item.input_row for item in found.sample if item.error is not None]
    assert (len(found.added), len(found.sample)) == (2, 12)
    assert {40, 41} <= set(errors)
    assert {row for _, row in found.added} <= set(errors)
    assert [item.input_row for item in found.sample] == sorted(item.input_row for item in found.sample)
    assert digest_run(run, max_items=0).sample == ()


def test_a_sample_can_be_that_of_another_run(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 6))
    found = digest_run(run, max_items=3, wanted=[("rows.jsonl", 4), ("rows.jsonl", 1), ("else", 2)])
    assert [item.input_row for item in found.sample] == [1, 4]


def test_values_are_those_of_candidates_and_items_without_error(make_run: MakeRun) -> None:
    values = digest_run(open_run(make_run([["a", "a"], gone("x"), ["b"]])), max_items=0).values
    assert values["num_tokens"].tolist() == [4, 4, 4]
    assert values["logprob_per_token"].tolist() == [-0.5, -0.5, -0.5]
    assert values["unique_rate"].tolist() == [0.5, 1]
    assert len(values["vendi_score"]) == 2
    assert "score" not in values


def test_a_digest_says_how_far_it_is(make_run: MakeRun) -> None:
    told: list[tuple[int, int]] = []
    run = open_run(make_run([["a"]] * 1001, shard_size=400))
    digest_run(run, max_items=0, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(500, 1001), (1000, 1001)]


@pytest.mark.slow
def test_several_processes_give_the_same_metrics_in_the_same_order(make_run: MakeRun) -> None:
    texts = [[f"a {word}", "a cat", f"{word} {number}"] for number in range(75) for word in "xyzw"]
    run = open_run(make_run(texts, shard_size=90))
    alone = list(measured(run.items(), workers=1))
    assert list(measured(run.items(), workers=2)) == alone
    assert [item.input_row for item, _ in alone] == list(range(300))


def test_a_negative_sample_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(ValueError, match="max_items is -1, expected at least 0"):
        digest_run(open_run(make_run([["a"]])), max_items=-1)


def test_a_directory_that_is_no_run_is_named(tmp_path: Path, make_run: MakeRun) -> None:
    with pytest.raises(RunDirectoryError, match="nowhere: no such folder; expected a run directory"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(RunDirectoryError, match="has no finished part; run its job first"):
        open_run(make_run([["a"]], done=0))


def test_a_job_of_another_version_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "old")
    with run.lock():
        run.start({"job_fingerprint": "j", "spec": {}, "files": []})
    with pytest.raises(RunDirectoryError, match="lacks model_fingerprint, dataset_fingerprint, shards"):
        open_run(run.path)


def test_a_part_that_is_damaged_in_the_middle_is_named(make_run: MakeRun) -> None:
    path = make_run([["a"]] * 2)
    part = path / "parts" / "part-0-0-2.parquet"
    data = bytearray(part.read_bytes())
    data[4:400] = b"\0" * 396
    part.write_bytes(data)
    with pytest.raises(RunDirectoryError, match=r"part-0-0-2\.parquet cannot be read"):
        digest_run(open_run(path), max_items=0)
