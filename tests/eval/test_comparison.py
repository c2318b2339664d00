"""Several runs on one page: what differs, the same items side by side, the front, and sweeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from parsed_page import Seen
from small_run import Outputs, write_run

from cogbatch.errors import RunDirectoryError
from cogbatch.eval.report import write_report
from cogbatch.eval.report.gallery import _within
from cogbatch.eval.report.markup import Html
from cogbatch.types import JudgeOptions, RequestError

HOSTILE = "</svg><script>alert(1)</script>"
ALIKE: Outputs = [["a red cat", "a red cat"], ["a dog", "a dog"]]
OTHERS: Outputs = [["a red cat", "one car"], ["two birds", "a dog"]]


def run(folder: Path, outputs: Outputs, name: str, **generation: object) -> Path:
    return write_run(
        folder / name.replace("/", "_"),
        outputs,
        name=name,
        generation=generation,
        carried={"answer": ["a red cat", "a dog"]},
        written_s=[10],
    )


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A run that is right and repeats itself, and one that is half right and does not."""
    return run(tmp_path, ALIKE, "alike", temperature=0.1), run(tmp_path, OTHERS, "others", temperature=1.5)


def test_runs_are_compared_by_their_figures_and_by_what_differs(two: tuple[Path, Path]) -> None:
    judge = JudgeOptions(references="answer", metric="exact")
    page = write_report(*two, judge=judge)
    assert page == two[0] / "report.html"
    seen = Seen(page.read_text())
    assert "2 runs · model models/tiny" in seen.text
    columns = seen.text[seen.text.index("runfront") :]
    assert columns.startswith("runfrontrowstemperaturepathcorrectVendi score")
    assert "0.1" in seen.text
    assert seen.text.count("on it") == 2  # one is better in each
    assert "correct 1.000, Vendi score 1.00" in seen.text
    assert "num_candidates" not in seen.text.split("Runs")[0]  # the same in both


def test_a_beaten_run_is_not_on_the_front(tmp_path: Path, two: tuple[Path, Path]) -> None:
    worse = run(tmp_path, [["x", "x"], ["x", "x"]], "worse")
    judge = JudgeOptions(references="answer", metric="exact")
    page = write_report(*two, worse, judge=judge).read_text()
    assert "3, worse: correct 0.000, Vendi score 1.00, beaten by another" in page
    assert "1, alike: correct 1.000, Vendi score 1.00, on the front" in page


def test_the_same_items_stand_side_by_side(two: tuple[Path, Path]) -> None:
    page = write_report(*two, max_items=1).read_text()
    (card,) = page.split("<article ")[1:]
    assert card.count("<h4>") == 2
    assert card.index("alike") < card.index("others")
    assert card.count("<img ") == 1


def test_an_item_that_a_run_lacks_is_shown_for_the_others(tmp_path: Path, two: tuple[Path, Path]) -> None:
    part = write_run(tmp_path / "part", [["a"], ["b"]], name="part", shard_size=1, done=1)
    cards = write_report(two[0], part).read_text().split("<article ")[1:]
    assert [card.count("<h4>") for card in cards] == [2, 1]


def test_axes_can_be_chosen_and_wrong_ones_are_named(two: tuple[Path, Path]) -> None:
    page = write_report(*two, quality="num_tokens", diversity="self_bleu").read_text()
    assert "length against self-BLEU" in page
    with pytest.raises(ValueError, match=r"--quality bleurt: is no metric \(expected num_candidates, "):
        write_report(*two, quality="bleurt")
    with pytest.raises(ValueError, match=r"--quality corect: is no metric \(did you mean correct"):
        write_report(*two, quality="corect")
    with pytest.raises(ValueError, match="--quality correct: only a judge knows; give --checker or --ref"):
        write_report(*two, quality="correct")
    judge = JudgeOptions(references="answer", metric="exact")
    with pytest.raises(ValueError, match="--diversity pass@99: no run here has it, there are num_cand"):
        write_report(*two, diversity="pass@99", judge=judge)


def sweep_of(folder: Path, *points: str, failures: Mapping[str, str] | None = None, **said: object) -> Path:
    """A sweep's directory with a sweep.json of those points; their runs are made beside it."""
    (folder / "points").mkdir(parents=True)
    listed = [{"name": name, "settings": {}, "failure": (failures or {}).get(name)} for name in points]
    whole = {"name": "my sweep", "judge": None, "quality": None, "diversity": None, "points": listed, **said}
    (folder / "sweep.json").write_text(json.dumps(whole))
    return folder


def test_a_sweep_says_its_points_their_order_its_judge_and_its_axes(tmp_path: Path) -> None:
    judge = {"checker": None, "references": "answer", "metric": "exact", "threshold": None}
    sweep = sweep_of(
        tmp_path / "sweep", "low", "high", "later", judge=judge, quality="score", diversity="unique_rate"
    )
    for name in ("low", "high", "dropped"):  # of the last its spec says nothing any more
        run(tmp_path, OTHERS, name).rename(sweep / "points" / name)
    seen = Seen(write_report(sweep).read_text())
    assert seen.text.startswith("\nmy sweep: cogbatch report")
    assert "Points without a finished part: later." in seen.text
    assert seen.text.index("1 low") < seen.text.index("2 high")
    assert "dropped" not in seen.text
    assert "score against unique rate" in str(seen.tags)
    chosen = write_report(sweep, quality="num_tokens", out=tmp_path / "other.html")
    assert "length against unique rate" in chosen.read_text()
    for damaged, match in (("{", "cannot be read"), ("{}", "is not as this version writes it")):
        (sweep / "sweep.json").write_text(damaged)
        with pytest.raises(RunDirectoryError, match=rf"sweep\.json {match}"):
            write_report(sweep)


