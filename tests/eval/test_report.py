"""The report: one file that needs nothing else, says what holds, and shows data as text only."""

from __future__ import annotations

import pytest
from parsed_page import Seen
from small_run import MODEL, MakeRun

from cogbatch.eval.report import write_report
from cogbatch.types import RequestError

HOSTILE = '</p></style><script>alert(1)</script><img src=x onerror=alert(2)> & "quoted" \''


def test_the_page_says_what_the_run_is(make_run: MakeRun) -> None:
    path = make_run([["A cat.", "a cat", "A dog"], ["a b c", "d e f"]])
    report = write_report(path)
    assert report == path / "report.html"
    seen = Seen(report.read_text())
    for said in ("small", "models/tiny", "every input row is there exactly once, 2 in all", MODEL):
        assert said in seen.text
    assert seen.text.count("repeats 0") == 1
    assert "−0.500 nats/token" in seen.text
    assert "Does not hold" not in seen.text


def test_the_page_needs_nothing_else(make_run: MakeRun) -> None:
    seen = Seen(write_report(make_run([["a"]] * 3)).read_text())
    names = {name for name, _ in seen.tags}
    assert not names & {"script", "link", "iframe", "object", "base", "form", "svg"}
    sources = [values["src"] or "" for _, values in seen.tags if "src" in values]
    assert len(sources) == 3
    assert all(source.startswith("data:image/") for source in sources)
    assert not [values for _, values in seen.tags if "href" in values]
    policy = [values["content"] or "" for _, values in seen.tags if values.get("http-equiv")]
    assert policy[0].startswith("default-src 'none';")


def test_every_image_has_an_alternative_text(make_run: MakeRun) -> None:
    seen = Seen(write_report(make_run([["a"]] * 2)).read_text())
    texts = [values["alt"] for name, values in seen.tags if name == "img"]
    assert texts == ["Input image of item item-0", "Input image of item item-1"]


def test_data_is_text_wherever_it_stands(make_run: MakeRun) -> None:
    """Names of jobs, ids, alternative texts, candidates and errors."""
    outputs = [[HOSTILE, "b"], RequestError("image", "ImageError", HOSTILE)]
    page = write_report(make_run(outputs, ids=[HOSTILE, "y"], name=HOSTILE)).read_text()
    seen = Seen(page)
    assert "<script" not in page
    assert not {name for name, _ in seen.tags} & {"script"}
    assert not [values for _, values in seen.tags if "onerror" in values]
    alternatives = [values["alt"] for name, values in seen.tags if name == "img"]
    assert alternatives == [f"Input image of item {HOSTILE}", "Input image of item y"]
    assert seen.text.count(HOSTILE) == 6  # title, heading, id, candidate, error group, error of the item


def test_errors_are_grouped_and_shown_on_their_items(make_run: MakeRun) -> None:
    gone = RequestError("read", "DatasetError", "row is no JSON")
    seen = Seen(write_report(make_run([gone, gone, ["a"]])).read_text())
    assert "2 × row is no JSON" in seen.text
    assert seen.text.count("read/DatasetError: ") == 2


def test_what_does_not_hold_is_said(make_run: MakeRun) -> None:
    seen = Seen(write_report(make_run([["a"]] * 5, done=2, models=[MODEL, "other", MODEL])).read_text())
    assert "Does not hold: rows missing: 1; run the job again" in seen.text
    assert "Does not hold: model fingerprints in the rows: 2, expected only m" in seen.text


def test_the_same_run_gives_the_same_page(make_run: MakeRun) -> None:
    path = make_run([["a", "b"]] * 6)
    first = write_report(path, max_items=3).read_bytes()
    assert write_report(path, max_items=3).read_bytes() == first
    assert Seen(first.decode()).text.count("What is ") == 3


def test_no_items_are_shown_when_none_are_asked_for(make_run: MakeRun) -> None:
    path = make_run([["a"]])
    seen = Seen(write_report(path, max_items=0).read_text())
    assert "img" not in {name for name, _ in seen.tags}
    with pytest.raises(ValueError, match="max_items is -1"):
        write_report(path, max_items=-1)
