"""Hashes of files: remembered, and for PyTorch's zips checked against the checksums inside."""

import hashlib
import threading
from pathlib import Path

import pytest
import torch

from cogbatch.checkpoint.hashing import SourceHashes, intact_sha256
from cogbatch.errors import CheckpointError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A PyTorch file of three records that are larger than what is read at a time."""
    file = tmp_path / "weights.pt"
    torch.save({i: torch.arange(2**21) + i for i in range(3)}, file)
    return file


def flip(file: Path, position: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))


def test_the_hash_is_that_of_the_file(archive: Path, tmp_path: Path) -> None:
    assert intact_sha256(archive) == hashlib.sha256(archive.read_bytes()).hexdigest()
    (tmp_path / "text").write_text("no zip")
    assert intact_sha256(tmp_path / "text") == hashlib.sha256(b"no zip").hexdigest()


@pytest.mark.parametrize("where", [0.1, 0.33, 0.5, 0.9])
def test_one_flipped_bit_is_found(archive: Path, where: float) -> None:
    flip(archive, int(where * archive.stat().st_size))
    with pytest.raises(
        CheckpointError, match=r"weights\.pt: damaged: record weights/data/\d is not what was"
    ):
        intact_sha256(archive)


def test_files_written_without_checksums_are_hashed(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(9)}, file)
    finally:
        torch.serialization.set_crc32_options(True)
    assert intact_sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_truncated_zip_is_one_line(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:5_000_000])
    with pytest.raises(CheckpointError, match="not a readable zip") as caught:
        intact_sha256(archive)
    assert "\n" not in str(caught.value)


def test_hashes_in_the_background_are_those_of_the_files(archive: Path) -> None:
    with SourceHashes([archive]) as hashes:
        assert hashes.result() == {archive: intact_sha256(archive)}


def test_a_file_that_changes_meanwhile_is_named(archive: Path) -> None:
    with SourceHashes([archive]) as hashes:
        hashes.result()
        archive.write_bytes(b"other")
        with pytest.raises(CheckpointError, match=r"weights\.pt: changed while it was being converted"):
            hashes.result()


def test_work_that_is_given_up_remembers_nothing(archive: Path, cache: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(CheckpointError, match="interrupted"):
        intact_sha256(archive, stop=stop)
    assert not (cache / "hashes.json").exists()
