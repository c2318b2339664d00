"""Zips that torch.save did not write, ranks that are none, weights that would load instead of others."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cogbatch.checkpoint.convert import convert
from cogbatch.checkpoint.directory import prepare_model
from cogbatch.checkpoint.manifest import check_files, model_fingerprint, weight_files
from cogbatch.errors import CheckpointError

RANK = "mp_rank_00_model_states.pt"


@pytest.fixture
def sat(golden: Path, tmp_path: Path) -> Path:
    """A copy of tiny-a that a test may change."""
    return Path(shutil.copytree(golden / "tiny-a" / "ckpt", tmp_path / "sat"))


def rewrite(file: Path, change: Callable[[str, bytes], tuple[bytes, int]]) -> None:
    """Writes the zip anew; change gives the bytes and the compression of each record."""
    with zipfile.ZipFile(file) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in records:
            new, compression = change(name, data)
            archive.writestr(name, new, compress_type=compression)


def test_compressed_records_are_read_and_not_mapped(sat: Path, tmp_path: Path, golden: Path) -> None:
    rewrite(sat / "1" / RANK, lambda _, data: (data, zipfile.ZIP_DEFLATED))
    convert(sat, tmp_path / "hf", version="chat_old")
    convert(golden / "tiny-a" / "ckpt", tmp_path / "plain", version="chat_old")
    (name,) = [file.name for file in (tmp_path / "hf").glob("*.safetensors")]
    found, expected = load_file(tmp_path / "hf" / name), load_file(tmp_path / "plain" / name)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_record_that_is_too_short_is_named(sat: Path, tmp_path: Path) -> None:
    def cut(name: str, data: bytes) -> tuple[bytes, int]:
        return (data[:-4] if name.endswith("/data/3") else data), zipfile.ZIP_STORED

    rewrite(sat / "1" / RANK, cut)
    with pytest.raises(CheckpointError, match=r"record data/3 is [\d,]+ bytes long, expected [\d,]+ bytes"):
        convert(sat, tmp_path / "hf", version="chat_old")
    assert not (tmp_path / "hf").exists()


def test_one_file_twice_is_no_pair_of_ranks(golden: Path, tmp_path: Path) -> None:
    sat = Path(shutil.copytree(golden / "tiny-a-mp2" / "ckpt", tmp_path / "sat"))
    shutil.copyfile(sat / "1" / RANK, sat / "1" / "mp_rank_01_model_states.pt")
    with pytest.raises(CheckpointError, match=r"mp_rank_01.*the same bytes as mp_rank_00"):
        convert(sat, tmp_path / "hf", version="chat_old")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("num_layers", "num_layers is 1000000000, expected at most"),
        ("model_parallel_size", "expected a whole number"),
    ],
)
def test_counts_that_no_model_has_are_refused_at_once(
    sat: Path, tmp_path: Path, field: str, message: str
) -> None:
    file = sat / "model_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: 10**9}))
    with pytest.raises(CheckpointError, match=message):
        convert(sat, tmp_path / "hf", version="chat_old")


def test_a_whole_file_beside_the_converted_ones_would_load_and_is_refused(sat: Path, tmp_path: Path) -> None:
    hf = tmp_path / "hf"
    convert(sat, hf, version="chat_old")
    assert check_files(hf) == []
    before = model_fingerprint(hf)
    (converted,) = hf.glob("*.safetensors")
    tensors = load_file(converted)
    save_file({**tensors, "lm_head.weight": tensors["lm_head.weight"] + 1}, hf / "model.safetensors")
    assert weight_files(hf) == (hf / "model.safetensors",)
    assert model_fingerprint(hf) != before
    assert check_files(hf) == ["model.safetensors"]
    with pytest.raises(CheckpointError, match=r"model\.safetensors differ from the manifest"):
        prepare_model(hf)
