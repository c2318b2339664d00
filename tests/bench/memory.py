"""What fits where, and how near computed working memory is to measured peaks: python -m tests.bench.memory

Models have the real widths and few layers, random weights, and a process of their own; peaks are torch's own
count of what its tensors hold (the profiler's), one thread. --write puts both tables into docs/memory.md.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from cogbatch.decoding.rng import ItemRandom, Purpose
from cogbatch.decoding.warpers import warp
from cogbatch.engine import memory
from cogbatch.engine.cache import ItemCache
from cogbatch.engine.fit import CARDS, Footprint, fit_cards, footprint, gigabytes
from cogbatch.engine.quantized import quantize, replace_linears
from cogbatch.engine.runner import Runner
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.types import GenerationParams, Quantization, QuantizationType

DOCS = Path(__file__).parents[2] / "docs" / "memory.md"
TYPES: tuple[QuantizationType | None, ...] = (None, "int8", "nf4")
ROWS, TEXT_TOKENS, NEW_TOKENS = 64, 700, 4

V1: dict[str, Any] = {}
V2: dict[str, Any] = {
    "vocab_size": 128_256,
    "intermediate_size": 14_336,
    "num_multi_query_heads": 8,
    "vision_expert_qkv_bias": True,
    "rope_theta": 500_000.0,
    "max_position_embeddings": 8192,
    "vision_config": {"image_size": 1344, "num_positions": 9217, "downsample": True},
}
MODELS = {"CogVLM 17B": V1, "CogVLM2 19B": V2}
SMALL: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_attention_heads": 8,
    "vision_config": {"hidden_size": 256, "intermediate_size": 1024, "num_heads": 4},
}
# (model, dtype, quantization). Quantized layers are slow on a CPU: small ones.
MEASURED: tuple[tuple[str, str, QuantizationType | None], ...] = (
    ("CogVLM 17B", "float32", None),
    ("CogVLM 17B", "bfloat16", None),
    ("CogVLM2 19B", "bfloat16", None),
    ("small", "bfloat16", None),
    ("small", "bfloat16", "int8"),
    ("small", "bfloat16", "nf4"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/memory.md")
    parser.add_argument("--measure", nargs=3, metavar=("MODEL", "DTYPE", "QUANTIZATION"))
    options = parser.parse_args()
    if options.measure:
        model, dtype, quantization = options.measure
        print(json.dumps(measure(model, dtype, None if quantization == "none" else quantization)))
        return
    tables = {"fits": list(fits_table()), "peaks": list(peaks_table())}
    for lines in tables.values():
        print("\n".join([*lines, ""]))
    if options.write:
        text = DOCS.read_text(encoding="utf-8")
        for name, lines in tables.items():
            text = replaced(text, name, lines)
        DOCS.write_text(text, encoding="utf-8")


def replaced(text: str, name: str, lines: list[str]) -> str:
    """The text with these lines between the markers of a table."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    return re.sub(f"{start}.*?{end}", "\n".join([start, *lines, end]), text, flags=re.DOTALL)


def between(text: str, name: str) -> list[str]:
    """The lines that are there."""
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- end of {name} -->")[0].splitlines()


def fits_table() -> Iterator[str]:
    """Items at a time, by card: 8 candidates of 128 new tokens, in bfloat16."""
    params = GenerationParams(num_candidates=8, max_new_tokens=128)
    yield (
        "| model | weights in | weights | keys and values of an item | expanded | "
        + " | ".join(card.name for card in CARDS)
        + " |"
    )
    yield "|" + "---|" * (5 + len(CARDS))
    for name, values in MODELS.items():
        for kind in TYPES:
            need = footprint(
                CogVLMConfig(**values),
                torch.bfloat16,
                params,
                quantization=None if kind is None else Quantization(kind),
                text_tokens=20,
            )
            yield "| " + " | ".join([name, kind or "bfloat16", *_fit_cells(need)]) + " |"


def _fit_cells(need: Footprint) -> Iterator[str]:
    for size in (need.weight_bytes, need.item_bytes, need.expanded_item_bytes):
        yield gigabytes(size)
    for card in fit_cards(need):
        yield str(card.items or "no")


