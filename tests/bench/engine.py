"""Engine against transformers' generate, as ratios in one run: `make bench`. Not a test: machines are noisy.

The bench model has random weights; the end token is ignored, so every run does the same work. Repeats are
interleaved and the median counts. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from cogbatch import Engine, GenerationParams, GenerationRequest
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.model.processing_cogvlm import preprocess_image
from tests.tiny import ByteTokenizer

HIDDEN, HEADS, LAYERS, INNER, VOCAB = 512, 8, 8, 1376, 1024
CANDIDATES, NEW_TOKENS, PROMPT_TOKENS, IMAGE_SIZE = 8, 64, 30, 490


def bench_model() -> CogVLMForCausalLM:
    """The bench model of the project: 25 M language parameters, 490-px images."""
    torch.manual_seed(0)
    side = IMAGE_SIZE // 14
    config = CogVLMConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        num_hidden_layers=LAYERS,
        intermediate_size=INNER,
        template_version="base",
        vision_config={
            "image_size": IMAGE_SIZE,
            "num_positions": side * side + 1,
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_heads": 4,
            "intermediate_size": 256,
        },
    )
    return CogVLMForCausalLM(config).eval()


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model = bench_model()
    engine = Engine(model, ByteTokenizer())
    image = Image.linear_gradient("L").convert("RGB").resize((640, 480))
    prompts = ["x" * (PROMPT_TOKENS + extra) for extra in (0, 7, 3, 12)]
    params = GenerationParams(num_candidates=CANDIDATES, max_new_tokens=NEW_TOKENS, ignore_eos=True)

    block = model.config.num_image_tokens
    ids = torch.tensor([[1, *[0] * block, *ByteTokenizer().encode(prompts[0])]])
    types = torch.zeros_like(ids)
    types[:, 1 : 1 + block] = 1
    pixels = preprocess_image(image, IMAGE_SIZE)[None]
    llama = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=HIDDEN,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            num_hidden_layers=LAYERS,
            intermediate_size=INNER,
            vocab_size=VOCAB,
        )
    ).eval()

    def run_engine(count: int) -> None:
        requests = [GenerationRequest(str(i), image, prompts[i]) for i in range(count)]
        outputs = list(engine.generate(requests, params))
        generated = sum(candidate.num_tokens for output in outputs for candidate in output.candidates)
        if generated != count * CANDIDATES * NEW_TOKENS:
            raise SystemExit(f"the engine did not do the work: {[output.error for output in outputs]}")

    def run_generate(sequences: int) -> None:
        model.generate(
            input_ids=ids,
            token_type_ids=types,
            pixel_values=pixels,
            do_sample=True,
            num_return_sequences=sequences,
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
        )

    def run_separate_calls() -> None:
        for _ in range(CANDIDATES):
            run_generate(1)

    with torch.inference_mode():
        prefix = model.model.embed(ids, types, model.get_image_features(pixels))

    def prefill_engine() -> None:
        engine._runner.prefill(ids[0].tolist(), types[0].tolist(), pixels[0], max_new_tokens=NEW_TOKENS)

    @torch.inference_mode()
    def prefill_llama() -> None:
        llama(inputs_embeds=prefix, use_cache=True, logits_to_keep=1)

    seconds = interleaved(
        {
            "engine_1_item": lambda: run_engine(1),
            "engine_4_items": lambda: run_engine(4),
            "generate_k": lambda: run_generate(CANDIDATES),
            "separate_calls": run_separate_calls,
            "prefill_engine": prefill_engine,
            "prefill_llama": prefill_llama,
        },
        options.repeats,
    )
    tokens = CANDIDATES * NEW_TOKENS
    result = {
        "k": CANDIDATES,
        "new_tokens": NEW_TOKENS,
        "threads": options.threads,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "engine_tokens_per_s": round(tokens / seconds["engine_1_item"], 1),
        "engine_4_items_tokens_per_s": round(4 * tokens / seconds["engine_4_items"], 1),
        "generate_over_engine": round(seconds["generate_k"] / seconds["engine_1_item"], 2),
        "separate_calls_over_engine": round(seconds["separate_calls"] / seconds["engine_1_item"], 2),
        "generate_over_engine_4_items": round(4 * seconds["generate_k"] / seconds["engine_4_items"], 2),
        "prefill_over_llama": round(seconds["prefill_engine"] / seconds["prefill_llama"], 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
