"""An item of a finished run is found again in its input by (input_file, input_row), whatever the format."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from cogbatch.dataset import InputOptions, RunDirectory, open_dataset
from cogbatch.dataset.listing import LISTING, save_listing
from cogbatch.dataset.parts import write_part
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.dataset.shards import grid_to_json
from cogbatch.eval.pictures import read_pictures
from cogbatch.eval.runs import Run, open_run
from cogbatch.types import RequestOutput
from tests.dataset.inputs import WITH_BYTES, Item, write_folder

NUM_ROWS = 90


def picture(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (number + 1, 2)).save(data, "PNG")
    return data.getvalue()


def finished_run(folder: Path, options: InputOptions, *, shard_size: int) -> Run:
    """A run over the input whose model said nothing."""
    dataset = open_dataset(options)
    shards = dataset.shards(shard_size)
    run = RunDirectory(folder / "run")
    with run.lock():
        run.start(
            {
                "job_fingerprint": "j",
                "model_fingerprint": "m",
                "dataset_fingerprint": dataset.fingerprint,
                "spec": {"name": "again", "input": asdict(options)},
                "files": [file.path for file in dataset.files],
                "shards": grid_to_json(shards),
            }
        )
    save_listing(run.path, dataset)
    for shard in shards:
        output = RequestOutput("")
        rows = [
            record(row, output, model_fingerprint="m", job_fingerprint="j") for row in dataset.read(shard)
        ]
        write_part(run.parts, shard.part_name, rows_to_table(rows, carried=dataset.carried))
    return open_run(run.path)


@pytest.mark.parametrize("kind", [*WITH_BYTES, "folder", "jsonl", "jsonl.gz", "csv"])
def test_every_item_gets_its_own_image_in_any_order(tmp_path, kind) -> None:
    data = tmp_path / "data"
    data.mkdir()
    id_column: str | None = "id"
    if kind in WITH_BYTES:
        written = [Item(f"{n:02}", picture(n)) for n in range(NUM_ROWS)]
        write_folder(data, kind, [written[:50], written[50:]], group=20)
    else:
        for number in range(NUM_ROWS):
            (data / f"{number:02}.png").write_bytes(picture(number))
        if kind != "folder":
            lines = [f'{{"id": "{n:02}", "image": "{n:02}.png"}}\n' for n in range(NUM_ROWS)]
            if kind == "csv":
                lines = ["id,image\n", *[f"{n:02},{n:02}.png\n" for n in range(NUM_ROWS)]]
            text = "".join(lines).encode()
            (data / f"0.{kind}").write_bytes(gzip.compress(text) if kind.endswith(".gz") else text)
    if kind == "folder" or kind.startswith("tar"):
        id_column = None
    options = InputOptions(str(data), id_column=id_column, prompt="Describe.")
    run = finished_run(tmp_path, options, shard_size=7)
    items = list(run.items())
    random.Random(0).shuffle(items)
    album = read_pictures(run, tuple(items))
    assert album.remark == ""
    assert [found.note for found in album.pictures] == [""] * NUM_ROWS
    wanted = [int(item.id.removesuffix(".png")) + 1 for item in items]
    assert [found.width for found in album.pictures] == wanted


def test_a_folder_that_has_grown_since_still_gives_each_item_its_image(tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    names = ["b.png", "d.png", os.fsdecode(b"\xff.png")]
    for number, name in enumerate(names):
        (data / name).write_bytes(picture(number))
    run = finished_run(tmp_path, InputOptions(str(data), prompt="Describe."), shard_size=2)
    for name in ("a.png", "c.png"):
        (data / name).write_bytes(picture(50))
    album = read_pictures(run, tuple(run.items()))
    assert [found.width for found in album.pictures] == [1, 2, 3]
    assert "another size or time" in album.remark
    assert json.loads((tmp_path / "run" / LISTING).read_text()) == names
