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


def leave_behind(target: Path, *, suffix: str = "") -> Path:
    """What a killed writer of target leaves: nobody holds its lock."""
    leftover = target.with_name(f".{target.name}.partial-0123456789ab{suffix}")
    leftover.mkdir(parents=True)
    (leftover / "m").write_text("half")
    return leftover


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    target, other = tmp_path / "target", tmp_path / "other"
    leave_behind(target), leave_behind(other)
    with staged_directory(target, overwrite=False, marker="m") as folder:
        (folder / "m").write_text("new")
        assert len(list(tmp_path.glob(".target.partial-*"))) == 1
    assert sorted(f.name for f in tmp_path.iterdir()) == [".other.partial-0123456789ab", "target"]


def test_what_a_live_writer_is_at_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with staged_directory(target, overwrite=True, marker="m") as first:
        (first / "m").write_text("first")
        remove_leftovers(target, only_writer=True)
        with staged_directory(target, overwrite=True, marker="m") as second:
            (second / "m").write_text("second")
        assert (target / "m").read_text() == "second"
    assert (target / "m").read_text() == "first"
    assert [f.name for f in tmp_path.iterdir()] == ["target"]


def test_a_replacement_killed_between_its_two_renames_is_undone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    leave_behind(target), leave_behind(target, suffix="-old")
    remove_leftovers(target)
    assert [f.name for f in tmp_path.iterdir()] == ["target"]
    leave_behind(target, suffix="-old")
    (target / "m").write_text("new")
    remove_leftovers(target)
    assert (target / "m").read_text() == "new"
    assert [f.name for f in tmp_path.iterdir()] == ["target"]


def write_late(target: Path) -> None:
    with staged_directory(target, overwrite=False, marker="m") as folder:
        (folder / "m").write_text("late")
        target.mkdir()
        (target / "m").write_text("early")


def test_a_target_that_appears_meanwhile_is_not_replaced_unasked(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with pytest.raises(CheckpointError, match="not empty; pass --overwrite"):
        write_late(target)
    assert (target / "m").read_text() == "early"
    assert [f.name for f in tmp_path.iterdir()] == ["target"]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    asked: list[Path] = []

    def free_bytes(folder: Path) -> int:
        asked.append(folder)
        return 10**9

    with (
        pytest.raises(CheckpointError, match=r"2\.0 GB will be written, but .* has 1\.0 GB free"),
        staged_directory(
            tmp_path / "a" / "b", overwrite=False, marker="m", size_bytes=2 * 10**9, free_bytes=free_bytes
        ),
    ):
        pass
    assert asked == [tmp_path]
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "out", Path("/proc/out")):
        with (
            pytest.raises(
                CheckpointError, match=r"out: not written \(.* at .*\); check its rights"
            ) as caught,
            staged_directory(target, overwrite=False, marker="m"),
        ):
            pass
        assert "\n" not in str(caught.value)


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
