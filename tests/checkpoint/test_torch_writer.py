"""A file written tensor by tensor is the one that torch.save writes, for every reader."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cogbatch.checkpoint.safetensors_writer import TensorSpec
from cogbatch.checkpoint.torch_writer import torch_file

NAME = "mp_rank_00_model_states.pt"


def some_tensors() -> OrderedDict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"row": (7,), "scalar": (), "matrix": (5, 3), "kernel": (2, 3, 2, 2), "one": (1, 1, 6)}
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    return OrderedDict(
        (name, torch.randn(shape, generator=generator).to(dtypes[i % 3]))
        for i, (name, shape) in enumerate(shapes.items())
    )


def write(path: Path, tensors: OrderedDict[str, Tensor]) -> None:
    specs = [TensorSpec(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    with torch_file(path, specs) as put:
        for tensor in tensors.values():
            put(tensor)


def test_the_file_is_the_one_that_torch_save_writes(tmp_path: Path) -> None:
    tensors = some_tensors()
    (tmp_path / "saved").mkdir()
    torch.save({"module": tensors}, tmp_path / "saved" / NAME)
    write(tmp_path / NAME, tensors)
    assert (tmp_path / NAME).read_bytes() == (tmp_path / "saved" / NAME).read_bytes()


def test_views_are_written_without_what_surrounds_them(tmp_path: Path) -> None:
    whole = torch.arange(48).reshape(8, 6).float()
    views = OrderedDict(rows=whole[2:4], columns=whole[:, 1:3], all=whole)
    write(tmp_path / NAME, views)
    module = torch.load(tmp_path / NAME, weights_only=True)["module"]
    assert all(torch.equal(module[name], view) for name, view in views.items())
    assert [tensor.untyped_storage().nbytes() for tensor in module.values()] == [48, 64, 192]


def test_checksums_hold(tmp_path: Path) -> None:
    write(tmp_path / NAME, some_tensors())
    with zipfile.ZipFile(tmp_path / NAME) as archive:
        assert archive.testzip() is None
        assert all(entry.CRC for entry in archive.infolist())


def test_names_of_folders_may_be_in_any_script(tmp_path: Path) -> None:
    tensors = some_tensors()
    (tmp_path / "模型").mkdir()
    write(tmp_path / "模型" / NAME, tensors)
    module = torch.load(tmp_path / "模型" / NAME, weights_only=True, mmap=True)["module"]
    assert list(module) == list(tensors)
    assert all(torch.equal(module[name], tensor) for name, tensor in tensors.items())


def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="torch's writer"):
        write(tmp_path / "nowhere" / NAME, some_tensors())


def test_a_full_disk_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r"torch's writer"):
        write(Path("/dev/full"), OrderedDict(large=torch.zeros(1 << 18)))


def test_a_forgotten_tensor_is_our_mistake(tmp_path: Path) -> None:
    specs = [TensorSpec("a", torch.float32, (2,)), TensorSpec("b", torch.float32, (2,))]
    with pytest.raises(AssertionError, match="not every tensor"), torch_file(tmp_path / NAME, specs) as put:
        put(torch.zeros(2))
