"""Hugging Face directory, or weights in memory, to a SAT directory as SAT itself writes it, of any number of
model-parallel ranks. Tensors are mapped from their files and written one by one.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from cogbatch.checkpoint.convert import rotary_table
from cogbatch.checkpoint.manifest import require_intact, weight_files
from cogbatch.checkpoint.names import TensorName, is_rotary, tensor_names, vision_config
from cogbatch.checkpoint.ranks import rank_shape, shares
from cogbatch.checkpoint.safetensors_writer import DTYPE_NAMES, TensorSpec
from cogbatch.checkpoint.sat_config import to_sat
from cogbatch.checkpoint.source import is_finite
from cogbatch.checkpoint.staging import check_apart, staged_directory
from cogbatch.checkpoint.torch_writer import torch_file
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.directory import read_config

# Elements that are checked at a time.
_BLOCK = 1 << 20


def export_sat(
    model: str | Path | Mapping[str, Tensor],
    sat_dir: str | Path,
    *,
    config: CogVLMConfig | None = None,
    model_parallel_size: int = 1,
    iteration: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes model_config.json, latest and <iteration>/mp_rank_XX_model_states.pt. Returns sat_dir.

    Args:
        model: a model directory, or a state dict with Hugging Face names; then config is required.
        config: of a state dict only; a directory has its own.
        model_parallel_size: number of ranks, and of files; it must divide heads, vocabulary and inner sizes.
        iteration: folder name, and what `latest` says; above 0.
        overwrite: replace an existing SAT directory.
        on_progress: called with (bytes written, bytes in total) after each tensor.

    Raises:
        ValueError: config given with a directory or missing with a state dict; iteration below 1; the model
            cannot be shared by this many ranks.
        CheckpointError: tensors are missing, unknown or misshapen, a directory differs from its
            manifest, SAT cannot express the configuration, or sat_dir exists.
    """
    if iteration < 1:
        raise ValueError(f"iteration is {iteration}, expected 1 or more")
    if isinstance(model, Mapping) == (config is None):
        raise ValueError("config must be given with a state dict, and only then")
    target = Path(sat_dir).expanduser()
    if isinstance(model, Mapping):
        state, where = model, "state dict"
    else:
        folder = Path(model).expanduser()
        check_apart(folder, target)
        config = read_config(folder)
        require_intact(folder)
        state, where = _mapped(folder), str(folder)
    assert config is not None
    values = to_sat(config, model_parallel_size=model_parallel_size)
    _check_ranks(config, model_parallel_size)
    module = to_sat_state(state, config, where=where)
    names = tensor_names(config)
    specs = [
        TensorSpec(name.sat, module[name.sat].dtype, rank_shape(name, model_parallel_size)) for name in names
    ]
    size_bytes = model_parallel_size * sum(spec.size_bytes for spec in specs)
    with staged_directory(
        target, overwrite=overwrite, marker="model_config.json", size_bytes=size_bytes
    ) as out:
        (out / "model_config.json").write_text(json.dumps(values, indent=4), encoding="utf-8")
        (out / "latest").write_text(str(iteration), encoding="utf-8")
        (out / str(iteration)).mkdir()
        _write_ranks(
            out / str(iteration),
            specs,
            zip(names, module.values(), strict=True),
            num_ranks=model_parallel_size,
            where=where,
            on_progress=on_progress,
        )
    return target


