"""Laws of judging: what a checker or references say of a candidate, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_run import MakeRun

from cogbatch.errors import EvaluationError
from cogbatch.eval.digest import digest_run
from cogbatch.eval.judge import Judgement, open_judge
from cogbatch.eval.runs import open_run
from cogbatch.types import JudgeOptions, RequestError

CHECKER = """
from types import SimpleNamespace
import numpy as np
def is_red(text, row): return row["colour"] in text
def length(text, row): return len(text)
def said(text, row): return SimpleNamespace(score=2, correct=text != "no", content=text[0])
def seen(text, row): return sorted(row) == ["colour", "id", "image", "input_file", "input_row", "prompt"]
def breaks(text, row): return row["nothing"]
def word(text, row): return "good"
def infinite(text, row): return float("inf")
def array(text, row): return np.array([1, 2]).max() > 1
def taken(text, row): return row["colour"].pop() == "red"
number = 3
"""


@pytest.fixture
def checkers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current directory."""
    name = f"checkers_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CHECKER)
    monkeypatch.chdir(tmp_path)
    return name


def judged(path: Path, options: JudgeOptions) -> list[tuple[Judgement, ...]]:
    run = open_run(path)
    judge = open_judge(options, run)
    return [judge(item) for item in run.items(carried=judge.columns)]


def test_a_checker_sees_text_and_row_and_says_right_or_wrong(make_run: MakeRun, checkers: str) -> None:
    run = make_run([["red", "blue"], ["blue"]], carried={"colour": ["red", "blue"]})
    found = judged(run, JudgeOptions(checker=f"{checkers}:is_red"))
    assert found == [(Judgement(1, True), Judgement(0, False)), (Judgement(1, True),)]
    assert judged(run, JudgeOptions(checker=f"{checkers}:seen"))[1] == (Judgement(1, True),)


def test_a_number_is_a_score_and_correct_only_by_a_threshold(make_run: MakeRun, checkers: str) -> None:
    run = make_run([["a", "abc"]], carried={"colour": ["red"]})
    assert judged(run, JudgeOptions(checker=f"{checkers}:length")) == [(Judgement(1), Judgement(3))]
    found = judged(run, JudgeOptions(checker=f"{checkers}:length", threshold=3))
    assert found == [(Judgement(1, False), Judgement(3, True))]


def test_an_object_says_score_correct_and_content(make_run: MakeRun, checkers: str) -> None:
    run = make_run([["no", "yes"]], carried={"colour": ["red"]})
    found = judged(run, JudgeOptions(checker=f"{checkers}:said"))
    assert found == [(Judgement(2, False, "n"), Judgement(2, True, "y"))]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("exact", [Judgement(1, True), Judgement(0, False)]),
        ("rouge-l", [Judgement(1), Judgement(0)]),
        ("bleu", [Judgement(pytest.approx(100)), Judgement(0)]),
    ],
)
def test_references_are_a_text_or_several(make_run: MakeRun, metric: Any, expected: list[Judgement]) -> None:
    one = make_run([["A cat.", "dog"]], carried={"answer": ["a cat"]})
    assert judged(one, JudgeOptions(references="answer", metric=metric)) == [tuple(expected)]


def test_cider_weighs_words_by_the_references_of_all_items(make_run: MakeRun) -> None:
    texts = [["a red cat sleeps"], ["a blue dog runs fast"]]
    run = make_run(texts, carried={"captions": [["a red cat sleeps", "a cat"], ["a blue dog runs fast"]]})
    (first,), (second,) = judged(run, JudgeOptions(references="captions"))
    assert second.score == pytest.approx(10)
    assert first.score is not None
    assert 0 < first.score < 10
    assert first.correct is None


def test_without_references_nothing_is_known(make_run: MakeRun) -> None:
    run = make_run([["a"], ["a"]], carried={"answers": [[], ["a"]]})
    found = judged(run, JudgeOptions(references="answers", metric="exact"))
    assert found == [(Judgement(),), (Judgement(1, True),)]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("breaks", r"breaks failed on rows.jsonl, row 0, candidate 0 \('a'\): KeyError: 'nothing'"),
        ("word", "expected a bool, a number, or an object with a score"),
        ("infinite", "the score is inf"),
        ("number", "has no function number"),
        ("lenght", r"has no function lenght \(did you mean length\?\)"),
        ("nowhere", r"has no function nowhere \(its own are: is_red, length, said, seen, breaks, word, inf"),
    ],
)
def test_a_checker_that_fails_is_named_with_the_item(
    make_run: MakeRun, checkers: str, function: str, said: str
) -> None:
    run = make_run([["a"]], carried={"colour": ["red"]})
    with pytest.raises(EvaluationError, match=said):
        judged(run, JudgeOptions(checker=f"{checkers}:{function}"))


