"""Every strategy's time against sample's, and what choosing tokens costs at large vocabularies; ratios only.

Rows are the same for all: stochastic-beam runs one more than it delivers. The end token is ignored, so every
run does the same work. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from PIL import Image

from cogbatch import Engine, GenerationParams, GenerationRequest
from cogbatch.decoding.registry import strategy_named
from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.strategy import State
from tests.bench.setting import FULL, bench_model
from tests.tiny import ByteTokenizer

ROWS, ITEMS = 8, 4
STRATEGIES: dict[str, dict[str, Any]] = {
    "sample": {},
    "arithmetic": {},
    "stochastic-beam": {"num_candidates": ROWS - 1},
    "beam": {},
    "diverse-beam": {"num_beam_groups": 4, "diversity_penalty": 0.5},
    "branch": {},
}
WARPERS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.8},
    "min_p": {"min_p": 0.05},
    "top_k": {"top_k": 50},
    "top_p": {"top_p": 0.9},
    "typical_p": {"typical_p": 0.9},
    "eta_cutoff": {"eta_cutoff": 1e-3},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 3},
}


def whole_runs(new_tokens: int) -> dict[str, Callable[[], None]]:
    """ITEMS images of the bench model with each strategy."""
    engine = Engine(bench_model(), ByteTokenizer())
    image = Image.linear_gradient("L").convert("RGB").resize((640, 480))
    requests = [GenerationRequest(str(item), image, "x" * 30) for item in range(ITEMS)]

    def case(name: str) -> Callable[[], None]:
        values = {"num_candidates": ROWS, "max_new_tokens": new_tokens, **STRATEGIES[name]}
        params = GenerationParams(strategy=name, ignore_eos=True, **values)

        def run() -> None:
            outputs = list(engine.generate(requests, params))
            if not all(output.candidates for output in outputs):
                raise SystemExit(f"{name} did not do the work: {[output.error for output in outputs]}")

        return run

    return {name: case(name) for name in STRATEGIES}


def single_steps(vocabulary: int) -> dict[str, Callable[[], None]]:
    """One step of each strategy for one item; the matrix products that a decode step of its rows takes."""
    hidden, inner = torch.randn(ROWS, FULL.hidden), torch.randn(ROWS, FULL.inner)
    outwards = [torch.randn(4 * FULL.hidden + 2 * FULL.inner, FULL.hidden) for _ in range(FULL.layers)]
    inwards = [torch.randn(FULL.hidden, FULL.inner) for _ in range(FULL.layers)]
    head = torch.randn(vocabulary, FULL.hidden)
    logprobs = (2 * torch.randn(ROWS, vocabulary)).log_softmax(-1)
    random = ItemRandom(0, "item")

    @torch.inference_mode()
    def products() -> None:
        for outward, inward in zip(outwards, inwards, strict=True):
            hidden @ outward.T
            inner @ inward.T
        hidden @ head.T

    def case(name: str, changes: dict[str, Any]) -> Callable[[], None]:
        params = GenerationParams(**{"num_candidates": ROWS, **changes})
        strategy = strategy_named(name)
        begun = State(params, frozenset())
        for step in range(4):
            rows = logprobs[: len(begun.lanes)]
            begun.advance(rows, *strategy.step(rows, begun, step, random))

        @torch.inference_mode()
        def run() -> None:
            state = deepcopy(begun)
            strategy.step(logprobs[: len(state.lanes)], state, state.step, random)

        return run

    steps = {name: case(name, changes) for name, changes in STRATEGIES.items()}
    return {
        "matrix products": products,
        **steps,
        **{f"sample {name}": case("sample", values) for name, values in WARPERS.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="of whole runs; 10 times as many of steps")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["steps", "runs"], help="one of the two parts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, object] = {"rows": ROWS, "items": ITEMS, "threads": options.threads}
    for vocabulary in () if options.only == "runs" else (32_000, 128_256):
        seconds = interleaved(single_steps(vocabulary), 10 * options.repeats)
        products = seconds.pop("matrix products")
        result[f"matrix_products_{vocabulary}_ms"] = round(1000 * products, 2)
        result[f"share_of_matrix_products_{vocabulary}"] = rounded(seconds, products)
    if options.only != "steps":
        seconds = interleaved(whole_runs(options.new_tokens), options.repeats)
        result["seconds"] = rounded(seconds, 1.0)
        result["time_over_sample"] = rounded(seconds, seconds["sample"])
    print(json.dumps(result))


def interleaved(cases: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each case; one warm-up, then rounds in which every case runs once."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_index in range(repeats + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if round_index:
                seconds[name].append(time.perf_counter() - start)
        print(f"round {round_index} of {repeats} done", file=sys.stderr)
    return {name: statistics.median(values) for name, values in seconds.items()}


def rounded(seconds: dict[str, float], unit: float) -> dict[str, float]:
    return {name: round(value / unit, 3) for name, value in seconds.items()}


if __name__ == "__main__":
    main()
