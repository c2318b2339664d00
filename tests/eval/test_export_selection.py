"""Which candidates are taken, worked out by hand; everything that is not taken is counted once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exported import export, said, texts
from hypothesis import given
from hypothesis import strategies as st
from small_run import MakeRun

from cogbatch.errors import EvaluationError
from cogbatch.eval.export import ExportOptions
from cogbatch.eval.export.example import Choice
from cogbatch.eval.export.scores import Scored
from cogbatch.eval.export.selection import UNDECIDED, make_pairs, select
from cogbatch.types import JudgeOptions

FOUR = [
    said(0, "a red fox", cumulative_logprob=-8.0),  # -2 a token
    said(1, "a red fox sits", cumulative_logprob=-2.0),  # -0.5
    said(2, "a blue dog", cumulative_logprob=-4.0),  # -1
    said(3, "a blue dog!", cumulative_logprob=-12.0),  # -3
]


def scored(*scores: float | None, contents: dict[int, str] | None = None) -> Scored:
    choices = [Choice(said(index, f"text {index}"), score) for index, score in enumerate(scores)]
    choices.sort(key=lambda choice: (choice.score is None, -(choice.score or 0)))
    return Scored("points", tuple(choices), contents or {})


@pytest.mark.parametrize(
    ("options", "expected", "dropped"),
    [
        ({}, ["a red fox sits"], {"not chosen": 3}),
        ({"select": "top-n", "top": 2}, ["a red fox sits", "a blue dog"], {"not chosen": 2}),
        (
            {"select": "top-n", "top": 9},
            [FOUR[i].text for i in (1, 2, 0)],
            {"the same image, prompt and text": 1},
        ),
        ({"select": "all", "dedupe": "none"}, [FOUR[i].text for i in (1, 2, 0, 3)], {}),
        (
            {"select": "distinct"},
            ["a red fox sits", "a blue dog", "a red fox"],
            {"like a better one of its item": 1},
        ),
        (
            {"select": "distinct", "near": 0.6},
            ["a red fox sits", "a blue dog"],
            {"like a better one of its item": 2},
        ),
        (
            {"select": "threshold", "score": "logprob", "threshold": -1},
            ["a red fox sits", "a blue dog"],
            {"below the threshold": 2},
        ),
        (
            {"select": "top-n", "top": 2, "score": "logprob", "threshold": -0.5},
            ["a red fox sits"],
            {"below the threshold": 3},
        ),
        (
            {"select": "distinct", "near": 0.6, "score": "logprob", "threshold": -2},
            ["a red fox sits", "a blue dog"],
            {"below the threshold": 1, "like a better one of its item": 1},
        ),
        (
            {"select": "all", "score": "logprob", "threshold": -2},
            ["a red fox sits", "a blue dog", "a red fox"],
            {"below the threshold": 1},
        ),
    ],
    ids=["best", "top 2", "top 9", "all", "distinct", "distinct 0.6", "threshold", *["with threshold"] * 3],
)
def test_each_rule_takes_what_it_says_best_first(
    make_run: MakeRun, options: dict[str, Any], expected: list[str], dropped: dict[str, int]
) -> None:
    done = export(make_run([FOUR]), "llava", **options)
    assert texts(done) == expected
    assert done.counts["dropped"] == dropped
    assert done.counts["scored_by"] == {"log-probability per token": 1}


def test_the_selectors_score_goes_before_log_probability_where_all_have_one(make_run: MakeRun) -> None:
    with_scores = [said(0, "likely", cumulative_logprob=-1, score=0.1), said(1, "chosen", score=0.9)]
    some = [said(0, "likely", cumulative_logprob=-1), said(1, "scored", score=0.9)]
    done = export(make_run([with_scores, some]), "llava")
    assert texts(done) == ["chosen", "likely"]
    assert done.counts["scored_by"] == {"score of selector or beam": 1, "log-probability per token": 1}


def test_a_judge_goes_before_everything_and_its_silence_is_no_score(make_run: MakeRun) -> None:
    item = [said(0, "red", score=0.1), said(1, "blue", score=0.9)]
    run = make_run([item, item], carried={"answers": [["red"], []]})
    judge = JudgeOptions(references="answers", metric="exact")
    assert texts(export(run, "llava", judge=judge)) == ["red", "blue"]
    done = export(run, "llava", judge=judge, select="threshold", threshold=1, partial=True)
    assert texts(done) == ["red"]
    assert done.counts["dropped"]["without a score"] == 2


CHECKER = """
from types import SimpleNamespace
def is_red(text, row): return "red" in text
def length(text, row): return len(text)
def marked(text, row): return SimpleNamespace(score=len(text), correct=None if "?" in text else "red" in text)
"""


@pytest.fixture
def checkers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current directory."""
    name = f"selecting_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CHECKER)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize(
    ("function", "threshold", "expected", "dropped"),
    [
        ("is_red", None, ["red"], {"not correct": 2}),
        ("is_red", 0, ["red", "blue", "is it?"], {}),
        ("length", 4, ["is it?", "blue"], {"below the threshold": 1}),
        ("marked", None, ["red"], {"not correct": 1, UNDECIDED: 1}),
        ("marked", 6, ["is it?"], {"below the threshold": 2}),
    ],
)
def test_threshold_takes_what_is_correct_by_the_bound_or_by_the_checker_itself(
    make_run: MakeRun,
    checkers: str,
    function: str,
    threshold: float | None,
    expected: list[str],
    dropped: dict[str, int],
) -> None:
    judge = JudgeOptions(checker=f"{checkers}:{function}")
    run = make_run([["red", "blue", "is it?"]])
    done = export(run, "llava", select="threshold", judge=judge, threshold=threshold)
    assert texts(done) == expected
    assert done.counts["dropped"] == dropped


