"""cogbatch report: the path on stdout, one line when the directory is no run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_run import MakeRun

from cogbatch.cli import main


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def test_report_prints_where_the_page_is(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run([["a"]] * 3)
    code, out, err = call(capsys, "report", str(run), "--max-items", "2", "--json")
    page = run / "report.html"
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == str(page)
    assert json.loads(out.splitlines()[-1]) == {"report": str(page)}
    assert page.read_text().count("<article ") == 2


def test_a_directory_that_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "report", str(tmp_path))
    assert (code, out) == (1, "")
    expected = "has no job.json; expected a run directory, the output.path of a job"
    assert err == f"Error: {tmp_path} {expected}\n"


def test_report_help_shows_two_examples_and_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "report", "--help")
    assert out.count("\n  cogbatch report ") == 2
    assert "[default: 60" in " ".join(out.split())


@pytest.mark.parametrize(
    ("out", "said"), [("job.json", "is no HTML page and is not replaced"), ("parts", "is a folder; expected")]
)
def test_a_page_replaces_nothing_but_a_page(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], out: str, said: str
) -> None:
    run = make_run([["a"]])
    job = (run / "job.json").read_bytes()
    code, _, err = call(capsys, "report", str(run), "--out", str(run / out))
    assert code == 1
    assert said in err
    assert (run / "job.json").read_bytes() == job
    for _ in range(2):
        assert call(capsys, "report", str(run), "--out", str(run / "page.html"))[0] == 0


def test_a_page_in_no_folder_and_a_metric_without_references_are_refused(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(make_run([["a"]]))
    page = Path(run) / "new" / "er" / "page.html"
    code, _, err = call(capsys, "report", run, "--out", str(page))
    said = f"Error: {page.parent}, the folder of page.html, does not exist; make it, or use another --out\n"
    assert (code, err) == (1, said)
    assert not page.parent.parent.exists()
    code, _, err = call(capsys, "report", run, "--metric", "bleu")
    assert (code, err.startswith("Error: --metric bleu needs --references")) == (1, True)


@pytest.mark.parametrize("command", [["report"], ["export", "out", "--format", "llava"]])
@pytest.mark.parametrize("judge", [[], ["--checker", "jobs.demo.check:check"]])
def test_a_metric_that_compares_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], command: list[str], judge: list[str]
) -> None:
    code, out, err = call(capsys, command[0], "nowhere", *command[1:], "--metric", "cider", *judge)
    assert (code, out) == (1, "")
    assert err == "Error: --metric cider needs --references, texts that candidates are compared with\n"