def test_a_point_that_failed_is_named_and_its_rows_do_not_count(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "sweep", "good", "hot", failures={"hot": "too many errors"})
    for name, outputs in (("good", ALIKE), ("hot", OTHERS)):
        run(tmp_path, outputs, name).rename(sweep / "points" / name)
    seen = Seen(write_report(sweep).read_text())
    assert "hot failed: too many errors" in seen.text
    assert "two birds" not in seen.text
    sweep_of(tmp_path / "other", "hot", failures={"hot": "too many errors"})
    with pytest.raises(RunDirectoryError, match=r"no point to report; .* hot failed: too many errors"):
        write_report(tmp_path / "other")


@pytest.mark.parametrize(("axis", "said"), [("seconds_per_item", "cost against"), ("pass@99", "none is on")])
def test_every_metric_that_a_sweep_may_ask_for_makes_a_report(tmp_path: Path, axis: str, said: str) -> None:
    sweep = sweep_of(tmp_path / "sweep", "low", "high", quality=axis)
    for name in ("low", "high"):
        run(tmp_path, OTHERS, name).rename(sweep / "points" / name)
    assert said in write_report(sweep).read_text()


def test_a_sweep_without_any_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"no point to report; run the sweep again\. Points without"):
        write_report(sweep_of(tmp_path / "empty", "a"))


def test_names_of_runs_are_text_everywhere(tmp_path: Path, two: tuple[Path, Path]) -> None:
    hostile = run(tmp_path, OTHERS, HOSTILE)
    page = write_report(hostile, two[0], out=tmp_path / "page.html").read_text()
    assert page.count("<script") == 1  # ours
    assert page.count("</svg>") == page.count("<svg ")
    assert Seen(page).text.count(HOSTILE) >= 3


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    first, second = run(tmp_path, ALIKE, "same"), run(tmp_path / "b", ALIKE, "same")
    seen = Seen(write_report(first, second).read_text())
    assert str(first) in seen.text
    assert str(second) in seen.text
    renamed = second.rename(second.parent / "other")
    seen = Seen(write_report(first, renamed).read_text())
    assert "1 run" in seen.text
    assert "2 other" in seen.text


def test_broken_promises_and_other_inputs_are_said(tmp_path: Path, two: tuple[Path, Path]) -> None:
    gone = RequestError("image", "ImageError", "gone")
    part = write_run(tmp_path / "part", [["a"], gone, ["c"]], name="part", shard_size=2, done=1)
    seen = Seen(write_report(two[0], part).read_text())
    assert "The runs read different inputs" in seen.text
    assert "promises ✗ do not hold" in seen.text
    assert "promises ✓ hold" in seen.text
    assert "50 %" in seen.text  # of the rows are errors


def test_what_is_unfinished_is_said_where_runs_are_compared(tmp_path: Path, two: tuple[Path, Path]) -> None:
    part = write_run(tmp_path / "part", [["a dog", "x"]] * 24, name="dpp", shard_size=8, done=1)
    page = write_report(*two, part).read_text()
    said = Seen(page).text
    assert "Unfinished: dpp 8 of 24 rows; figures of these are of the rows that are there" in said
    assert "run the sweep, or these jobs, again" in said
    assert "on the front, unfinished: 8 of 24 rows" in page  # the tip of the point
    table = said[said.index("runfrontrows") :]
    assert "8 of 24 rows" in table[: table.index("Distributions")]
    assert "Hollow: unfinished" in said
    assert "nfinished:" not in Seen(write_report(*two).read_text()).text


def test_long_names_break_between_words(tmp_path: Path, two: tuple[Path, Path]) -> None:
    name = "strategy-arithmetic_temperature"
    page = write_report(run(tmp_path, ALIKE, name, num_beam_groups=4), two[0]).read_text()
    assert "strategy-<wbr>arithmetic_<wbr>temperature</bdi>" in page
    assert "num_<wbr>beam_<wbr>groups</th>" in page


def test_all_runs_are_listed_beside_the_plot(tmp_path: Path, two: tuple[Path, Path]) -> None:
    worse = run(tmp_path, [["x", "x"], ["x", "x"]], "worse")
    judge = JudgeOptions(references="answer", metric="exact")
    said = Seen(write_report(*two, worse, judge=judge).read_text()).text
    assert "Beaten by another3 worse" in said


def test_what_is_one_is_not_many(tmp_path: Path, two: tuple[Path, Path]) -> None:
    one = write_run(tmp_path / "one", [RequestError("image", "ImageError", "gone")], name="one")
    assert "1 of 1 row, 1 error, promises" in Seen(write_report(two[0], one).read_text()).text


@pytest.mark.slow
def test_a_gallery_shows_six_runs_at_most_those_on_the_front_first(tmp_path: Path) -> None:
    runs = [run(tmp_path, ALIKE, f"run-{number}") for number in range(6)]
    runs.append(run(tmp_path, [["a red cat", "a blue dog"], ["x", "y"]], "best"))
    page = write_report(*runs, max_items=1).read_text()
    (card,) = page.split("<article ")[1:]
    assert card.count("<h4>") == 6
    assert "best" in card
    assert "6 of 7 runs are shown here" in page


def test_cards_that_do_not_fit_are_left_out_evenly() -> None:
    cards = [Html(f"{number:010}") for number in range(100)]
    assert list(_within(cards, 1000)) == cards
    kept = [int(card) for card in _within(cards, 300)]
    assert 20 <= len(kept) <= 30
    assert kept[-1] > 80
    assert _within(cards, 5) == []
