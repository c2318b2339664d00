"""Tar files as WebDataset has them: samples by key, endings as columns, and what is odd costs its own row."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from cogbatch.dataset import InputOptions, Row, open_dataset
from cogbatch.errors import DatasetError
from tests.dataset.inputs import add_member, every_row


def tar_of(*members: tuple[str, bytes] | tarfile.TarInfo, kind: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=kind) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                add_member(tar, *member)
    return sink.getvalue()


def rows_of(path: Path, data: bytes, **options: object) -> list[Row]:
    path.write_bytes(data)
    return every_row(open_dataset(InputOptions(str(path), **{"prompt": "Describe.", **options})), 2)  # type: ignore[arg-type]


def errors_of(rows: list[Row]) -> list[str | None]:
    return [row.error and row.error.message for row in rows]


@pytest.mark.slow  # importing the library takes seconds
def test_rows_are_those_of_the_webdataset_library(tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wds = pytest.importorskip("webdataset")
        with wds.TarWriter(str(tmp_path / "a.tar")) as writer:
            for number in range(150):
                sample = {"__key__": f"part.0/{number}", "txt": f"What is {number}?", "jpg": b"j" * number}
                writer.write({**sample, "json": {"n": number, "note": "é"}, "seg.png": b"p"})
        samples = list(wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    options = InputOptions(
        str(tmp_path / "a.tar"), prompt_column="txt", columns=("json.n", "json.note", "seg.png")
    )
    rows = every_row(open_dataset(options), 7)
    assert [(row.id, row.image, row.prompt) for row in rows] == [
        (sample["__key__"], sample["jpg"], sample["txt"].decode()) for sample in samples
    ]
    carried = [{"json.n": n, "json.note": "é", "seg.png": b"p"} for n in range(150)]
    assert [dict(row.carried) for row in rows] == carried


def test_the_image_is_the_plain_ending_and_others_are_columns_of_their_own(tmp_path) -> None:
    data = tar_of(("a.seg.png", b"s"), ("a.JPG", b"a"), ("b.seg.png", b"b"), ("c.txt", b"c"))
    rows = rows_of(tmp_path / "a.tar", data)
    assert [(row.id, row.image) for row in rows] == [("a", b"a"), ("b", b"b"), ("c", None)]
    rows = rows_of(tmp_path / "a.tar", data, image_column="seg.png")
    assert [row.image for row in rows] == [b"s", b"b", None]


def test_a_text_member_is_a_prompt_without_its_last_newline_and_must_be_utf_8(tmp_path) -> None:
    data = tar_of(("a.jpg", b"x"), ("a.txt", b"Why?\n"), ("b.jpg", b"x"), ("b.txt", b"\xff"), ("c.jpg", b"x"))
    rows = rows_of(tmp_path / "a.tar", data, prompt_column="txt")
    assert [row.prompt for row in rows][::2] == ["Why?", "Describe."]
    assert errors_of(rows) == [None, "member 'txt' is not UTF-8 text; save it as UTF-8", None]


def test_a_key_of_a_json_member_is_a_column_and_bad_json_is_an_error_row(tmp_path) -> None:
    bodies = [b'{"q": "Why?", "n": 1}', b"{oops", b"[1]", b"[" * 100_000, b'{"n": 2}']
    data = tar_of(*[(f"{number}.json", body) for number, body in enumerate(bodies)])
    rows = rows_of(
        tmp_path / "a.tar", data, image_column=None, prompt_column="json.q", columns=("json.n",), prompt="Or?"
    )
    assert [row.prompt for row in rows if not row.error] == ["Why?", "Or?"]
    assert [row.carried["json.n"] for row in rows] == [1, None, None, None, 2]
    assert [row.error.stage if row.error else None for row in rows] == [None, *["read"] * 3, None]


def test_folders_hidden_files_and_names_without_ending_are_no_rows(tmp_path) -> None:
    folder = tarfile.TarInfo("d.x")
    folder.type = tarfile.DIRTYPE
    long = "very/" * 60 + "long"
    data = tar_of(folder, ("d/._a.jpg", b"x"), ("README", b"x"), (f"{long}.jpg", b"a"), (f"{long}.txt", b"t"))
    for kind in (data, tar_of((f"{long}.jpg", b"a"), (f"{long}.txt", b"t"), kind=tarfile.GNU_FORMAT)):
        rows = rows_of(tmp_path / "a.tar", kind, prompt_column="txt")
        assert [(row.id, row.image, row.prompt) for row in rows] == [(long, b"a", "t")]


def test_the_same_ending_twice_begins_a_new_row(tmp_path) -> None:
    rows = rows_of(tmp_path / "a.tar", tar_of(("a.jpg", b"1"), ("a.txt", b"t"), ("a.jpg", b"2")))
    assert [(row.id, row.image) for row in rows] == [("a", b"1"), ("a", b"2")]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_tar_files_put_one_after_the_other_are_read_to_the_end(tmp_path, compress) -> None:
    name = "a.tar" if compress is bytes else "a.tgz"
    data = compress(tar_of(("a.jpg", b"1"))) + compress(tar_of(("b.jpg", b"2"), ("c.jpg", b"3")))
    assert [row.image for row in rows_of(tmp_path / name, data)] == [b"1", b"2", b"3"]


def test_links_are_error_rows_and_lead_nowhere(tmp_path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    links = []
    for name, kind in (("b.jpg", tarfile.SYMTYPE), ("c.jpg", tarfile.LNKTYPE), ("d.jpg", tarfile.FIFOTYPE)):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "secret.jpg"
        links.append(info)
    rows = rows_of(tmp_path / "a.tar", tar_of(("a.jpg", b"1"), *links, ("e.jpg", b"2")))
    assert [row.image for row in rows] == [b"1", None, None, None, b"2"]
    assert all("is a link or no plain file" in str(message) for message in errors_of(rows)[1:4])


def test_a_member_over_the_limit_of_images_is_not_read(tmp_path) -> None:
    huge = tarfile.TarInfo("b.jpg")
    huge.size = 10**12
    sink = io.BytesIO(tar_of(("a.jpg", b"1")))
    sink.seek(1024)
    sink.write(huge.tobuf() + b"x" * 512)
    rows = rows_of(tmp_path / "a.tar", sink.getvalue())
    assert [row.image for row in rows] == [b"1", None]
    assert "damaged or cut off at byte" in str(errors_of(rows)[1])


@pytest.mark.parametrize("size", [-512, -10240, 2**63, 2**80])
def test_a_size_that_leads_backwards_or_beyond_all_files_ends_in_an_error_row(tmp_path, size) -> None:
    odd = tarfile.TarInfo("b.jpg")
    odd.size = size
    first = tar_of(("0.jpg", b"0"), ("a.jpg", b"1"))[:2048]
    rows = rows_of(tmp_path / "a.tar", first + odd.tobuf(tarfile.GNU_FORMAT) + tar_of(("c.jpg", b"3")))
    assert rows[0].image == b"0"
    assert len(rows) <= 3
    assert rows[-1].error
    assert "a.tar is damaged or cut off at byte" in rows[-1].error.message


def test_a_chain_of_extension_headers_ends_in_an_error_row(tmp_path) -> None:
    link = tarfile.TarInfo("x")
    link.type = tarfile.XHDTYPE
    data = tar_of(("0.jpg", b"0"), ("a.jpg", b"1"))[:2048] + link.tobuf() * 3000 + tar_of(("c.jpg", b"3"))
    rows = rows_of(tmp_path / "a.tar", data)
    assert [row.image for row in rows] == [b"0", None]
    assert "a.tar is damaged or cut off at byte 2048" in str(errors_of(rows)[1])


@pytest.mark.parametrize("spoil", [lambda _: b"\xff" * 512, lambda h: h[:148] + b"9999999\0" + h[156:]])
def test_a_damaged_header_is_not_taken_for_the_end(tmp_path, spoil: Callable[[bytes], bytes]) -> None:
    data = bytearray(tar_of(*[(f"{number}.jpg", b"x") for number in range(5)]))
    place = 3 * 1024
    data[place : place + 512] = spoil(bytes(data[place : place + 512]))
    rows = rows_of(tmp_path / "a.tar", bytes(data))
    assert [row.error is None for row in rows] == [True, True, False]
    assert errors_of(rows)[2] == (
        "a.tar is damaged or cut off at byte 3072 (no member's header); what follows is lost, copy it again"
    )


def test_what_is_no_tar_file_is_refused_in_one_line(tmp_path) -> None:
    with pytest.raises(DatasetError, match=r"a\.tar is damaged or cut off at byte 0") as caught:
        rows_of(tmp_path / "a.tar", b"no tar " * 300)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match=r"no column 'image', there are id, txt"):
        rows_of(tmp_path / "a.tar", tar_of(("a.txt", b"x")))


def test_a_key_with_many_dots_makes_no_endless_list_of_columns(tmp_path) -> None:
    data = tar_of(*[(f"{number}.v{number}.jpg", b"x") for number in range(1500)])
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="no column 'none', there are") as caught:
        open_dataset(InputOptions(str(path), prompt_column="none"))
    assert len(str(caught.value)) < 1000
    assert [row.image for row in rows_of(path, data)] == [b"x"] * 1500


def test_one_bad_byte_anywhere_loses_no_row_without_an_error(tmp_path) -> None:
    """Every byte of the headers in turn: all rows are there, or the last one says that rows are lost."""
    whole = tar_of(*[(f"{number}.json", json.dumps({"n": number}).encode()) for number in range(3)])
    path = tmp_path / "a.tar"
    for place in range(3, 3 * 1024, 41):
        spoiled = bytearray(whole)
        spoiled[place] ^= 0x55
        try:
            rows = rows_of(path, bytes(spoiled), image_column=None)
        except DatasetError:
            continue
        assert len(rows) == 3 or rows[-1].error, place
