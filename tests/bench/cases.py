"""The cases of the engine's benchmark; each is built and run in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from cogbatch import Engine, GenerationParams
from cogbatch.engine.memory import token_bytes
from cogbatch.images import load_image
from cogbatch.model.processing_cogvlm import preprocess_image
from tests.bench.ending import Ending, hazard, register
from tests.bench.expanded import Prompt
from tests.bench.expanded import generate as generate_expanded
from tests.bench.peak import anonymous_kb, forget_peak, peak_anonymous_kb
from tests.bench.roofline import Work, copy_bytes_per_s, stages
from tests.bench.setting import Setting, bench_model
from tests.bench.stages import Watched
from tests.tiny import ByteTokenizer

Found = dict[str, Any]  # what one run came to, by name; numbers, and dicts of numbers
Run = Callable[[int, int], Found]  # (new tokens, round) -> what was found
WARM_UP = -1  # instead of a round


@dataclass(frozen=True)
class Case:
    """What runs in one process.

    Args:
        method: a key of METHODS. k: candidates. items: at a time. shared: about one image.
    """

    method: str
    k: int
    items: int = 1
    shared: bool = False

    @property
    def name(self) -> str:
        return f"{self.method} k={self.k} items={self.items}{' shared' if self.shared else ''}"


class FirstToken:
    """Remembers when it was first called."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._start = time.perf_counter()
        self.seconds: float | None = None

    def __call__(self, *_: object) -> None:
        if self.seconds is None:
            self.seconds = time.perf_counter() - self._start


def measured(run: Run, new_tokens: int, round_index: int, *, base_kb: int) -> Found:
    """What `run` found, its seconds, and the most memory beyond base_kb that it held."""
    forget_peak()
    start = time.perf_counter()
    found = run(new_tokens, round_index)
    found.setdefault("seconds", time.perf_counter() - start)
    peak_kb = peak_anonymous_kb()
    return found | {"peak_mb": peak_kb / 1e3, "beyond_model_mb": (peak_kb - base_kb) / 1e3}


def engine_case(setting: Setting, case: Case) -> Run:
    """Our engine; all items at once."""
    return _engine(setting, case, "sample", items=case.items, ends=False)


def stream_case(setting: Setting, case: Case) -> Run:
    """Our engine with many items, case.items at a time; no row ends early."""
    return _engine(setting, case, "ending", items=setting.stream_items, ends=False)


def ending_case(setting: Setting, case: Case) -> Run:
    """The same, but rows end at random, after half their tokens on average."""
    return _engine(setting, case, "ending", items=setting.stream_items, ends=True)


def _engine(setting: Setting, case: Case, strategy: str, *, items: int, ends: bool) -> Run:
    register("ending", Ending(hazard(setting.new_tokens)))
    first = FirstToken()
    engine = Engine(bench_model(setting), ByteTokenizer(), max_rows=case.k * case.items, on_progress=first)
    watched = Watched(engine)
    requests = setting.requests(items, shared=case.shared)
    fixed = GenerationParams(num_candidates=case.k, strategy=strategy, ignore_eos=not ends)

    def run(new_tokens: int, round_index: int) -> Found:
        first.restart()
        watched.restart()
        given = requests[: case.items] if round_index == WARM_UP else requests
        outputs = list(engine.generate(given, replace(fixed, max_new_tokens=new_tokens)))
        tokens = sum(candidate.num_tokens for output in outputs for candidate in output.candidates)
        rows = sum(len(output.candidates) for output in outputs)
        if rows != len(given) * case.k or (not ends and tokens != rows * new_tokens):
            raise SystemExit(f"the engine did not do the work: {[output.error for output in outputs]}")
        return {
            "tokens": tokens,
            "first_token_s": first.seconds,
            "stages": dict(watched.seconds),
            "kv_bytes": watched.kv_bytes,
        }

    return run


def generate_case(setting: Setting, case: Case) -> Run:
    """transformers' generate, one item a call, k sequences each; the items in turn."""
    return _generate(setting, sequences=case.k, calls=1, scale=1)


def calls_case(setting: Setting, case: Case) -> Run:
    """k separate calls for one sequence each, of which up to two are made, and count for all."""
    calls = min(case.k, 2)
    return _generate(setting, sequences=1, calls=calls, scale=case.k / calls)


