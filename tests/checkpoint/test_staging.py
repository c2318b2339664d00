"""Directories and shards as wholes: nothing half-written, nothing twice, nothing lost."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from cogbatch.checkpoint.safetensors_writer import TensorSpec, write_safetensors
from cogbatch.checkpoint.staging import remove_leftovers, staged_directory
from cogbatch.errors import CheckpointError


def test_target_appears_at_the_end_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with staged_directory(target, overwrite=False, marker="m") as folder:
        (folder / "m").write_text("new")
        assert not target.exists()
    assert [f.name for f in target.parent.iterdir()] == ["target"]
    assert (target / "m").read_text() == "new"


def write_and_interrupt(target: Path) -> None:
    with staged_directory(target, overwrite=True, marker="m") as folder:
        (folder / "m").write_text("new")
        raise KeyboardInterrupt


def test_an_interrupted_replacement_leaves_the_old_and_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "m").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt(target)
    assert [f.name for f in tmp_path.iterdir()] == ["target"]
    assert (target / "m").read_text() == "old"


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".target.partial-1", ".other.partial-1", "target"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path / "target")
    assert sorted(f.name for f in tmp_path.iterdir()) == [".other.partial-1", "target"]


def test_a_file_in_the_way_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    with (
        pytest.raises(CheckpointError, match="not a directory"),
        staged_directory(tmp_path / "target", overwrite=True, marker="m"),
    ):
        pass
    assert (tmp_path / "target").read_text() == "mine"


@settings(deadline=None, max_examples=50)  # files and threads: how long one takes says nothing
@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from([torch.float32, torch.bfloat16])), max_size=12
    ),
    limit=st.integers(1, 200),
)
def test_shards_hold_every_tensor_once_within_the_limit(
    lengths: list[tuple[int, torch.dtype]], limit: int
) -> None:
    made = {f"t{i}": torch.arange(n).to(dtype) for i, (n, dtype) in enumerate(lengths)}
    specs = [TensorSpec(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in made.items()]
    with TemporaryDirectory() as folder:
        written = write_safetensors(Path(folder), specs, make=made.__getitem__, max_shard_bytes=limit)
        shards = [load_file(Path(folder) / name) for name in written.files if name.endswith(".safetensors")]
    assert sorted(name for shard in shards for name in shard) == sorted(made)
    assert all(torch.equal(tensor, made[name]) for shard in shards for name, tensor in shard.items())
    assert all(len(shard) == 1 or sum(t.nbytes for t in shard.values()) <= limit for shard in shards if shard)
