"""Parts appear whole or not at all, and their footers tell the counts."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from cogbatch.dataset.atomic import remove_temporaries, write_atomically
from cogbatch.dataset.object_path import ObjectPath
from cogbatch.dataset.parts import (
    is_complete,
    list_parts,
    part_names,
    read_footer,
    read_footers,
    read_part,
    write_part,
)
from cogbatch.dataset.rows import Row
from cogbatch.dataset.schema import part_schema, record, rows_to_table
from cogbatch.errors import RunDirectoryError
from cogbatch.types import Candidate, RequestError, RequestOutput


def table(num_rows: int = 3, *, job: str = "job"):
    """Two candidates of 4 tokens per row; the first row is an error."""
    rows = []
    for number in range(num_rows):
        candidates = tuple(Candidate(index, "t", (1, 2, 3, 4), -1.0, 4, "stop") for index in range(2))
        error = RequestError("image", "ImageError", "bad") if number == 0 else None
        output = RequestOutput(str(number), () if error else candidates, error)
        rows.append(
            record(Row("f", number, str(number)), output, model_fingerprint="model", job_fingerprint=job)
        )
    return rows_to_table(rows)


@pytest.fixture
def parts(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    return folder


def test_a_part_reads_back_with_its_schema_and_counts(tmp_path, parts) -> None:
    written = write_part(parts, "part-0-0-3.parquet", table())
    assert pq.read_table(parts / "part-0-0-3.parquet").equals(table())
    schema = pq.read_schema(parts / "part-0-0-3.parquet")
    assert schema.equals(part_schema())
    assert schema.field("id").metadata[b"description"]
    assert read_footer(parts / "part-0-0-3.parquet") == written
    assert (written.num_rows, written.errors, written.candidates, written.tokens) == (3, 1, 4, 16)
    assert (written.job_fingerprint, written.model_fingerprint) == ("job", "model")
    assert list_parts(tmp_path) == ("part-0-0-3.parquet",)
    assert os.listdir(parts) == ["part-0-0-3.parquet"]  # noqa: PTH208 - hidden files too


def test_a_part_says_when_it_was_written_whatever_becomes_of_the_file(parts) -> None:
    before_s = time.time()
    written = write_part(parts, "part-0-0-3.parquet", table())
    assert before_s <= written.written_s <= time.time()
    assert write_part(parts, "part-0-0-3.parquet", table(), now_s=1.5).written_s == 1.5
    os.utime(parts / "part-0-0-3.parquet", (9, 9))
    assert read_footer(parts / "part-0-0-3.parquet").written_s == 1.5
    marks = {
        key: value
        for key, value in pq.read_schema(parts / "part-0-0-3.parquet").metadata.items()
        if key != b"cogbatch.written_s"
    }
    pq.write_table(table().replace_schema_metadata(marks), parts / "part-0-0-3.parquet")
    assert read_footer(parts / "part-0-0-3.parquet").written_s is None  # of a version that did not say


def test_parts_are_listed_in_input_order_and_nothing_else_is(tmp_path, parts) -> None:
    for name in ("part-10-0-3.parquet", "part-2-30-3.parquet", "part-2-4-3.parquet"):
        write_part(parts, name, table())
    for name in (".part-0-0-3.parquet.ab.tmp", "part-0-0-3.parquet.tmp", "part-x-0-3.parquet", "notes.txt"):
        (parts / name).write_bytes(b"half")
    names = ("part-2-4-3.parquet", "part-2-30-3.parquet", "part-10-0-3.parquet")
    assert list_parts(tmp_path) == names
    assert [footer.name for footer in read_footers(parts, names)] == list(names)
    assert list_parts(tmp_path / "absent") == ()


def test_a_truncated_foreign_or_other_sized_part_is_not_complete(parts) -> None:
    path = parts / "part-0-0-3.parquet"
    assert not is_complete(path, 3)
    write_part(parts, path.name, table())
    assert is_complete(path, 3)
    assert is_complete(path, 3, job_fingerprint="job")
    assert not is_complete(path, 4)
    assert not is_complete(path, 3, job_fingerprint="another")
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert not is_complete(path, 3)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for place in range(footer, len(whole) - 4, 61):
        for byte in (b"\0", b"\xff"):
            path.write_bytes(whole[:place] + byte + whole[place + 1 :])
            read_footer(path)  # damage is never an exception
    path.write_bytes(b"PAR1" + b"\0" * 40 + (20).to_bytes(4, "little") + b"PAR1")
    assert not is_complete(path, 3)
    pq.write_table(table(), path)  # right rows, without our marks
    assert not is_complete(path, 3)


def test_a_writer_killed_at_any_point_leaves_no_part(tmp_path, parts) -> None:
    code = f"""
import os, signal
from pathlib import Path
from cogbatch.dataset.atomic import write_atomically
def write(file):
    file.write(b"half"); file.flush(); os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path({str(parts / "part-0-0-3.parquet")!r}), write)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert list_parts(tmp_path) == ()
    assert len(list(parts.iterdir())) == 1  # the half-written file
    remove_temporaries(parts)
    assert list(parts.iterdir()) == []


def test_a_writer_that_raises_leaves_the_old_file_and_nothing_else(parts) -> None:
    path = parts / "a"
    path.write_bytes(b"old")

    def fail(file) -> None:
        file.write(b"new")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write_atomically(path, fail)
    assert [(entry.name, entry.read_bytes()) for entry in parts.iterdir()] == [("a", b"old")]


def test_a_full_disk_names_the_file_that_could_not_be_written(parts) -> None:
    def fail(_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(parts / "a", fail)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(parts / "a"))


def test_a_part_whose_body_is_damaged_is_named_with_what_to_do(parts) -> None:
    path = parts / "part-0-0-3.parquet"
    write_part(parts, path.name, table())
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    path.write_bytes(data)
    for columns in (None, ["error", "id"]):
        with pytest.raises(RunDirectoryError, match=rf"{path} is damaged \(.*\); delete it and run the job"):
            read_part(parts, path.name, columns)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_part(parts, path.name)


def test_a_name_that_does_not_fit_the_rows_is_a_value_error(parts) -> None:
    for name in ("part-0-0-4.parquet", "../part-0-0-3.parquet", "other.parquet"):
        with pytest.raises(ValueError, match="cannot hold 3 rows"):
            write_part(parts, name, table())
    mixed = rows_to_table([*table(1).to_pylist(), *table(1, job="other").to_pylist()])
    with pytest.raises(ValueError, match="2 values in job_fingerprint"):
        write_part(parts, "part-0-0-2.parquet", mixed)


def test_parts_can_lie_on_an_object_store() -> None:
    written = write_part("memory://run-of-parts/parts", "part-0-0-3.parquet", table())
    assert (
        list_parts("memory://run-of-parts")
        == part_names(ObjectPath("memory://run-of-parts/parts"))
        == (written.name,)
    )
    assert read_footers("memory://run-of-parts/parts", [written.name]) == (written,)
