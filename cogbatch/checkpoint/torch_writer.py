"""torch.save, one tensor at a time: the same file to the byte, in the memory of one tensor.

torch.save wants every tensor at once. Its container is written here by the object that torch.save itself and
torch.package write with; in front of the tensors' bytes goes a pickle of their names, types and shapes.
torch.serialization.skip_data would leave checksums of zero behind, which unzip -t refuses.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cogbatch.checkpoint.safetensors_writer import TensorSpec, raw_bytes

_STORAGES = {
    torch.float32: torch.FloatStorage,
    torch.float16: torch.HalfStorage,
    torch.bfloat16: torch.BFloat16Storage,
}
_PICKLE_PROTOCOL = 2  # torch.save's


@contextmanager
def torch_file(path: Path, specs: Sequence[TensorSpec]) -> Iterator[Callable[[Tensor], None]]:
    """Yields write(tensor), to be called once for each spec, in order; the file is complete at the end.

    It holds {"module": OrderedDict of the tensors}, as SAT's rank files do.

    Raises OSError: the file cannot be written.
    """
    head = {
        "data.pkl": _describe(specs),
        ".format_version": b"1",
        ".storage_alignment": b"64",
        "byteorder": sys.byteorder.encode(),
    }
    left = iter(enumerate(specs))
    with ExitStack() as stack:
        with _as_os_error(path):
            # The container takes no other names; torch.save has the same way out.
            target = str(path) if str(path).isascii() else stack.enter_context(path.open("wb"))
            container = torch._C.PyTorchFileWriter(target)
            stack.callback(_end, container, path)
            for name, value in head.items():
                container.write_record(name, value, len(value))

        def write(tensor: Tensor) -> None:
            key, spec = next(left)
            assert (tensor.dtype, tuple(tensor.shape)) == (spec.dtype, spec.shape), spec.name
            with _as_os_error(path):
                # torch's type stub knows only the older storage classes
                container.write_record(f"data/{key}", _storage(tensor), spec.size_bytes)  # type: ignore[arg-type]

        yield write
        assert next(left, None) is None, f"{path}: not every tensor was written"


class _Storage(NamedTuple):
    """What a pickle says of the bytes of a tensor."""

    key: str
    dtype: torch.dtype
    num_elements: int


class _Described:
    """Stands for a tensor while its description is pickled."""

    def __init__(self, key: str, spec: TensorSpec) -> None:
        strides = [1]
        for length in reversed(spec.shape[1:]):
            strides.insert(0, strides[0] * length)
        self.shape, self.strides = spec.shape, tuple(strides[: len(spec.shape)])
        self.storage = _Storage(key, spec.dtype, spec.size_bytes // spec.dtype.itemsize)


class _Pickler(pickle.Pickler):
    """Writes what torch.save writes of a dense CPU tensor."""

    def persistent_id(self, obj: object) -> object:
        if isinstance(obj, _Storage):
            return "storage", _STORAGES[obj.dtype], obj.key, "cpu", obj.num_elements
        return None

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, _Described):
            hooks: OrderedDict[str, object] = OrderedDict()
            arguments = (obj.storage, 0, obj.shape, obj.strides, False, hooks)
            return torch._utils._rebuild_tensor_v2, arguments
        return NotImplemented


def _describe(specs: Sequence[TensorSpec]) -> bytes:
    buffer = io.BytesIO()
    tensors = OrderedDict((spec.name, _Described(str(key), spec)) for key, spec in enumerate(specs))
    _Pickler(buffer, protocol=_PICKLE_PROTOCOL).dump({"module": tensors})
    return buffer.getvalue()


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    """The bytes of the tensor and no others: a view's own storage would be the whole that it looks at."""
    return torch.frombuffer(raw_bytes(tensor), dtype=torch.uint8).untyped_storage()


def _end(container: torch._C.PyTorchFileWriter, path: Path) -> None:
    with _as_os_error(path):
        container.write_end_of_file()


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """The container reports a full disk, and whatever else goes wrong with files, as a RuntimeError."""
    try:
        yield
    except RuntimeError as err:
        raise OSError(0, f"torch's writer: {str(err).splitlines()[0]}", str(path)) from err
