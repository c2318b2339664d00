"""cogbatch show: what a terminal, a pipe and a program get to see of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from small_run import MakeRun

from cogbatch.cli import main
from cogbatch.cli.charts import histograms
from cogbatch.cli.screen import Shown
from cogbatch.eval.figures import figures, spread
from cogbatch.eval.runs import open_run
from cogbatch.types import Candidate, RequestError


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def drawn(shown: Shown, *, width: int = 80) -> str:
    """What a screen of that width gets, without colours."""
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(shown.sheet())
    return capture.get()


def answer(text: str, index: int = 0, **more: object) -> Candidate:
    return Candidate(index, text, (), -2.0, 4, "stop", **more)  # type: ignore[arg-type]


def test_an_item_is_a_line_for_each_candidate_in_a_pipe(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run([["a cat", "a\n dog"], ["b"]])
    code, out, err = call(capsys, "show", str(run), "item-0", "--json")
    assert (code, err) == (0, "")
    assert out.splitlines()[:5] == [
        "item-0  rows.jsonl:0",
        "prompt: What is 0?",
        "[0]  -0.50  a cat",
        "[1]  -0.50  a dog",
        "",
    ]
    result = json.loads(out.splitlines()[-1])
    assert (result["found"], result["rows"]) == (1, 2)
    assert [one["text"] for one in result["items"][0]["candidates"]] == ["a cat", "a\n dog"]
    assert "token_ids" not in result["items"][0]["candidates"][0], "they were not read"


def test_an_error_row_shows_its_error(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run([RequestError("image", "ImageError", "cut off")])
    assert "error: image/ImageError: cut off" in call(capsys, "show", str(run), "item-0")[1]


def test_more_items_of_one_id_than_the_bound_are_said(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run([["a"]] * 4, ids=["x"] * 4)
    _, out, err = call(capsys, "show", str(run), "x", "--max-items", "2")
    assert out.count("prompt:") == 2
    assert err == "4 items are called x: the first 2 of them\n"


def test_without_an_id_a_run_is_counts_figures_and_the_same_random_items(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(make_run([["a", "b"]] * 8, done=3))
    _, out, _ = call(capsys, "show", run, "--max-items", "2", "--json")
    assert out.splitlines()[:4] == [
        "small: 6 of 8 rows, 0 errors, 12 candidates, 48 tokens",
        "tokens 4 to 4, median 4",
        "nats per token -0.5 to -0.5, median -0.5",
        "different answers 2 to 2, median 2",
    ]
    assert out == call(capsys, "show", run, "--max-items", "2", "--json")[1]
    assert json.loads(out.splitlines()[-1])["figures"]["tokens"] == {"min": 4, "median": 4, "max": 4}


def test_forced_pictures_draw_also_into_a_pipe(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    run = str(make_run([["a"]]))
    assert "▀" in call(capsys, "show", run, "item-0", "--picture")[1]
    assert "▀" not in call(capsys, "show", run, "item-0")[1]


def test_nothing_in_the_data_acts_on_the_terminal() -> None:
    evil = "\x1b]0;title\x07a\x9bm"
    shown = Shown([answer(evil)], prompt=evil, title=evil, place=evil)
    for text in (drawn(shown), "\n".join(shown.lines())):
        assert not {"\x1b", "\x07", "\x9b"} & set(text)
        assert "\\x1b]0;title" in text


def test_scores_flags_and_cut_answers_are_said_and_sources_where_they_differ() -> None:
    shown = Shown(
        [
            answer("one", score=0.25, flags=("loop",), source="a"),
            Candidate(1, "two", (), -9.0, 3, "length", source="b"),
        ]
    )
    assert shown.lines() == ["[0]  -0.50  one  (score 0.25, loop, a)", "[1]  -3.00  two  (cut, b)"]
    text = drawn(shown)
    assert "score" in text
    assert "loop, a" in text
    alike = Shown([answer("one", source="a"), answer("two", 1, source="a")])
    assert alike.lines()[0] == "[0]  -0.50  one"


def test_words_unlike_the_first_answer_are_marked() -> None:
    console = Console(width=80, force_terminal=True, color_system="standard", highlight=False)
    with console.capture() as capture:
        console.print(Shown([answer("a red cube"), answer("a big red ball", 1)]).sheet())
    assert "a \x1b[1;35mbig\x1b[0m red \x1b[1;35mball\x1b[0m" in capture.get()


def test_a_table_of_long_answers_keeps_to_80_columns() -> None:
    shown = Shown([answer("word " * 60, score=1.0, flags=("loop",))], prompt="why? " * 40, title="t")
    assert max(map(len, drawn(shown).splitlines())) <= 80


def test_figures_leave_out_what_is_not_defined(make_run: MakeRun) -> None:
    failed = RequestError("image", "ImageError", "gone")
    values = figures(open_run(make_run([failed, ["a cat", "a cat"]])).items())
    assert values == {"tokens": [4, 4], "nats per token": [-0.5, -0.5], "different answers": [1.0]}
    assert spread([]) is None
    assert spread([3, 1, 2, 10]) == {"min": 1, "median": 2.5, "max": 10}


def test_three_histograms_stand_side_by_side_in_80_columns() -> None:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(histograms({"first": [1, 2, 2, 3], "second": [0.5] * 4, "third": [-1.0, 1.0]}))
    lines = capture.get().splitlines()
    assert lines[0].split() == ["first", "second", "third"]
    assert "█" in lines[1]
    assert max(map(len, lines)) <= 80


def test_a_run_that_cannot_be_opened_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "show", str(tmp_path))
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_names_and_notes_do_not_act_on_the_terminal(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run([["a"]], name="\x1b[31mred\n")
    rows = run.parent / "data" / "rows.jsonl"
    rows.write_text(rows.read_text().replace("item-0", r"\u001b]0;owned\u0007"))
    assert "\x1b" not in call(capsys, "show", str(run))[1]
    out = call(capsys, "show", str(run), "item-0", "--picture")[1]
    assert r"the input has \x1b]0;owned\x07 there now" in out


def test_what_is_no_number_is_null_in_json(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    broken = Candidate(0, "a", (), float("nan"), 4, "stop", score=float("-inf"))
    out = call(capsys, "show", str(make_run([[broken]])), "--json")[1]
    (item,) = json.loads(out.splitlines()[-1], parse_constant=pytest.fail)["items"]
    assert (item["candidates"][0]["cumulative_logprob"], item["candidates"][0]["score"]) == (None, None)
