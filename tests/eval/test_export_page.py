"""docs/export.md shows real records, real options and real reasons."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
from exported import encoded, export
from PIL import Image
from small_run import MakeRun

from cogbatch.eval.export.formats import FORMATS
from cogbatch.eval.export.options import CHOICES
from cogbatch.types import FormatName, Keep

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text()


def example(form: str) -> list[Any]:
    """The records that the page shows of a format."""
    section = PAGE.split(f"### {form}\n")[1].split("\n### ")[0]
    (block,) = re.findall(r"```json\n(.*?)```", section, flags=re.DOTALL)
    return [json.loads(line) for line in block.splitlines()]


def written(form: str, folder: Path) -> list[Any]:
    match form:
        case "llava":
            return list(json.loads((folder / "train.json").read_text()))
        case "sharegpt" | "openai-chat":
            return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
        case "webdataset":
            with tarfile.open(folder / "train-000000.tar") as tar:
                return [
                    json.load(io.BytesIO(tar.extractfile(name).read()))
                    for name in tar.getnames()
                    if ".json" in name
                ]  # type: ignore[union-attr]
        case "coco-captions":
            found = json.loads((folder / "annotations" / "captions_train.json").read_text())
            return [*found["images"], *found["annotations"]]
        case _:
            return list(pq.read_table(folder / "data").to_pylist())


def same(shown: Any, real: Any) -> bool:
    """Whether a record is the one that is shown, which may cut texts with "..."."""
    if isinstance(shown, dict) and isinstance(real, dict):
        return list(shown) == list(real) and all(same(shown[key], real[key]) for key in shown)
    if isinstance(shown, list) and isinstance(real, list):
        return len(shown) == len(real) and all(map(same, shown, real))
    if isinstance(shown, str) and "..." in shown:
        head, tail = shown.split("...")
        text = real.decode("latin-1") if isinstance(real, bytes) else real
        return len(text) > len(shown) and text.startswith(head) and text.endswith(tail)
    return bool(shown == real)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_the_page_shows_what_is_written(make_run: MakeRun, form: str) -> None:
    run = make_run(
        [["A blue square.", "A cat."]],
        ids=["sea"],
        prompts=["What is it?"],
        images=[encoded(Image.new("RGB", (2, 2), (0, 0, 255)))],
        carried={"points": [[1.0, 0.0]]},
    )
    done = export(run, form, score="points")
    real = written(form, Path(str(done.out)))
    assert same(example(form), real), real


def test_the_page_names_every_choice() -> None:
    for name, values in CHOICES.items():
        for value in values:
            assert re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", PAGE), (name, value)
    for value in get_args(Keep):
        assert f"`--keep {value}`" in PAGE


def test_every_name_of_a_format_is_a_format() -> None:
    assert tuple(FORMATS) == get_args(FormatName)
