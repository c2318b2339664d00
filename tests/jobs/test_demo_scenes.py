import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jobs.demo import scenes
from jobs.demo.scenes import COLOURS, PLACES, SHAPES, Difficulty, Scene, Shape, draw, png, scene
from jobs.demo.table import main, scene_table

DATA = Path(scenes.__file__).parent / "data" / "scenes.parquet"


def digest(first: int, count: int) -> str:
    """Over ground truth and pixels."""
    total = hashlib.sha256()
    for seed in range(first, first + count):
        total.update(scene(seed).to_json().encode())
        total.update(draw(scene(seed)).tobytes())
    return total.hexdigest()


def test_scenes_and_pixels_of_a_seed_never_change() -> None:
    assert digest(0, 20) == "df1fcab48373d4119d53923a5c526222f07c1412412162055ee58474809355d9"


@given(st.integers(0, 2**40))
def test_any_seed_gives_a_scene_within_the_rules(seed: int) -> None:
    truth = scene(seed)
    assert 1 <= len(truth.shapes) <= 4
    places = [PLACES.index(one.place) for one in truth.shapes]
    assert places == sorted(set(places))
    assert Scene.from_json(truth.to_json()) == truth


@given(st.integers(0, 2**40))
def test_difficulty_bounds_what_occurs(seed: int) -> None:
    truth = scene(seed, Difficulty(min_shapes=2, max_shapes=2, num_kinds=2, num_colours=3, textures=False))
    assert len(truth.shapes) == 2
    assert {one.shape for one in truth.shapes} <= set(SHAPES[:2])
    assert {one.colour for one in truth.shapes} <= set(list(COLOURS)[:3])
    assert truth.texture == "plain"


def test_impossible_difficulty_is_refused() -> None:
    with pytest.raises(ValueError, match="max_shapes is 10, expected 1 to 9"):
        Difficulty(max_shapes=10)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_drawn_in_its_colour_inside_its_cell_only(shape: str) -> None:
    one = Shape(shape, "red", "large", "middle right", dx=3, dy=-3)
    pixels = np.asarray(draw(Scene(0, "plain", "white", (one,))))
    ys, xs = np.nonzero((pixels == COLOURS["red"]).all(axis=-1))
    assert len(xs) > 300
    assert xs.min() >= 2 * scenes.CELL
    assert ys.min() >= scenes.CELL
    assert ys.max() < 2 * scenes.CELL


def test_the_data_in_the_repository_is_what_the_command_writes() -> None:
    stored = pq.ParquetFile(DATA)
    assert stored.num_row_groups == 4
    assert DATA.stat().st_size < 500_000
    table = stored.read()
    fresh = scene_table(num_scenes=table.num_rows)
    assert table.num_rows == 128
    for name in ("id", "prompt", "scene", "captions", "questions", "answers"):
        assert table[name].to_pylist() == fresh[name].to_pylist(), name
    for row in table.slice(0, 8).to_pylist():  # pixels, not bytes: zlib builds differ
        picture = Image.open(io.BytesIO(row["image"]))
        assert picture.tobytes() == draw(Scene.from_json(row["scene"])).tobytes()


def test_the_command_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "zh.parquet"
    main([str(out), "--num-scenes", "3", "--seed", "7", "--language", "zh", "--max-shapes", "1"])
    rows = pq.read_table(out).to_pylist()
    assert "3 scenes" in capsys.readouterr().out
    assert [row["id"] for row in rows] == ["scene-000007", "scene-000008", "scene-000009"]
    assert all(len(json.loads(row["scene"])["shapes"]) == 1 for row in rows)
    assert rows[0]["prompt"] == "描述这张图片。"


def test_png_gives_the_same_pixels_back() -> None:
    picture = draw(scene(1))
    assert Image.open(io.BytesIO(png(picture))).tobytes() == picture.tobytes()
