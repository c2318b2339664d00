"""bitsandbytes' layers in place of a model's, filled weight by weight."""

from __future__ import annotations

import logging
from types import ModuleType

import torch
from torch import nn

from cogbatch.engine.quantization import DeviceKind, nf4_block, part_of
from cogbatch.types import Quantization, QuantizationType

_TURING = (7, 5)


def device_kind(device: torch.device) -> DeviceKind:
    """What a device is to bitsandbytes."""
    if device.type == "cpu":
        return "cpu"
    capability = torch.cuda.get_device_capability(device)  # never run: no GPU at hand
    return "cuda" if capability >= _TURING else "cuda before 7.5"


def replace_linears(model: nn.Module, quantization: Quantization, *, dtype: torch.dtype) -> None:
    """Puts empty layers on the meta device where weights are to be quantized; see `quantize`.

    Args:
        model: on the meta device too. dtype: of activations.
    """
    library = _bitsandbytes()
    for name, linear in list(model.named_modules()):
        if part_of(f"{name}.weight") in quantization.parts:
            assert isinstance(linear, nn.Linear)
            model.set_submodule(name, _empty(library, linear, quantization.type, dtype))


def quantize(layer: nn.Module, weight: torch.Tensor, device: torch.device) -> None:
    """Fills a layer of `replace_linears`: no more than this weight is ever on the device in full.

    Args:
        weight: [out, in] on the CPU, in the dtype of activations.
    """
    library = _bitsandbytes()
    if isinstance(layer, library.nn.Linear8bitLt):
        reduced = library.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        block = nf4_block(weight.shape[1])
        reduced = library.nn.Params4bit(weight, quant_type="nf4", blocksize=block, module=layer)
    layer.weight = reduced.to(device)


def _empty(library: ModuleType, linear: nn.Linear, kind: QuantizationType, dtype: torch.dtype) -> nn.Module:
    sizes = {"input_features": linear.in_features, "output_features": linear.out_features}
    bias = linear.bias is not None
    if kind == "int8":
        # No outliers: which columns hold them is asked of all rows together, so that a row's numbers would
        # depend on its neighbours, and the host would have to wait for the answer.
        layer: nn.Module = library.nn.Linear8bitLt(
            **sizes, bias=bias, has_fp16_weights=False, threshold=0.0, device="meta"
        )
    else:
        layer = library.nn.Linear4bit(
            **sizes, bias=bias, compute_dtype=dtype, quant_type="nf4", device="meta"
        )
        # On some CPUs it would repack weights and compute in bfloat16 whatever dtype was asked for, and fail
        # where sizes are no multiples of 64.
        layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment] # no module, no tensor
    return layer


def _bitsandbytes() -> ModuleType:
    # It says with every product that activations are cast to float16, and at its import what it would rather
    # download from the hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes  # optional, and slow to import

    module: ModuleType = bitsandbytes
    return module
