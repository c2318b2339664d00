"""The sets of weights in a directory, from file headers, in the order in which transformers looks for them.

Pickles (*.bin) are read memory-mapped and with weights_only: nothing in them is run.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from cogbatch.checkpoint.names import is_rotary
from cogbatch.checkpoint.safetensors_writer import DTYPE_NAMES, INDEX

SINGLE = "model.safetensors"
BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"

_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}

Kind = Literal["single", "index", "bin", "bin_index", "loose"]


class Stored(NamedTuple):
    """One tensor as a header has it. dtype: safetensors' name."""

    file: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class WeightSet:
    """One way to read the directory's weights.

    entry: the file by which loaders find it; for loose files, which nobody finds, the index they should have.
    problems: why it cannot be read as it should.
    """

    kind: Kind
    folder: Path
    entry: str
    files: tuple[str, ...]
    tensors: Mapping[str, Stored]
    problems: tuple[str, ...] = ()

    @property
    def is_pickle(self) -> bool:
        return self.kind in ("bin", "bin_index")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: stored.shape for name, stored in self.tensors.items()}

    @property
    def changed_ns(self) -> int:
        """When its youngest tensor file was written; the index may have been copied later."""
        return max(((self.folder / name).stat().st_mtime_ns for name in self.files), default=0)

    @property
    def tensor_bytes(self) -> int:
        """An index's total_size."""
        return sum(
            math.prod(one.shape) * _DTYPES.get(one.dtype, torch.float32).itemsize
            for one in self.tensors.values()
        )

    @property
    def size_bytes(self) -> int:
        """Of its files."""
        return sum((self.folder / name).stat().st_size for name in self.files)

    def reader(self) -> Callable[[str], Tensor]:
        """name -> tensor, memory-mapped; files stay open as long as it lives."""
        opened: dict[str, Callable[[str], Tensor]] = {}

        def read(name: str) -> Tensor:
            file = self.tensors[name].file
            if file not in opened:
                path = self.folder / file
                opened[file] = (
                    _read_pickle(path).__getitem__
                    if self.is_pickle
                    else safe_open(path, framework="pt").get_tensor
                )
            return opened[file](name)

        return read


def weight_sets(folder: Path) -> tuple[WeightSet, ...]:
    """What there is, in transformers' order: the first is what loads. Loose files come last."""
    sets: list[WeightSet] = []
    if (folder / SINGLE).is_file():
        sets.append(_of_files(folder, "single", SINGLE, [SINGLE]))
    if (folder / INDEX).is_file():
        sets.append(_of_index(folder, "index", INDEX))
    if (folder / BIN).is_file():
        sets.append(_of_files(folder, "bin", BIN, [BIN]))
    if (folder / BIN_INDEX).is_file():
        sets.append(_of_index(folder, "bin_index", BIN_INDEX))
    return (*sets, *_loose_sets(folder))


def first_difference(a: WeightSet, b: WeightSet) -> str | None:
    """The first tensor whose values differ, rotary tables aside; the narrower dtype of the two decides."""
    read_a, read_b = a.reader(), b.reader()
    for name in a.tensors:
        if name not in b.tensors or is_rotary(name):
            continue
        one, other = read_a(name), read_b(name)
        narrow = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
        if not torch.equal(one.to(narrow), other.to(narrow)):
            return name
    return None


def _of_index(folder: Path, kind: Kind, entry: str) -> WeightSet:
    try:
        index = json.loads((folder / entry).read_text(encoding="utf-8"))
        places: dict[str, str] = dict(index["weight_map"])
        names = sorted(set(places.values()))
        outside = [name for name in names if Path(name).name != name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        return WeightSet(kind, folder, entry, (), {}, (f"{entry} is not a weight index ({err!r})",))
    if outside:
        return WeightSet(kind, folder, entry, (), {}, (f"{entry} names files elsewhere: {outside[0]}",))
    problems: list[str] = []
    if not isinstance(index.get("metadata"), dict):
        problems.append(f"{entry} has no metadata, without which transformers does not read it")
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        problems.append(f"{entry} names files that are not there: {some(absent)}")
    read = _of_files(folder, kind, entry, [name for name in names if name not in absent], places)
    if not read.problems:
        lost = [name for name, file in places.items() if file not in absent and name not in read.tensors]
        if lost:
            problems.append(f"{entry} names {count(lost)} that its files do not hold: {some(lost)}")
    return replace(read, problems=(*problems, *read.problems))


def _loose_sets(folder: Path) -> tuple[WeightSet, ...]:
    """Sets of safetensors files without regard to an index: all of them, and each `-of-N` series."""
    names = sorted(file.name for file in folder.glob("*.safetensors") if file.is_file())
    series: dict[str, list[str]] = {}
    for name in names:
        series.setdefault(name.rpartition("-of-")[2], []).append(name)
    groups = [names, *(group for group in series.values() if group != names)]
    sets = [_of_files(folder, "loose", INDEX, group) for group in groups if group]
    return tuple(one for one in sets if not one.problems)


def _of_files(
    folder: Path, kind: Kind, entry: str, names: list[str], places: Mapping[str, str] | None = None
) -> WeightSet:
    """places: which file holds which tensor; None takes whatever the files hold."""
    tensors: dict[str, Stored] = {}
    problems: list[str] = []
    for name in names:
        try:
            found = _pickled(folder / name) if kind.startswith("bin") else _header(folder / name)
        except Exception as err:  # a damaged file: safetensors and torch have many errors for it
            reason = str(err).strip().splitlines()[0][:120] if str(err).strip() else type(err).__name__
            if "weights_only" in reason.lower() or "weights only" in reason.lower():
                reason = "damaged, or more than weights; nothing of it was run"
            problems.append(f"{name} is not readable ({reason})")
            continue
        if places is not None:
            found = {tensor: stored for tensor, stored in found.items() if places.get(tensor) == name}
        twice = sorted(found.keys() & tensors.keys())
        if twice and kind == "loose":
            problems.append(f"{name} holds tensors that other files hold too: {some(twice)}")
        tensors |= found
    return WeightSet(kind, folder, entry, tuple(names), tensors, tuple(problems))


def _header(file: Path) -> dict[str, Stored]:
    with safe_open(file, framework="pt") as stream:
        slices = {name: stream.get_slice(name) for name in stream.keys()}  # noqa: SIM118 - not a dict
        return {n: Stored(file.name, one.get_dtype(), tuple(one.get_shape())) for n, one in slices.items()}


def _pickled(file: Path) -> dict[str, Stored]:
    module = _read_pickle(file)
    return {
        name: Stored(file.name, DTYPE_NAMES.get(t.dtype, str(t.dtype)), tuple(t.shape))
        for name, t in module.items()
    }


def _read_pickle(file: Path) -> dict[str, Tensor]:
    with file.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            raise ValueError("not a zip file of torch >= 1.6: load and save it again with torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how old files were written is not our reader's news
        payload: Any = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    if not isinstance(payload, Mapping) or not all(isinstance(t, Tensor) for t in payload.values()):
        raise ValueError("not a state dict: expected names and tensors only")
    return {str(name): tensor.detach() for name, tensor in payload.items()}


def count(names: list[str], verbs: tuple[str, str] = ("", "")) -> str:
    """ "1 tensor" or "n tensors", and the verb that goes with it."""
    return f"1 tensor{verbs[0]}" if len(names) == 1 else f"{len(names)} tensors{verbs[1]}"


def some(names: list[str]) -> str:
    """At most three names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
