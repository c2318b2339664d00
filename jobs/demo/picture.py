"""The README's picture, scenes with their candidates: `python -m jobs.demo.picture RUN_DIR docs/demo.png`.

Reads a finished run's parts with plain pyarrow; scenes are drawn again from their ground truth, and every
candidate is marked by check.py: green true, red false, grey unparsable. English only: PIL has no Chinese one.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from PIL import Image, ImageDraw, ImageFont

from jobs.demo.check import check
from jobs.demo.scenes import SIDE, Scene, draw

COLOURS = {"true": (24, 128, 56), "false": (200, 40, 40), "unparsable": (130, 130, 130)}
MARGIN = 20
LINE = SIDE // 8
TEXT_WIDTH = 720


def picture(rows: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Scenes from top to bottom with candidates at the right. rows: `scene`, `prompt` and `candidates`."""
    height = MARGIN + len(rows) * (SIDE + MARGIN)
    canvas = Image.new("RGB", (SIDE + TEXT_WIDTH + 3 * MARGIN, height), "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=15)
    for number, row in enumerate(rows):
        top = MARGIN + number * (SIDE + MARGIN)
        canvas.paste(draw(Scene.from_json(row["scene"])), (MARGIN, top))
        pen.rectangle((MARGIN - 1, top - 1, MARGIN + SIDE, top + SIDE), outline=(200, 200, 200))
        for index, candidate in enumerate(row["candidates"][:8]):
            colour = COLOURS[check(candidate["text"], row).label]
            left, middle = SIDE + 2 * MARGIN, top + index * LINE + LINE // 2
            pen.ellipse((left, middle - 4, left + 8, middle + 4), fill=colour)
            text = _fit(candidate["text"], font, width=TEXT_WIDTH - 18)
            pen.text((left + 18, middle), text, fill=(30, 30, 30), font=font, anchor="lm")
    return canvas


def _fit(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, *, width: int) -> str:
    """The text, its end replaced by dots where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + " ...") > width:
        text = text.rpartition(" ")[0]
    return text + " ..."


def read_rows(run: Path, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a run directory with these ids, in this order; an empty `ids` takes the first four.

    Raises:
        SystemExit: no parts, or an id that is not among them.
    """
    parts = sorted((run / "parts").glob("*.parquet"))
    if not parts:
        raise SystemExit(f"{run} has no parts/*.parquet: run the job first (make demo)")
    rows = ds.dataset(parts).to_table(columns=["id", "prompt", "scene", "candidates"]).to_pylist()
    by_id = {row["id"]: row for row in rows}
    wanted = list(ids) or sorted(by_id)[:4]
    if missing := [one for one in wanted if one not in by_id]:
        raise SystemExit(f"{run} has no row {', '.join(missing)}; ids look like {min(by_id)!r}")
    return [by_id[one] for one in wanted]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.picture", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory of the demo job")
    parser.add_argument("out", type=Path, help="PNG file to write")
    parser.add_argument("--id", dest="ids", action="append", default=[], help="row to show; may be repeated")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    picture(read_rows(given.run, given.ids)).quantize(64).save(given.out, optimize=True)
    print(f"{given.out}: {given.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