def to_sat_state(
    state: Mapping[str, Tensor], config: CogVLMConfig, *, where: str = "state dict"
) -> OrderedDict[str, Tensor]:
    """SAT's state dict from Hugging Face tensors: SAT's names, in SAT's order; no bytes are copied.

    Raises CheckpointError: a tensor is missing, has no SAT name, is not of a floating-point type, or has
    another shape than config says.
    """
    names = tensor_names(config)
    expected = {name.hf: name for name in names if name.hf is not None}
    missing = [hf for hf in expected if hf not in state]
    extra = [hf for hf in state if hf not in expected and not is_rotary(hf)]
    for problem, keys in (("lacks", missing), ("holds tensors that SAT has no name for:", extra)):
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise CheckpointError(
                f"{where} {problem} {', '.join(keys[:5])}{more}; is the configuration its own?"
            )
    module: OrderedDict[str, Tensor] = OrderedDict()
    for name in names:
        tensor = _rotary(config, state) if name.hf is None else state[name.hf]
        if tuple(tensor.shape) != name.shape:
            raise CheckpointError(
                f"{where}: {name.hf!r} has shape {list(tensor.shape)}, but "
                f"its configuration means {list(name.shape)}"
            )
        if tensor.dtype not in DTYPE_NAMES:
            raise CheckpointError(
                f"{where}: {name.hf!r} has dtype {tensor.dtype}, expected float32, float16 or bfloat16; "
                "quantised weights cannot be exported, use the directory that they were made from"
            )
        module[name.sat] = tensor.detach()
    return module


def _write_ranks(
    folder: Path,
    specs: Sequence[TensorSpec],
    tensors: Iterable[tuple[TensorName, Tensor]],
    *,
    num_ranks: int,
    where: str,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """All rank files side by side, so that each tensor is read, and cut, once. specs: of one file."""
    done, total = 0, num_ranks * sum(spec.size_bytes for spec in specs)
    buffer = torch.empty(max(spec.size_bytes for spec in specs), dtype=torch.uint8)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(torch_file(folder / f"mp_rank_{rank:02d}_model_states.pt", specs))
            for rank in range(num_ranks)
        ]
        for spec, (name, tensor) in zip(specs, tensors, strict=True):
            whole = tensor.cpu()
            if not all(map(is_finite, whole.reshape(-1).split(_BLOCK))):
                raise CheckpointError(f"{where}: {name.hf!r} holds NaN or infinity; copy the model again")
            for write, views in zip(writers, shares(whole, name, num_ranks), strict=True):
                write(_joined(views, name.dim or 0, spec, buffer=buffer))
            done += num_ranks * spec.size_bytes
            if on_progress is not None:
                on_progress(done, total)


def _joined(views: list[Tensor], dim: int, spec: TensorSpec, *, buffer: Tensor) -> Tensor:
    """One rank's piece, in buffer unless its bytes lie together already.

    One buffer for all: of fresh tensors of some 20 MB, the C library's allocator gives few back, and memory
    would grow with the number of layers.
    """
    if len(views) == 1 and views[0].is_contiguous():
        return views[0]
    piece = buffer[: spec.size_bytes].view(spec.dtype).view(spec.shape)
    return torch.cat(views, dim, out=piece)


def _check_ranks(config: CogVLMConfig, num_ranks: int) -> None:
    if num_ranks < 1:
        raise ValueError(f"model_parallel_size is {num_ranks}, expected 1 or more")
    vision = vision_config(config)
    shared = {
        "num_attention_heads": config.num_attention_heads,
        "num_multi_query_heads": config.num_multi_query_heads,
        "vocab_size": config.vocab_size,
        "intermediate_size": config.intermediate_size,
        "vision_config.num_heads": vision.num_heads,
        "vision_config.intermediate_size": vision.intermediate_size,
    }
    if wrong := [f"{name} {value}" for name, value in shared.items() if value % num_ranks]:
        common = math.gcd(*shared.values())
        possible = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
        raise ValueError(
            f"model_parallel_size is {num_ranks}, which does not divide {', '.join(wrong)}; possible here: "
            f"{possible}"
        )


def _rotary(config: CogVLMConfig, state: Mapping[str, Tensor]) -> Tensor:
    """[D/2] in the model's dtype, as SAT's buffer is after `.bfloat16()` and the like.

    A table that was kept in a finer type than the weights stays in it.
    """
    exact = rotary_table(config)
    table = exact.to(state["model.embed_tokens.weight"].dtype)
    return exact if config.rope_inv_freq is not None and not torch.equal(table.float(), exact) else table


def _mapped(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a directory, its bytes left in the file until they are asked for."""
    state: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                state |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - not a dict
        except Exception as err:  # SafetensorError has no public base besides Exception
            raise CheckpointError(f"{file}: not readable as safetensors ({err}); copy it again") from err
    return state
