"""cogbatch export: what was written and dropped on stdout, notes on stderr, one line on errors."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from small_run import MakeRun

from cogbatch.cli import main
from cogbatch.types import RequestError


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def test_it_says_what_was_written_and_what_was_left_out(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run([["a", "b"], ["c", "c"], RequestError("image", "ImageError", "gone")])
    out = run.parent / "out"
    code, printed, err = call(capsys, "export", run, out, "--format", "llava", "--select", "all", "--json")
    assert (code, err) == (0, "")
    lines = printed.splitlines()
    assert lines[:3] == [
        f"{out}: 3 train (2 images)",
        "3 items: 1 error rows; 2 exported",
        "1 of 4 candidates left out: 1 the same image, prompt and text",
    ]
    result = json.loads(lines[-1])
    assert (result["export"], result["examples"], result["candidates"]) == (str(out), {"train": 3}, 4)


GIVEN = (
    (
        "-f llava --select top-n -n 2 --score points --keep loop --keep empty",
        "--format llava --select top-n --top 2 --score points --keep loop --keep empty",
    ),
    (
        "--min-gap 0 --threshold 0 -f dpo --score points --seed 0 --dedupe pairs",
        "--format dpo --threshold 0.0 --score points --min-gap 0.0",
    ),
)


def test_the_card_holds_the_command_which_makes_the_same_again(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = make_run([["a b", "c"], ["d", "e f"]], carried={"points": [[-1, 2], [0, 4]]})
    for number, (given, expected) in enumerate(GIVEN):
        trees = []
        for form in (given, expected):
            out = tmp_path / f"{number} {len(trees)}"
            assert call(capsys, "export", run, out, *shlex.split(form), "--json", "--overwrite")[0] == 0
            trees.append({path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()})
            (command,) = re.findall("^cogbatch export .*", trees[-1]["README.md"].decode(), re.MULTILINE)
            assert command == f"cogbatch export {run.name} OUT {expected}"
        assert trees[0] == trees[1]


def test_threshold_is_the_bound_of_the_selection(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run([["a b c d", "a b", "x"]], carried={"answer": [["a b c d"]]})
    how = ["-f", "llava", "--select", "threshold", "--references", "answer", "--metric", "rouge-l"]
    counts = []
    for number, bound in enumerate(("0.5", "1")):
        _, printed, _ = call(
            capsys, "export", run, run.parent / f"{number}", *how, "--threshold", bound, "--json"
        )
        counts.append(json.loads(printed.splitlines()[-1])["examples"]["train"])
    assert counts == [2, 1]


def test_several_runs_come_before_the_folder(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run([["a"], ["b"]])
    out = run.parent / "out"
    code, printed, _ = call(capsys, "export", run, run, out, "-f", "sharegpt", "--json")
    assert code == 0
    assert json.loads(printed.splitlines()[-1])["items"] == 4


def test_notes_are_on_stderr(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run([["a"], ["b"]])
    (run.parent / "data" / "0.png").unlink()
    code, printed, err = call(capsys, "export", run, run.parent / "out", "-f", "llava")
    assert code == 0
    assert "1 image missing or damaged" in printed
    assert err.startswith("Note: 1 items left out, their image is missing or damaged: ")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["-f", "dpo"], 1, "Error: dpo needs scores: a checker, references, or score (logprob only if"),
        (["-f", "parquet"], 2, "'parquet' is not one of 'llava'"),
        (
            ["-f", "lava"],
            2,
            "'--format' / '-f': 'lava' is not one of 'llava', 'sharegpt', 'openai-chat', 'dpo', 'hf-dataset',"
            " 'webdataset', 'coco-captions'; did you mean llava?",
        ),
        (["-f", "llava", "--threshold", "1"], 1, "Error: threshold needs scores: a checker, references, or"),
        (["-f", "llava", "--near", "0.5"], 1, "Error: near is for dedupe near and for select distinct"),
        (
            ["-f", "llava", "--select", "threshold", "--threshold", "1"],
            1,
            "Error: select threshold needs scores: a checker, references, or score",
        ),
        ([], 2, "Missing option '--format'"),
    ],
)
def test_wrong_usage_is_one_line(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    run = make_run([["a"]])
    found, printed, err = call(capsys, "export", run, run.parent / "out", *options)
    assert (found, printed) == (code, "")
    assert said in " ".join(err.split())
    assert not (run.parent / "out").exists()


@pytest.mark.parametrize("paths", [["runs/demo"], []])
def test_a_forgotten_folder_is_said_to_be_missing(
    capsys: pytest.CaptureFixture[str], paths: list[str]
) -> None:
    code, _, err = call(capsys, "export", *paths, "--format", "llava")
    assert (code, err.splitlines()[-1]) == (2, "Error: Missing argument 'OUT'.")


def test_a_part_of_a_run_is_said_to_be_a_part(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run([["a"]] * 5, done=2)
    out = run.parent / "out"
    _, printed, _ = call(capsys, "export", run, out, "-f", "llava", "--partial", "--json")
    lines = printed.splitlines()
    assert lines[1] == "4 of 5 items (--partial: the run is not finished): 4 exported"
    assert (json.loads(lines[-1])["items"], json.loads(lines[-1])["run_items"]) == (4, 5)
    assert "| items, of 5 (--partial: the run is not finished) | 4 |" in (out / "README.md").read_text()


def test_wrong_candidates_are_counted_where_a_judge_says_so(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run([["a", "b"], ["c"], ["d"]], carried={"answer": [["a"], ["d"], []]})
    out = run.parent / "out"
    judged = ["--references", "answer", "--metric", "exact"]
    said = "are not correct by the references"
    for how, line in (
        (["-f", "llava", "--select", "all"], f"2 of 3 candidates {said}"),
        (["-f", "dpo", "--threshold", "0"], None),
    ):
        _, printed, _ = call(capsys, "export", run, out, *how, *judged, "--overwrite")
        assert [found for found in printed.splitlines() if "correct" in found] == [line] * bool(line)
        row = "| candidates exported that are not correct by the references, of 3 | 2 |"
        assert (row in (out / "README.md").read_text()) == bool(line)
    call(capsys, "export", run, out, "-f", "llava", "--select", "all", "--overwrite")
    assert "not correct" not in (out / "README.md").read_text()


def test_a_note_or_error_does_not_act_on_the_terminal(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"hostile_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text("def check(text, row): raise ValueError(text)\n")
    monkeypatch.chdir(tmp_path)
    run = make_run([["\x1b]0;owned\x07\u202e"]])
    code, _, err = call(capsys, "export", run, tmp_path / "out", "-f", "llava", "--checker", f"{name}:check")
    assert code == 1
    assert err.rstrip("\n").isprintable()
    assert r"\x1b]0;owned" in err
