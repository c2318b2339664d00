"""The rotary tables that official code finds in the files: absent ones come back as uninitialised memory.

A present, finite table is no ill, whatever its rounding.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cogbatch.checkpoint.convert import rotary_table
from cogbatch.checkpoint.doctor.changes import Changes
from cogbatch.checkpoint.doctor.finding import Finding
from cogbatch.checkpoint.doctor.geometry import absent_layers
from cogbatch.checkpoint.doctor.state import State, missing
from cogbatch.checkpoint.doctor.stray import rename_single, write_index
from cogbatch.checkpoint.doctor.weights import some
from cogbatch.checkpoint.names import rotary_names
from cogbatch.checkpoint.safetensors_writer import DTYPE_NAMES, raw_bytes

ROTARY_FILE = "model-rotary.safetensors"
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
_WHY = (
    "official code takes the table from the file, and uninitialised memory where there is none; "
    "cogbatch and its code compute it"
)


def find_missing_rotary_tables(state: State) -> Finding | None:
    """Tables [D/2] of layers that have none."""
    if state.config is None or state.chosen is None or not _is_complete(state):
        return None
    absent = [name for name in rotary_names(state.config) if name not in state.chosen.tensors]
    if not absent:
        return None
    return Finding(
        "inv_freq",
        f"rotary tables of {len(absent)} layers are missing from {state.chosen.entry}: {some(absent)}",
        _WHY,
        f"adds them in {ROTARY_FILE}; no other tensor is written",
        (state.chosen.entry, ROTARY_FILE),
        lambda changes: _add(absent, state, changes),
    )


def find_broken_rotary_tables(state: State) -> Finding | None:
    """Tables that hold NaN or infinity."""
    if state.config is None or state.chosen is None or not _is_complete(state):
        return None
    read = state.chosen.reader()
    broken = [
        name
        for name in rotary_names(state.config)
        if name in state.chosen.tensors and not bool(torch.isfinite(read(name)).all())
    ]
    if not broken:
        return None
    files = tuple(sorted({state.chosen.tensors[name].file for name in broken}))
    return Finding(
        "inv_freq",
        f"rotary tables of {len(broken)} layers hold NaN or infinity: {some(broken)}",
        _WHY,
        f"corrects only the tables inside {some(list(files))}, of which no *.bak is kept",
        files,
        lambda changes: _overwrite(broken, state, changes),
    )


def _is_complete(state: State) -> bool:
    """Whether nothing but rotary tables can be missing: which layers need one is not known before."""
    config, weights = state.config, state.chosen
    if config is None or weights is None or weights.problems:
        return False
    return not absent_layers(config, weights.shapes) and not missing(config, weights)


def _add(names: list[str], state: State, changes: Changes) -> None:
    config, weights = state.config, state.chosen
    assert config is not None
    assert weights is not None
    table = rotary_table(config)
    places = {name: stored.file for name, stored in weights.tensors.items()}
    with changes.staging() as folder:
        _save(dict.fromkeys(names, table), folder / ROTARY_FILE)
        changes.put(folder / ROTARY_FILE)
    places |= dict.fromkeys(names, ROTARY_FILE)
    size_bytes = weights.tensor_bytes + len(names) * table.nbytes
    if weights.kind == "single":
        rename_single(places, size_bytes, changes)
    else:
        write_index(places, size_bytes, changes)


def _save(tables: Mapping[str, Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: table.clone() for name, table in tables.items()}, file, metadata={"format": "pt"})


def _overwrite(names: list[str], state: State, changes: Changes) -> None:
    """A copy of each file with these bytes changed, in the place of the file."""
    config, weights = state.config, state.chosen
    assert config is not None
    assert weights is not None
    table = rotary_table(config)
    for file in sorted({weights.tensors[name].file for name in names}):
        changes.need_room((state.folder / file).stat().st_size)
        with changes.staging() as folder:
            shutil.copyfile(state.folder / file, folder / file)
            with (folder / file).open("r+b") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(length))
                for name in names:
                    if weights.tensors[name].file == file:
                        stream.seek(8 + length + header[name]["data_offsets"][0])
                        stream.write(raw_bytes(table.to(_DTYPES[weights.tensors[name].dtype])))
            changes.replace_copy(folder / file)
