"""docs/report.png, the picture of docs/report.md: `make docs`, or `python -m docs.make.report [RUN_DIR]...`.

Runs three settings of the demo, reports them, and takes the upper part of the page in Chromium; some minutes.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from cogbatch.eval.report import write_report
from cogbatch.types import JudgeOptions
from tests.eval.browser import missing, open_browser, show

TARGET = Path(__file__).parents[1] / "report.png"
WIDTH, TOP, HEIGHT = 1280, 1000, 700  # pixels: of the window; shown from the top of the page and of the items
COLOURS = 96
RUNS = (
    ("jobs/demo/job.yaml", "name=sample"),
    ("jobs/demo/job.yaml", "name=beam", "generation.strategy=beam", "generation.temperature=1.0"),
    ("jobs/demo/diverse.yaml", "name=diverse"),
)


def main(run_dirs: list[str]) -> None:
    """Draws the picture of these runs of the demo; of none, runs them first."""
    if why := missing():
        sys.exit(why)
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(run) for run in run_dirs] or [_run(Path(folder), *run) for run in RUNS]
        judge = JudgeOptions(checker="jobs.demo.check:check")
        page = write_report(*runs, judge=judge, out=Path(folder) / "page.html", max_items=24)
        _picture(Path(str(page))).save(TARGET, optimize=True)
    print(f"{TARGET}: {TARGET.stat().st_size / 1e3:.0f} kB")


def _run(folder: Path, spec: str, name: str, *settings: str) -> Path:
    path = folder / name.partition("=")[2]
    given = [argument for setting in (name, *settings) for argument in ("--set", setting)]
    command = [
        sys.executable,
        "-c",
        "from cogbatch.cli import main; main()",
        "run",
        spec,
        "--set",
        f"output.path={path}",
        *given,
    ]
    subprocess.run(command, check=True)
    return path


def _picture(page: Path) -> Image.Image:
    """The head of the page and the head of its gallery, one below the other, in few colours."""
    with open_browser() as browser:
        show(browser, page, width=WIDTH, height=TOP)
        head = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
        show(browser, page, width=WIDTH, height=HEIGHT)
        browser.execute_script("document.getElementById('items').scrollIntoView({behavior: 'instant'})")
        items = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
    whole = Image.new("RGB", (WIDTH, TOP + HEIGHT))
    whole.paste(head, (0, 0))
    whole.paste(items, (0, TOP))
    return whole.quantize(COLOURS, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main(sys.argv[1:])
