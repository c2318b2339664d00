"""What quantization reduces and where it works, as data. Imports neither torch nor bitsandbytes.

Layers that hold reduced weights are made in quantized.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from cogbatch.types import Dtype, Quantization, QuantizationType, QuantizedPart

DeviceKind = Literal["cpu", "cuda", "cuda before 7.5"]

# Only the large matrices of the repeated layers, and only their weights. Kept as they are: norms, biases,
# embeddings, boi and eoi, convolutions, lm_head, and the projection between vision tower and language model
# (under 1 % of the weights, and every image passes through it).
_NAMES: dict[QuantizedPart, re.Pattern[str]] = {
    "language": re.compile(
        r"model\.layers\.\d+\.(?:self_attn\.language_expert_(?:query_key_value|dense)"
        r"|mlp\.language_mlp\.(?:gate|up|down)_proj)\.weight"
    ),
    "vision": re.compile(
        r"model\.layers\.\d+\.(?:self_attn\.vision_expert_(?:query_key_value|dense)"
        r"|mlp\.vision_mlp\.(?:gate|up|down)_proj)\.weight"
    ),
    "vit": re.compile(
        r"model\.vision\.transformer\.layers\.\d+\.(?:attention\.(?:query_key_value|dense)"
        r"|mlp\.fc[12])\.weight"
    ),
}


def part_of(tensor_name: str) -> QuantizedPart | None:
    """The part that a tensor of a model directory belongs to: language, vision or vit; None is always kept.

    language, vision: the experts of the language model's layers. vit: the layers of the vision tower.
    """
    for part, pattern in _NAMES.items():
        if pattern.fullmatch(tensor_name):
            return part
    return None


def nf4_block(width: int) -> int:
    """Weights that share a scale in a layer of so many inputs: 64, or 32.

    Raises ValueError: width is no multiple of either. On the CPU bitsandbytes 0.50 gives other weights the
    scales of their neighbours then, and says nothing.
    """
    for block in (64, 32):
        if width % block == 0:
            return block
    raise ValueError(
        f"quantization nf4 of a layer with {width} inputs: expected a multiple of 32; use int8 or other parts"
    )


@dataclass(frozen=True)
class Case:
    """A combination and what becomes of it.

    Args:
        computed: in which dtype a layer multiplies, and what leaves it. tested: in the suite.
        problem: why it is refused, and what to use instead; None: it works.
    """

    type: QuantizationType
    dtype: Dtype
    device: DeviceKind
    computed: str
    tested: bool
    problem: str | None = None


_BYTES = "exact sums of bytes"
_TO_HALF = "activations and results pass through float16 (up to 65504)"
_ON_THE_WAY = "activations pass through float16 (up to 65504)"
_NOT_FLOAT32 = (
    "bitsandbytes computes it in float16 there, and float32 would cost memory for nothing; set dtype to"
    " float16 or bfloat16, or use nf4"
)
_TURING = "it needs a card of compute capability 7.5 (Turing) or newer; use nf4"

# What bitsandbytes 0.50 does. CUDA: read in its source and installation guide, never run: no GPU at hand.
CASES = (
    Case("int8", "float32", "cpu", f"{_BYTES}; {_ON_THE_WAY}", True),
    Case("int8", "float16", "cpu", _BYTES, True),
    Case("int8", "bfloat16", "cpu", f"{_BYTES}; {_ON_THE_WAY}", True),
    Case("nf4", "float32", "cpu", "weights unpacked to float32", True),
    Case("nf4", "float16", "cpu", "weights unpacked to float16", True),
    Case("nf4", "bfloat16", "cpu", "weights unpacked to bfloat16", True),
    Case("int8", "float32", "cuda", f"{_BYTES}; {_TO_HALF}", False, _NOT_FLOAT32),
    Case("int8", "float16", "cuda", _BYTES, False),
    Case("int8", "bfloat16", "cuda", f"{_BYTES}; {_TO_HALF}", False),
    Case("nf4", "float32", "cuda", "few rows fused, many unpacked to float32", False),
    Case("nf4", "float16", "cuda", "few rows fused, many unpacked to float16", False),
    Case("nf4", "bfloat16", "cuda", "few rows fused, many unpacked to bfloat16", False),
    Case("int8", "float32", "cuda before 7.5", "", False, _TURING),
    Case("int8", "float16", "cuda before 7.5", "", False, _TURING),
    Case("int8", "bfloat16", "cuda before 7.5", "", False, _TURING),
    Case("nf4", "float32", "cuda before 7.5", "as on newer cards", False),
    Case("nf4", "float16", "cuda before 7.5", "as on newer cards", False),
    Case("nf4", "bfloat16", "cuda before 7.5", "as on newer cards, slower", False),
)


def check_quantization(
    quantization: Quantization, *, dtype: str | None, device: DeviceKind, package: str = "bitsandbytes"
) -> None:
    """Raises ValueError: the combination does not work, or package is not installed. Loads nothing.

    Args:
        dtype: None is not known yet.
    """
    if find_spec(package) is None:
        raise ValueError(
            f"quantization {quantization.type} needs {package}: pip install 'cogbatch[quantization]'"
        )
    cases = [case for case in CASES if (case.type, case.device) == (quantization.type, device)]
    dtypes = [case.dtype for case in cases]
    if dtype not in (None, *dtypes):
        raise ValueError(
            f"quantization {quantization.type} with dtype {dtype!r}: expected {', '.join(dtypes)}"
        )
    problems = [case.problem for case in cases if dtype in (None, case.dtype)]
    if all(problems):
        with_dtype = f"with dtype {dtype} " if dtype is not None else ""
        raise ValueError(
            f"quantization {quantization.type} does not work {with_dtype}on {device}: {problems[0]}"
        )


def support_table() -> list[str]:
    """The cases as a Markdown table."""
    head = ["| quantization | dtype | device | | how products are computed |", "|---|---|---|---|---|"]
    return [*head, *map(_row, CASES)]


def _row(case: Case) -> str:
    verdict = "refused" if case.problem else "tested" if case.tested else "not run"
    return f"| {case.type} | {case.dtype} | {case.device} | {verdict} | {case.problem or case.computed} |"
