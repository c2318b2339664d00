"""A PyTorch file, read as data: memory-mapped where the format allows, and nothing in it is run."""

from __future__ import annotations

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cogbatch.errors import CheckpointError


class _Inert:
    """Stands in for a training framework's object; whatever the file does to it has no effect."""

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None: ...


# What training files hold besides tensors and plain containers: random states, scalars and option lists.
# All of these only build values. numpy 1 wrote the same functions under numpy.core.
_ALLOWED: dict[str, Callable[..., object]] = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "numpy._core.multiarray._reconstruct": np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    "numpy.core.multiarray._reconstruct": np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    "numpy._core.multiarray.scalar": np._core.multiarray.scalar,  # type: ignore[attr-defined]
    "numpy.core.multiarray.scalar": np._core.multiarray.scalar,  # type: ignore[attr-defined]
    "argparse.Namespace": argparse.Namespace,
}
_DTYPES = tuple({type(np.dtype(code)) for code in np.typecodes["All"]})
_INERT_MODULES = ("deepspeed.", "sat.", "apex.", "megatron.")


def load_torch_file(file: Path) -> object:
    """torch.load that never runs code from the file: weights_only, with an allow-list for training files.

    Raises:
        CheckpointError: truncated, damaged, or it asks for something that is not weights.
    """
    try:
        with file.open("rb") as stream:
            is_zip = stream.read(4) == b"PK\x03\x04"
        allowed = _allow_list(file) if is_zip else []
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how old files were written is not our reader's news
            # Compressed records are read, not mapped; torch checks the size of those that it reads.
            maps = is_zip and _can_be_mapped(file)
            return torch.load(file, map_location="cpu", mmap=maps, weights_only=True)
    except CheckpointError:
        raise
    except (
        Exception
    ) as err:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError, ... for bad bytes
        reason = str(err).splitlines()[0][:200] if str(err) else type(err).__name__
        if "weights_only" in reason:  # torch's advice to run whatever the file holds is not ours
            reason = "not only weights, or damaged"
        size = file.stat().st_size if file.exists() else 0
        raise CheckpointError(
            f"{file}: not a readable PyTorch file ({size:,} bytes: {reason}); truncated? copy it again"
        ) from err


class _StorageReader(pickle.Unpickler):
    """Notes the storages that a pickle asks for. Runs nothing: every class but element types is _Inert."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.size_bytes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        storage = getattr(torch, name, None) if module == "torch" and name.endswith("Storage") else None
        return _Inert if storage is None else storage

    def persistent_load(self, pid: Any) -> object:
        _, kind, key, _, length = pid
        element_bytes = kind.dtype.itemsize if hasattr(kind, "dtype") else 1
        self.size_bytes[str(key)] = int(length) * element_bytes
        return _Inert()


def _can_be_mapped(file: Path) -> bool:
    """Whether all records are stored as they are.

    Raises CheckpointError: a record has not the size of its storage, which a map does not notice.
    """
    with zipfile.ZipFile(file) as archive:
        records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        root = archive.namelist()[0].partition("/")[0]
        with archive.open(f"{root}/data.pkl") as stream:
            reader = _StorageReader(stream)
            reader.load()
    for key, size_bytes in reader.size_bytes.items():
        record = records.get(f"data/{key}")
        if record is None or record.file_size != size_bytes:
            found = "missing" if record is None else f"{record.file_size:,} bytes long"
            raise CheckpointError(
                f"{file}: damaged: record data/{key} is {found}, expected {size_bytes:,} bytes; copy it again"
            )
    return all(record.compress_type == zipfile.ZIP_STORED for record in records.values())


def _allow_list(file: Path) -> list[Any]:
    allowed: list[Any] = [(value, name) for name, value in _ALLOWED.items()]
    allowed += _DTYPES
    for name in torch.serialization.get_unsafe_globals_in_checkpoint(file):
        if name in _ALLOWED or name.startswith("numpy.dtypes."):
            continue
        if not name.startswith(_INERT_MODULES):
            raise CheckpointError(f"{file}: asks to load {name}, which is not weights; nothing of it was run")
        allowed.append((_Inert, name))
    return allowed
