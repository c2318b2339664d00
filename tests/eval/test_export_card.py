"""The card: a header that the Hub takes, all that was done and counted, and no markup from the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from exported import encoded, export, noise, said
from small_run import MODEL, MakeRun, write_run

from cogbatch.eval.export import Exported, ExportOptions, export_runs


def card(done: Exported) -> tuple[dict[str, Any], str]:
    """Header and text."""
    empty, header, text = (Path(str(done.out)) / "README.md").read_text().split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(header), text


def test_the_header_names_the_files_of_each_split(make_run: MakeRun) -> None:
    run = make_run([["a"]] * 12, images=[encoded(noise(n)) for n in range(12)])
    header, _ = card(export(run, "hf-dataset", validation=0.4))
    assert header["configs"] == [
        {
            "config_name": "default",
            "description": header["configs"][0]["description"],  # a fingerprint
            "data_files": [
                {"split": "train", "path": "data/train-*.parquet"},
                {"split": "validation", "path": "data/validation-*.parquet"},
            ],
        }
    ]
    assert (header["pretty_name"], header["size_categories"]) == ("small", ["n<1K"])
    assert header["task_categories"] == ["image-text-to-text"]
    header, _ = card(export(run, "coco-captions"))
    assert (header["viewer"], header["task_categories"]) == (False, ["image-to-text"])


def test_it_says_what_how_by_which_model_and_what_was_left_out(make_run: MakeRun) -> None:
    run = make_run([["a b c", "a b d", said(2, "cut", finish_reason="length")], ["x y", "z", "w"]])
    done = export_runs(
        [run],
        run.parent / "out",
        ExportOptions("llava", select="all", seed=7, validation=0.0),
        command="the command",
    )
    _, text = card(done)
    for expected in (
        MODEL,
        "dataset_fingerprint: ",
        "job_fingerprint: j",
        "checkpoint: models/tiny",
        "rows.jsonl",
        "temperature: 0.8",
        "select: all",
        "seed: 7",
        "```\nthe command\n```",
        "| candidates | 6 |",
        "| candidates left out: cut off by max_new_tokens | 1 |",
        "| candidates exported | 5 |",
        "Candidates were scored by: log-probability per token (2 items).",
        "licence",
        "CogVLM",
    ):
        assert expected in text, expected


def test_diversity_is_that_of_all_candidates_and_of_those_exported(make_run: MakeRun) -> None:
    run = make_run([["a b", "a b", "c d"], ["a b", "a b", "c d"]])
    _, text = card(export(run, "llava", select="all"))
    (row,) = [line for line in text.splitlines() if line.startswith("| `unique_rate`")]
    assert row == "| `unique_rate` | 0.667 (0.667 to 0.667) | 1.000 (1.000 to 1.000) |"
    (row,) = [line for line in text.splitlines() if line.startswith("| `score`")]
    assert row == "| `score` |  | -0.500 (-0.500 to -0.500) |"


def test_names_and_prompts_of_the_data_are_no_markup(make_run: MakeRun) -> None:
    name = "x\n---\n# <script>|`` | ```` "
    run = make_run([["a"]], name=name, generation={"strategy_options": {"a": "````\n# heading"}})
    header, text = card(export(run, "llava"))
    assert header["pretty_name"] == " ".join(name.split())
    assert "<script>" not in text.split("```")[0]
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        "# x --- \\# &lt;script>\\|\\`\\` \\| \\`\\`\\`\\`"
    ]
    assert "`````yaml" in text


def test_nothing_in_it_depends_on_when_it_was_written(make_run: MakeRun) -> None:
    run = make_run([["a"]])
    assert card(export(run, "llava")) == card(export(run, "llava"))


def test_secrets_of_addresses_are_not_in_it(make_run: MakeRun) -> None:
    run = make_run([["a"]], generation={"strategy_options": {"url": "https://user:hush@host/x?token=hush"}})
    assert "hush" not in card(export(run, "llava"))[1]


def test_a_path_of_this_machine_is_not_in_it(make_run: MakeRun) -> None:
    run = make_run([["a"]])
    rows = run.parent / "data" / "rows.jsonl"
    rows.write_text(rows.read_text() + "\n")  # so that there is a note
    _, text = card(export(run, "llava"))
    assert "\nrun: run\n" in text
    assert "- run: the input" in text
    assert str(run) not in text


def test_the_header_says_whether_the_data_is_the_same(make_run: MakeRun, tmp_path: Path) -> None:
    def mark(run: Path, **options: Any) -> str:
        return str(card(export(run, "llava", **options))[0]["configs"][0]["description"])

    run = make_run([["a", "b"], ["c", "d"]])
    other = write_run(tmp_path / "other", [["a", "b"], ["c", "e"]])
    assert mark(run) == mark(run)
    marks = [mark(run, select="all"), mark(other, select="all"), mark(run, image_format="png")]
    assert len({mark(run), *marks}) == 4


def test_a_name_does_not_act_on_a_terminal(make_run: MakeRun) -> None:
    _, text = card(export(make_run([["a"]], name="\x1b[31mred\u202e"), "llava"))
    assert "\x1b" not in text
    assert r"# \\x1b\[31mred\\u202e" in text