def test_scores_alone_are_not_correct_and_the_error_says_what_is_missing(
    make_run: MakeRun, checkers: str
) -> None:
    judge = JudgeOptions(checker=f"{checkers}:length")
    with pytest.raises(EvaluationError, match=r"2 with a score that is neither correct.*; add --threshold, "):
        export(make_run([["a", "b"]]), "llava", select="threshold", judge=judge)


@pytest.mark.parametrize("rule", ["best", "all", "distinct"])
def test_a_threshold_lets_no_other_score_in(make_run: MakeRun, rule: str) -> None:
    item = [said(0, "red", score=0.1), said(1, "blue", score=9.0)]
    run = make_run([item, item], carried={"answers": [["red"], []]})
    judge = JudgeOptions(references="answers", metric="exact")
    done = export(run, "llava", judge=judge, select=rule, threshold=1)
    assert texts(done) == ["red"]
    assert done.counts["dropped"] == {"below the threshold": 1, "without a score": 2}


def test_a_run_without_a_selector_has_no_scores_of_one(make_run: MakeRun) -> None:
    run = make_run([["a", "b"]])
    for form in ("dpo", "llava"):
        with pytest.raises(EvaluationError, match="no selector or beam chose in these runs"):
            export(run, form, score="selector")


def test_references_need_no_threshold_where_the_metric_says_what_is_correct(make_run: MakeRun) -> None:
    run = make_run([["red", "blue"]], carried={"answers": [["red"]]})
    judge = JudgeOptions(references="answers", metric="exact")
    done = export(run, "llava", select="threshold", judge=judge)
    assert (texts(done), done.counts["dropped"]) == (["red"], {"not correct": 1})


def test_contents_that_a_checker_calls_equal_are_not_distinct() -> None:
    dropped: Counter[str] = Counter()
    options = ExportOptions("llava", select="distinct")
    found = select(scored(3, 2, 1, contents={0: "x", 1: "x", 2: "y"}), options, dropped)
    assert [choice.candidate.index for choice in found] == [0, 2]
    assert dropped == {"like a better one of its item": 1}


def test_loops_cut_and_empty_texts_are_left_out_unless_kept(make_run: MakeRun) -> None:
    run = make_run(
        [
            [
                said(0, "la la la", flags=("loop",)),
                said(1, "it goes on and", finish_reason="length"),
                said(2, " 。"),
                said(3, "fine"),
            ]
        ]
    )
    done = export(run, "llava", select="all")
    assert texts(done) == ["fine"]
    assert done.counts["dropped"] == {
        "in a loop": 1,
        "cut off by max_new_tokens": 1,
        "without text": 1,
    }
    assert len(texts(export(run, "llava", select="all", keep=("loop", "length", "empty")))) == 4


def test_scores_of_a_column_are_one_an_item_or_one_a_candidate(make_run: MakeRun) -> None:
    run = make_run([["a", "b"], ["c", "d"]], carried={"points": [[1, 5], [0.5, 0.1]], "aesthetic": [7, 2]})
    assert texts(export(run, "llava", score="points")) == ["b", "c"]
    done = export(run, "llava", score="aesthetic", select="threshold", threshold=5)
    assert texts(done) == ["a", "b"]
    assert done.counts["dropped"] == {"below the threshold": 2}


def test_what_lacks_the_score_that_was_asked_for_is_left_out(make_run: MakeRun) -> None:
    item = [said(0, "none"), said(1, "nan", score=float("nan")), said(2, "some", score=0.5)]
    run = make_run([item, ["nothing"]])
    for rule in ("best", "distinct"):
        done = export(run, "llava", score="selector", select=rule)
        assert texts(done) == ["some"]
        assert done.counts["dropped"] == {"without a score": 3}
    assert len(texts(export(run, "llava", score="selector", select="all"))) == 4


@pytest.mark.parametrize(
    ("column", "said_"),
    [
        (["x"], "'points' is 'x'; expected a finite number"),
        ([[1]], "has 1 numbers; expected one a candidate"),
    ],
)
def test_columns_without_numbers_are_refused(make_run: MakeRun, column: list[Any], said_: str) -> None:
    run = make_run([["a", "b"]], carried={"points": column})
    with pytest.raises(EvaluationError, match=said_):
        export(run, "llava", score="points")
    with pytest.raises(EvaluationError, match="no carried column 'absent' with scores, carried are: points"):
        export(run, "llava", score="absent")