def peaks_table() -> Iterator[str]:
    """Measured peaks beside keys and values, and the bound that is computed."""
    yield "| model | weights in | dtype | image | prompt behind it | prompt alone | step | bound | of peak |"
    yield "|" + "---|" * 9
    for model, dtype, kind in MEASURED:
        command = [sys.executable, "-m", "tests.bench.memory", "--measure", model, dtype, kind or "none"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        bound = found.pop("bound")
        cells = [model, kind or dtype, dtype, *(f"{size / 1e6:.0f} MB" for size in (*found.values(), bound))]
        yield "| " + " | ".join([*cells, f"{bound / max(found.values()):.2f}"]) + " |"


def measure(model_name: str, dtype_name: str, kind: QuantizationType | None) -> dict[str, int]:
    """Peak bytes of each stage beside keys and values, and the bound, of a model with three layers."""
    torch.set_num_threads(1)
    dtype = getattr(torch, dtype_name)
    model = shallow_model({**MODELS, "small": SMALL}[model_name], dtype, kind)
    config, runner = model.config, Runner(model)
    image_length, token = memory.image_tokens(config), memory.token_bytes(config, dtype)
    picture, image_peak = peak(lambda: runner.prefill_image(1, pixels(config)))
    length = image_length + TEXT_TOKENS
    types = [0, *[1] * (image_length - 1), *[0] * TEXT_TOKENS]
    prefix, behind_peak = peak(lambda: runner.prefill_text([5] * length, types, behind=picture))
    _, alone_peak = peak(lambda: runner.prefill_text([5] * length, [0] * length))
    cache = ItemCache(runner.geometry, prefix, max_new_tokens=NEW_TOKENS)
    cache.move_rows([0] * ROWS)
    runner.decode([5] * ROWS, [cache], deterministic=True)  # measures its products once
    cache.move_rows(list(range(ROWS)))
    _, step_peak = peak(lambda: choose(runner.decode([5] * ROWS, [cache], deterministic=True)[0]))
    return {
        "image": image_peak - image_length * token,
        "behind": behind_peak - TEXT_TOKENS * token,
        "alone": alone_peak - length * token,
        "step": step_peak,
        "bound": memory.activation_bytes(
            config,
            dtype,
            rows=ROWS,
            prompt_tokens=length,
            quantization=None if kind is None else Quantization(kind),
        )
        + memory.float32_sum_bytes(config, dtype, prompt_tokens=length),
    }


def shallow_model(
    values: dict[str, Any], dtype: torch.dtype, kind: QuantizationType | None
) -> CogVLMForCausalLM:
    """Three layers and a tower of two, with weights that are random and not empty."""
    vision = {**values.get("vision_config", {}), "num_hidden_layers": 2}
    config = CogVLMConfig(**{**values, "num_hidden_layers": 3, "vision_config": vision})
    with torch.device("meta"):
        model = CogVLMForCausalLM(config).to(dtype)
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    if kind is not None:
        replace_linears(model, Quantization(kind), dtype=dtype)
    layers = dict(model.named_modules())
    for name, shape in shapes.items():
        weight = torch.randn(shape, dtype=dtype) * 0.02
        layer, last = layers[name.rpartition(".")[0]], name.rpartition(".")[2]
        if type(layer).__module__.startswith("bitsandbytes") and last == "weight":
            quantize(layer, weight, torch.device("cpu"))
        else:
            setattr(layer, last, torch.nn.Parameter(weight, requires_grad=False))
    return model.eval()


def choose(logprobs: torch.Tensor) -> torch.Tensor:
    """A draw for each row under the costliest warper."""
    params = GenerationParams(num_candidates=len(logprobs), temperature=0.8, typical_p=0.9)
    warped = warp(logprobs, torch.zeros(len(logprobs), 1, dtype=torch.long), params)
    return ItemRandom(0, "a").draw(warped, purpose=Purpose.TOKEN, step=1, streams=range(len(logprobs)))


def pixels(config: CogVLMConfig) -> torch.Tensor:
    return torch.zeros(3, config.vision_config.image_size, config.vision_config.image_size)


def peak(run: Callable[[], Any]) -> tuple[Any, int]:
    """What run returns, and the most bytes that tensors made in it held at once, by torch's own count."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = run()
    assert recorded.profiler is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return result, most


if __name__ == "__main__":
    main()
