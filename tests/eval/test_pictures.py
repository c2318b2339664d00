"""Images come back through the job's input, or a note says why they do not."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from small_run import MakeRun

from cogbatch.eval.pictures import Album, Picture, read_pictures, thumbnail
from cogbatch.eval.runs import open_run


def album(path: Path) -> Album:
    run = open_run(path)
    return read_pictures(run, tuple(run.items()))


def opened(picture: Picture) -> Image.Image:
    assert picture.data_uri is not None
    head, data = picture.data_uri.split(",", 1)
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{(image.format or '').lower()};base64"
    return image


def test_each_item_gets_the_image_of_its_own_row(make_run: MakeRun) -> None:
    found = album(make_run([["a"]] * 5))
    assert [opened(picture).size for picture in found.pictures] == [(2, 3), (4, 3), (6, 3), (8, 3), (10, 3)]
    assert [(picture.width, picture.note) for picture in found.pictures][:2] == [(2, ""), (4, "")]
    assert found.remark == ""


def test_rows_that_share_an_id_keep_their_own_images(make_run: MakeRun) -> None:
    found = album(make_run([["a"]] * 3, ids=["same"] * 3))
    assert [picture.width for picture in found.pictures] == [2, 4, 6]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1024, 512), (256, 128)), ((300, 600), (128, 256)), ((256, 9), (256, 9)), ((3, 2), (3, 2))],
)
def test_large_images_are_scaled_and_small_ones_are_not(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    picture = thumbnail(Image.new("RGB", size))
    assert (picture.width, picture.height) == opened(picture).size == expected


def test_the_smaller_encoding_is_taken() -> None:
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    assert (opened(thumbnail(noise)).format, opened(thumbnail(Image.new("RGB", (200, 200)))).format) == (
        "JPEG",
        "PNG",
    )


def test_an_image_that_is_gone_or_damaged_is_a_note(make_run: MakeRun) -> None:
    path = make_run([["a"]] * 3)
    (path.parent / "data" / "0.png").unlink()
    (path.parent / "data" / "1.png").write_bytes(b"no image")
    first, second, third = album(path).pictures
    assert (first.data_uri, second.data_uri) == (None, None)
    assert first.note.startswith("the image cannot be read: '")
    assert "not an image (8 bytes)" in second.note
    assert third.width == 6


def test_no_row_is_found_in_the_wrong_shard_or_file(make_run: MakeRun) -> None:
    run = open_run(make_run([["a"]] * 5))
    first = next(iter(run.items()))
    strange = (replace(first, input_row=5), replace(first, input_row=-1), replace(first, input_file="else"))
    assert [one.note for one in read_pictures(run, strange).pictures] == ["no such row in the job"] * 3


def test_a_changed_input_is_said_and_a_row_with_another_id_gets_no_image(make_run: MakeRun) -> None:
    path = make_run([["a"]] * 3)
    rows = path.parent / "data" / "rows.jsonl"
    rows.write_text(rows.read_text().replace("item-1", "item-X") + "\n")
    found = album(path)
    assert found.remark.startswith("The input's files have another size or time")
    assert [picture.note for picture in found.pictures] == ["", "the input has item-X there now", ""]


def test_an_input_that_is_gone_is_one_remark(make_run: MakeRun) -> None:
    path = make_run([["a"]] * 2)
    (path.parent / "data" / "rows.jsonl").unlink()
    found = album(path)
    assert [picture.data_uri for picture in found.pictures] == [None, None]
    assert "the input cannot be opened again: input" in found.remark