def test_a_checker_that_is_not_there_is_refused(make_run: MakeRun) -> None:
    run = make_run([["a"]])
    with pytest.raises(EvaluationError, match="expected module:function"):
        judged(run, JudgeOptions(checker="check"))
    with pytest.raises(EvaluationError, match="no_such_module cannot be imported: ModuleNotFoundError"):
        judged(run, JudgeOptions(checker="no_such_module:check"))


def test_references_that_were_not_carried_or_are_no_text_are_refused(make_run: MakeRun) -> None:
    run = make_run([["a"]], carried={"answer": [3]})
    with pytest.raises(
        EvaluationError, match=r"no carried column 'captions' .* carried are: answer; name it in"
    ):
        judged(run, JudgeOptions(references="captions"))
    with pytest.raises(EvaluationError, match="row 0: column 'answer' is int; expected a text or a list"):
        judged(run, JudgeOptions(references="answer", metric="exact"))


def test_options_name_exactly_one_kind_of_judge() -> None:
    for wrong in ({}, {"checker": "a:b", "references": "c"}):
        with pytest.raises(ValueError, match="one of the two"):
            JudgeOptions(**wrong)
    with pytest.raises(ValueError, match="metric is 'meteor': expected cider"):
        JudgeOptions(references="c", metric="meteor")  # type: ignore[arg-type]


def test_a_digest_averages_what_the_judge_says_over_items(make_run: MakeRun, checkers: str) -> None:
    gone = RequestError("image", "ImageError", "gone")
    path = make_run([["red", "red one"], gone, ["blue", "red"]], carried={"colour": ["red", "red", "red"]})
    run = open_run(path)
    found = digest_run(run, max_items=9, judge=open_judge(JudgeOptions(checker=f"{checkers}:is_red"), run))
    means = {average.metric: average.mean for average in found.averages}
    assert (means["correct"], means["score"], means["best_score"]) == (0.75, 0.75, 1)
    assert means["distinct_correct"] == 1.5  # two texts, and one
    assert (means["pass@1"], means["pass@2"]) == (0.75, 1)
    assert [len(judged) for judged in found.judgements] == [2, 0, 2]
    assert found.no_pass_at_k is None


def test_chosen_candidates_have_no_pass_at_k_and_the_reason_is_kept(make_run: MakeRun, checkers: str) -> None:
    run = open_run(make_run([["red"]], carried={"colour": ["red"]}, generation={"selector": "dpp"}))
    found = digest_run(run, max_items=0, judge=open_judge(JudgeOptions(checker=f"{checkers}:is_red"), run))
    assert "pass@1" not in {average.metric for average in found.averages}
    assert "selector 'dpp' chose them" in str(found.no_pass_at_k)


def test_the_checker_of_the_demo_is_a_checker() -> None:
    from jobs.demo.check import check
    from jobs.demo.scenes import scene

    said = check("nothing of the kind", {"scene": scene(3).to_json(), "prompt": "Describe the image."})
    assert SimpleNamespace(score=said.score, correct=said.correct) == SimpleNamespace(score=0, correct=False)


def test_a_truth_of_numpy_is_a_truth(make_run: MakeRun, checkers: str) -> None:
    run = make_run([["a"]], carried={"colour": ["red"]})
    assert judged(run, JudgeOptions(checker=f"{checkers}:array")) == [(Judgement(1, True),)]


def test_a_checker_that_changes_its_row_changes_nothing_for_the_next_candidate(
    make_run: MakeRun, checkers: str
) -> None:
    run = open_run(make_run([["a", "b"]], carried={"colour": [["red"]]}))
    (item,) = run.items(carried=["colour"])
    item = replace(item, carried={"colour": ["red"]})  # as a list column of Parquet
    judge = open_judge(JudgeOptions(checker=f"{checkers}:taken"), run)
    assert judge(item) == judge(item) == (Judgement(1, True), Judgement(1, True))


def test_a_threshold_is_a_number() -> None:
    with pytest.raises(ValueError, match="threshold is nan, expected a finite number"):
        JudgeOptions(references="c", threshold=float("nan"))