def _generate(setting: Setting, *, sequences: int, calls: int, scale: float) -> Run:
    model = bench_model(setting)
    prompts = expanded_prompts(setting, len(setting.prompt_tokens))
    first = FirstToken()

    class Watch(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            del scores
            first()
            return torch.zeros(len(input_ids), dtype=torch.bool)

    def run(new_tokens: int, round_index: int) -> Found:
        first.restart()
        prompt = prompts[round_index % len(prompts)]
        start = time.perf_counter()
        for _ in range(calls):
            made = model.generate(
                input_ids=prompt.ids,
                token_type_ids=prompt.types,
                pixel_values=prompt.pixels,
                do_sample=True,
                top_k=0,
                num_return_sequences=sequences,
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
                stopping_criteria=StoppingCriteriaList([Watch()]),
            )
            if made.shape != (sequences, prompt.ids.shape[1] + new_tokens):
                raise SystemExit(f"generate did not do the work: {tuple(made.shape)}")
        return {
            "seconds": scale * (time.perf_counter() - start),
            "tokens": round(scale * calls) * sequences * new_tokens,
            "first_token_s": first.seconds,
        }

    return run


def expanded_case(setting: Setting, case: Case) -> Run:
    """One prefill an item, then a static cache of k copies of it."""
    model = bench_model(setting)
    prompts = expanded_prompts(setting, case.items)
    first = FirstToken()

    def run(new_tokens: int, _: int) -> Found:
        first.restart()
        tokens, kv_bytes = generate_expanded(
            model, prompts, num_rows=case.k, new_tokens=new_tokens, on_token=first
        )
        return {"tokens": tokens.numel(), "first_token_s": first.seconds, "kv_bytes": kv_bytes}

    return run


def products_case(setting: Setting, case: Case) -> Run:
    """No engine: the matrix products that it would need, stage by stage, and a copy."""
    work = Work(
        setting.config,
        tuple(setting.text_tokens(item) for item in range(case.items)),
        case.k,
        setting.new_tokens,
    )

    def run(*_: int) -> Found:
        seconds = {stage.name: stage.passes * stage.pass_seconds() for stage in stages(work)}
        return {"products_s": seconds, "copy_bytes_per_s": copy_bytes_per_s(work.step_bytes)}

    return run


METHODS: Mapping[str, Callable[[Setting, Case], Run]] = {
    "engine": engine_case,
    "generate": generate_case,
    "calls": calls_case,
    "expanded": expanded_case,
    "stream": stream_case,
    "ending": ending_case,
    "products": products_case,
}


def expanded_prompts(setting: Setting, count: int) -> Sequence[Prompt]:
    """The items' prompts as the engine's template makes them."""
    block = setting.config.num_image_tokens
    prompts = []
    for request in setting.requests(count):
        ids = torch.tensor([[1, *[0] * block, *ByteTokenizer().encode(request.prompt)]])
        types = torch.zeros_like(ids)
        types[:, 1 : 1 + block] = 1
        assert request.image is not None
        pixels = preprocess_image(load_image(request.image), setting.image_size)[None]
        prompts.append(Prompt(ids, types, pixels))
    return prompts


def expanded_bytes(setting: Setting, case: Case) -> int:
    """Keys and values that the expanded case allocates."""
    config = setting.config
    longest = 1 + config.num_image_tokens + max(setting.text_tokens(item) for item in range(case.items))
    rows = case.k * case.items
    return rows * (longest + setting.new_tokens - 1) * token_bytes(config, torch.float32)


def serve(connection: Any, setting: Setting, case: Case, threads: int) -> None:
    """Runs a case whenever it is told to, until it is told None: the main function of its process."""
    torch.set_num_threads(threads)
    base_kb = 0
    try:
        run = METHODS[case.method](setting, case)
        base_kb = anonymous_kb()
        run(min(setting.new_tokens, 3), WARM_UP)
        connection.send(asdict(case))
        while (round_index := connection.recv()) is not None:
            connection.send(measured(run, setting.new_tokens, round_index, base_kb=base_kb))
    except EOFError:  # nobody is there any more
        return
    except (Exception, SystemExit) as problem:
        connection.send(f"{case.name}: {type(problem).__name__}: {problem}")
