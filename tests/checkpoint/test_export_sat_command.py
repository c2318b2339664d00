"""cogbatch export-sat: what it prints, and one line for whatever goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cogbatch.cli import main

Converted = Callable[[str], Path]


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as caught:
        main(["export-sat", *map(str, arguments)])
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def test_it_says_what_was_written_and_where(
    converted: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sat"
    options = ("--model-parallel-size", 2, "--iteration", 7, "--json")
    code, printed, err = call(capsys, converted("tiny-a"), out, *options)
    assert (code, err) == (0, "")
    line, result = printed.splitlines()
    assert line.startswith(f"{out}: iteration 7, 2 model-parallel ranks, ")
    files = sorted((out / "7").iterdir())
    assert [file.name for file in files] == [f"mp_rank_0{rank}_model_states.pt" for rank in (0, 1)]
    assert json.loads(result) == {
        "path": str(out),
        "iteration": 7,
        "model_parallel_size": 2,
        "files": [file.name for file in files],
        "size_bytes": sum(file.stat().st_size for file in files),
    }


def test_an_existing_directory_is_replaced_only_when_told_to(
    converted: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sat"
    assert call(capsys, converted("tiny-a"), out)[0] == 0
    code, printed, err = call(capsys, converted("tiny-a"), out, "--model-parallel-size", 2)
    assert (code, printed) == (1, "")
    assert err == f"Error: {out}: exists and is not empty; pass --overwrite, or choose another directory\n"
    assert call(capsys, converted("tiny-a"), out, "--model-parallel-size", 2, "--overwrite")[0] == 0
    assert len(list((out / "1").iterdir())) == 2


def test_a_number_of_ranks_that_does_not_fit_is_one_line(
    converted: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, converted("tiny-a"), tmp_path / "sat", "--model-parallel-size", 3)
    assert code == 1
    assert err.startswith("Error: model_parallel_size is 3, which does not divide num_attention_heads 4, ")
    assert err.endswith("possible here: 1, 2, 4\n")
    assert not list(tmp_path.glob("*sat*"))


@pytest.mark.parametrize("wrong", [("--model-parallel-size", 0), ("--iteration", 0), ("--iteration", "x")])
def test_wrong_usage_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: tuple[object, ...]
) -> None:
    assert call(capsys, tmp_path, tmp_path / "sat", *wrong)[0] == 2
