from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.demo.picture import COLOURS, picture, read_rows
from jobs.demo.scenes import SIDE, draw, scene

TRUTH = scene(3)


def row(name: str, text: str) -> dict[str, object]:
    prompt = "Describe the image."
    return {"id": name, "prompt": prompt, "scene": TRUTH.to_json(), "candidates": [{"text": text}]}


def test_a_scene_stands_beside_its_candidates_marked_true_or_false() -> None:
    shape = TRUTH.shapes[0]
    right = f"A {shape.colour} {shape.shape}."
    made = picture([row("a", right), row("b", "A."), row("c", right.replace(shape.colour, "pink"))])
    assert made.crop((20, 20, 20 + SIDE, 20 + SIDE)).tobytes() == draw(TRUTH).tobytes()
    marks = [made.getpixel((SIDE + 44, 20 + number * (SIDE + 20) + 10)) for number in range(3)]
    assert marks == [COLOURS["true"], COLOURS["unparsable"], COLOURS["false"]]


def test_rows_come_from_all_parts_in_the_order_asked_for(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name in "ab":
        pq.write_table(pa.Table.from_pylist([row(name, "x")]), tmp_path / "parts" / f"{name}.parquet")
    assert [one["id"] for one in read_rows(tmp_path, ["b", "a"])] == ["b", "a"]
    with pytest.raises(SystemExit, match="has no row z"):
        read_rows(tmp_path, ["z"])
    with pytest.raises(SystemExit, match=r"has no parts/\*\.parquet"):
        read_rows(tmp_path / "parts", [])
