"""The report: one file that needs nothing else, says what holds, and shows data as text only."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from parsed_page import Seen
from small_run import MODEL, MakeRun, candidate

from cogbatch.eval.report import write_report
from cogbatch.eval.report.reported import place_of_item
from cogbatch.eval.runs import open_run
from cogbatch.types import JudgeOptions, RequestError

HOSTILE = '</p></style><script>alert(1)</script><img src=x onerror=alert(2)> & "quoted" \''


def test_the_page_says_what_the_run_is(make_run: MakeRun) -> None:
    path = make_run([["A cat.", "a cat", "A dog"], ["a b c", "d e f"]])
    report = write_report(path)
    assert report == path / "report.html"
    seen = Seen(report.read_text())
    for said in (
        "small",
        "models/tiny",
        "2026-11-23 04:00 UTC",
        "every input row is there exactly once, 2 in all",
        MODEL,
    ):
        assert said in seen.text
    assert seen.text.count("repeats 0") == 1
    assert "−0.500\u00a0nats/token" in seen.text
    assert "Does not hold" not in seen.text


def test_the_page_needs_nothing_else(make_run: MakeRun) -> None:
    page = write_report(make_run([["a"]] * 3)).read_text()
    seen = Seen(page)
    assert not {name for name, _ in seen.tags} & {"link", "iframe", "object", "base", "embed", "use"}
    sources = [values["src"] or "" for _, values in seen.tags if "src" in values]
    assert len(sources) == 3
    assert all(source.startswith("data:image/") for source in sources)
    links = [values["href"] or "" for _, values in seen.tags if "href" in values]
    anchors = {f"#{values['id']}" for _, values in seen.tags if "id" in values}
    assert links
    assert set(links) <= anchors
    assert "style" not in {key for _, values in seen.tags for key in values}


def test_the_policy_lets_our_script_and_style_run_and_nothing_else(make_run: MakeRun) -> None:
    page = write_report(make_run([["a"]])).read_text()
    (policy,) = [values["content"] or "" for _, values in Seen(page).tags if values.get("http-equiv")]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind in ("script", "style"):
        (content,) = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        expected = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{expected}'"


def test_every_image_has_an_alternative_text(make_run: MakeRun) -> None:
    seen = Seen(write_report(make_run([["a"]] * 2)).read_text())
    texts = [values["alt"] for name, values in seen.tags if name == "img"]
    assert texts == ["Input image of item item-0", "Input image of item item-1"]


def test_data_is_text_wherever_it_stands(make_run: MakeRun) -> None:
    """Names of jobs, ids, alternative texts, candidates and errors."""
    outputs = [[HOSTILE, "b"], RequestError("image", "ImageError", HOSTILE)]
    page = write_report(make_run(outputs, ids=[HOSTILE, "y"], name=HOSTILE)).read_text()
    seen = Seen(page)
    assert page.count("<script") == 1  # ours
    assert [name for name, _ in seen.tags].count("script") == 1
    assert not [values for _, values in seen.tags if "onerror" in values]
    alternatives = [values["alt"] for name, values in seen.tags if name == "img"]
    assert alternatives == [f"Input image of item {HOSTILE}", "Input image of item y"]
    # Title, heading, setting, id, candidate, error group, error of the item.
    assert seen.text.count(HOSTILE) >= 6


def test_errors_are_grouped_and_shown_on_their_items(make_run: MakeRun) -> None:
    gone = RequestError("read", "DatasetError", "row is no JSON")
    seen = Seen(write_report(make_run([gone, gone, ["a"]])).read_text())
    assert "2 × row is no JSON" in seen.text
    assert seen.text.count("read/DatasetError: ") == 2
    assert "first: item-0, rows.jsonl, row 0" in seen.text


def test_errors_alike_are_one_line_with_the_words_of_the_first(make_run: MakeRun) -> None:
    errors = [RequestError("image", "ImageError", f"image '{name}': no such file") for name in "abc"]
    seen = Seen(write_report(make_run([*errors, ["a"]])).read_text())
    line = "3 × image …: no such filefirst: item-0, rows.jsonl, row 0: image 'a': no such file"
    assert line in seen.text


@pytest.mark.parametrize("path", ["data/pictures", "data/pictures/", "s3://bucket/pictures"])
def test_an_image_folder_goes_by_its_name(make_run: MakeRun, path: str) -> None:
    run = open_run(make_run([["a"]]))
    (item,) = run.items()
    assert place_of_item(run, item) == "rows.jsonl, row 0"
    folder = replace(run, job={"spec": {"input": {"path": path}}})
    assert place_of_item(folder, replace(item, input_file=".")) == "pictures, row 0"


def test_added_errors_stand_behind_what_was_drawn(make_run: MakeRun) -> None:
    gone = RequestError("read", "X", "y")
    seen = Seen(write_report(make_run([gone] * 3 + [["a"]] * 47), max_items=10).read_text())
    cards = [values for name, values in seen.tags if name == "article"]
    assert len(cards) > 10
    assert all(card["data-errors"] == "1" for card in cards[10:])
    assert f"10 of 50 items, drawn at random, in input order, then {len(cards) - 10} more" in seen.text


def test_what_does_not_hold_is_said(make_run: MakeRun) -> None:
    seen = Seen(write_report(make_run([["a"]] * 5, done=2, models=[MODEL, "other", MODEL])).read_text())
    assert "Does not hold: rows missing: 1; run the job again" in seen.text
    assert "Does not hold: model fingerprints in the rows: 2, expected only m" in seen.text


def test_the_same_run_gives_the_same_page(make_run: MakeRun) -> None:
    path = make_run([["a", "b"]] * 6)
    first = write_report(path, max_items=3).read_bytes()
    assert write_report(path, max_items=3).read_bytes() == first
    assert Seen(first.decode()).text.count("What is ") == 3


@pytest.mark.parametrize(
    ("count", "asked", "said"),
    [
        (4, 60, "All 4 items, in input order. "),
        (1, 60, "The only item. "),
        (4, 2, "2 of 4 items, drawn at random, in input order. "),
    ],
)
def test_items_are_drawn_only_where_not_all_are_shown(
    make_run: MakeRun, count: int, asked: int, said: str
) -> None:
    assert said in Seen(write_report(make_run([["a"]] * count), max_items=asked).read_text()).text


def test_no_items_are_shown_when_none_are_asked_for(make_run: MakeRun) -> None:
    path = make_run([["a"]])
    seen = Seen(write_report(path, max_items=0).read_text())
    assert "img" not in {name for name, _ in seen.tags}
    with pytest.raises(ValueError, match="max_items is -1"):
        write_report(path, max_items=-1)


def test_candidates_are_marked_in_words_and_sorted_by_the_judge(make_run: MakeRun) -> None:
    outputs = [["a red cat", "a blue cat"], RequestError("image", "ImageError", "gone"), ["a red cat"]]
    path = make_run(outputs, carried={"answer": ["a red cat", "x", "a dog"]})
    page = write_report(path, judge=JudgeOptions(references="answer", metric="exact")).read_text()
    seen = Seen(page)
    assert seen.text.count("✓ correct") == 1
    assert seen.text.count("✗ incorrect") == 2
    assert "Judged by exact against answer." in seen.text
    cards = [values for name, values in seen.tags if name == "article"]
    assert [card["data-order"] for card in cards] == ["0", "1", "2"]
    assert [card["data-has"] for card in cards] == ["correct incorrect", "", "incorrect"]
    assert [card.get("data-score") for card in cards] == ["0.5", None, "0"]
    assert [card["data-errors"] for card in cards] == ["0", "1", "0"]
    assert [card.get("data-logprob") for card in cards] == ["-0.5", None, "-0.5"]
    assert "<mark>blue</mark>" in page
    assert {values["value"] for name, values in seen.tags if name == "option"} >= {"score-up", "none-correct"}


def test_without_a_judge_nothing_is_offered_that_needs_one(make_run: MakeRun) -> None:
    seen = Seen(write_report(make_run([["a"]])).read_text())
    offered = {values["value"] for name, values in seen.tags if name == "option"}
    assert offered == {
        "order",
        "errors-down",
        "diversity-down",
        "diversity-up",
        "logprob-down",
        "logprob-up",
    } | {
        "all",
        "errors",
    }
    assert "correct" not in seen.text.split('"use strict"')[0]


def test_headings_are_in_order_and_controls_have_labels(make_run: MakeRun) -> None:
    seen = Seen(write_report(make_run([["a"], RequestError("read", "X", "y")])).read_text())
    levels = [int(name[1]) for name, _ in seen.tags if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    labelled = {values.get("for") for name, values in seen.tags if name == "label"}
    assert {values["id"] for name, values in seen.tags if name in ("input", "select")} == labelled
    ids = [values["id"] for _, values in seen.tags if "id" in values]
    assert len(ids) == len(set(ids))


def test_when_the_parts_were_written_is_told(make_run: MakeRun) -> None:
    seen = Seen(write_report(make_run([["a"]] * 6, written_s=[10, 20, 30])).read_text())
    assert "0.3 rows/s over 20 s" in seen.text


def test_without_a_judge_scores_are_those_of_the_selector_and_sources_are_shown(make_run: MakeRun) -> None:
    first, second = (
        replace(candidate(index, text), score=score, source=source)
        for index, (text, score, source) in enumerate([("a", 0.25, "short & plain"), ("b", 0.75, "long")])
    )
    run = make_run([[first, second], ["c", "d"]], carried={"answer": ["b", "c"]})
    seen = Seen(write_report(run).read_text())
    cards = [values for name, values in seen.tags if name == "article"]
    assert [card.get("data-score") for card in cards] == ["0.5", None]
    assert "score-up" in {values["value"] for name, values in seen.tags if name == "option"}
    assert "score 0.250" in seen.text
    assert seen.text.count("short & plain") == 1
    assert "Scores are those of the selector or the beams" in seen.text
    judged = Seen(write_report(run, judge=JudgeOptions(references="answer", metric="exact")).read_text())
    assert "score 0.250" not in judged.text
    assert [values.get("data-score") for name, values in judged.tags if name == "article"] == ["0.5", "0.5"]
    assert "Scores are those of the selector" not in judged.text


def test_candidates_without_any_score_are_not_sorted_by_it(make_run: MakeRun) -> None:
    seen = Seen(write_report(make_run([["a"]])).read_text())
    assert "score-up" not in {values["value"] for name, values in seen.tags if name == "option"}