def indices(found: Scored, **options: Any) -> list[tuple[int, int]]:
    pairs = make_pairs(found, ExportOptions("dpo", score="points", **options), Counter())
    return [(better.candidate.index, worse.candidate.index) for better, worse in pairs]


def test_a_pair_is_the_best_and_the_worst_with_a_gap() -> None:
    assert indices(scored(1, 5, 3)) == [(1, 0)]
    assert indices(scored(1, 5, 3), min_gap=4) == [(1, 0)]
    assert indices(scored(1, 5, 3), min_gap=4.5) == []
    assert indices(scored(2, 2)) == []
    assert indices(scored(2)) == []
    assert indices(scored(None, 5, None)) == []
    assert indices(scored(1, 5), threshold=6) == []


def test_several_pairs_of_an_item_share_no_candidate() -> None:
    assert indices(scored(1, 6, 3, 5, 4), pairs=9) == [(1, 0), (3, 2)]
    assert indices(scored(1, 6, 3, 5, 4), pairs=9, min_gap=3) == [(1, 0)]


def test_the_texts_of_a_pair_differ() -> None:
    same = Scored("points", (Choice(said(0, "A fox."), 2.0), Choice(said(1, "a fox"), 1.0)), {})
    assert indices(same) == []


@given(st.lists(st.one_of(st.none(), st.floats(-10, 10)), max_size=9), st.integers(1, 5), st.floats(0, 5))
def test_pairs_keep_their_promises_for_any_scores(scores: list[float | None], pairs: int, gap: float) -> None:
    dropped: Counter[str] = Counter()
    options = ExportOptions("dpo", score="points", pairs=pairs, min_gap=gap)
    found = list(make_pairs(scored(*scores), options, dropped))
    used = [choice.candidate.index for pair in found for choice in pair]
    assert len(found) <= pairs
    assert len(used) == len(set(used))
    assert dropped.total() + len(used) == len(scores)
    for better, worse in found:
        assert better.score is not None
        assert worse.score is not None
        assert better.score - worse.score >= gap
        assert better.score > worse.score


def test_dpo_by_log_probability_only_when_asked_for(make_run: MakeRun, tmp_path: Path) -> None:
    del tmp_path
    run = make_run([FOUR, ["alone"]])
    with pytest.raises(ValueError, match="dpo needs scores: a checker, references, or score"):
        export(run, "dpo")
    done = export(run, "dpo", score="logprob")
    assert done.counts["outcomes"] == {
        "exported": 1,
        "without a pair of candidates that differ enough in score": 1,
    }


@pytest.mark.parametrize(
    ("options", "said_"),
    [
        ({"format": "llama"}, "format is 'llama', expected llava, sharegpt"),
        ({"select": "worst"}, "select is 'worst', expected best, all"),
        ({"keep": ("loops",)}, "keep is 'loops', expected loop, length, empty"),
        ({"validation": 1}, "validation is 1, expected a share"),
        ({"near": 0}, "near is 0, expected a similarity"),
        ({"top": 3}, "select top-n and top go together"),
        ({"select": "top-n"}, "select top-n and top go together"),
        ({"select": "top-n", "top": 0}, "top is 0, expected at least 1"),
        ({"select": "threshold", "threshold": 1}, "needs scores: a checker, references, or score"),
        ({"select": "threshold", "score": "x"}, "score x does not say what is correct; add --threshold"),
        (
            {"select": "threshold", "judge": JudgeOptions(references="a")},
            "needs a threshold: cider does not say what is correct; add --threshold",
        ),
        ({"threshold": float("nan"), "select": "threshold", "score": "logprob"}, "expected a finite number"),
        ({"threshold": 1.0}, "threshold needs scores: a checker, references, or score"),
        ({"near": 0.5}, "near is for dedupe near and for select distinct"),
        ({"near": 0.5, "dedupe": "texts"}, "near is for dedupe near and for select distinct"),
        (
            {"judge": JudgeOptions(checker="a:b", threshold=1), "select": "threshold"},
            "the threshold is that of the export; leave it out of the judge",
        ),
        ({"min_gap": 1.0}, "min_gap is for dpo only"),
        ({"format": "dpo", "score": "x", "min_gap": -1.0}, "min_gap is -1.0, expected at least 0"),
        ({"format": "dpo", "score": "x", "select": "best"}, "leave select out"),
        ({"format": "dpo", "score": "x", "dedupe": "near"}, "use pairs or none"),
        ({"score": "x", "judge": JudgeOptions(checker="a:b")}, "are two ways to score; give one"),
        ({"image_urls": True}, "image_urls is for openai-chat only"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], said_: str) -> None:
    with pytest.raises(ValueError, match=said_):
        ExportOptions(**{"format": "llava", **options})


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(ValueError, match=r"format is 'x'.*near is 2.*select top-n and top"):
        ExportOptions("x", near=2, top=1)  # type: ignore[arg-type]
