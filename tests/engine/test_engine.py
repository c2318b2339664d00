"""The engine on tiny random models: the model's own numbers, in any company; errors stay in their row."""

import io
import itertools
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from cogbatch import Engine, GenerationParams, GenerationRequest, RequestOutput
from cogbatch.engine.cache import ItemCache
from cogbatch.engine.runner import Runner
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.model.processing_cogvlm import encode_prompt, preprocess_image
from tests.tiny import ByteTokenizer, tiny_model

PARAMS = GenerationParams(num_candidates=5, max_new_tokens=12, temperature=1.3, seed=3)


def picture(seed: int) -> Image.Image:
    return Image.frombytes("RGB", (60, 40), random.Random(seed).randbytes(60 * 40 * 3))


def requests(count: int = 10) -> list[GenerationRequest]:
    """Text-only, shared and own images, other k, lengths and seeds, all mixed."""
    return [
        GenerationRequest(
            id=f"item {i}",
            image=None if i % 4 == 0 else picture(i % 3),
            prompt="why? " * (i % 5),
            params=replace(PARAMS, num_candidates=1 + i % 7, max_new_tokens=6 + i) if i % 3 == 0 else None,
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module", params=["v1", "v2"])
def model(request: pytest.FixtureRequest) -> CogVLMForCausalLM:
    return tiny_model(v2=request.param == "v2")


@pytest.fixture(scope="module")
def engine(model: CogVLMForCausalLM) -> Engine:
    return Engine(model, ByteTokenizer())


def only(outputs: Iterator[RequestOutput]) -> RequestOutput:
    (output,) = outputs
    return output


def teacher_forced(model: CogVLMForCausalLM, request: GenerationRequest, tokens: tuple[int, ...]) -> float:
    """Log-probability of tokens by one plain forward pass of the model."""
    config = model.config
    image = 0 if request.image is None else config.num_image_tokens
    ids, types = encode_prompt(
        ByteTokenizer(), request.prompt, bos_token_id=1, pad_token_id=0, num_image_tokens=image
    )
    pixels = None if request.image is None else preprocess_image(request.image, 56)[None]  # type: ignore[arg-type]
    with torch.no_grad():
        logits = model(
            torch.tensor([[*ids, *tokens]]),
            token_type_ids=torch.tensor([[*types, *[0] * len(tokens)]]),
            pixel_values=pixels,
        ).logits
    logprobs = logits[0, len(ids) - 1 : -1].log_softmax(-1)
    return float(logprobs.gather(1, torch.tensor(tokens)[:, None]).sum())


def test_log_probabilities_equal_teacher_forcing(model: CogVLMForCausalLM, engine: Engine) -> None:
    for request, output in zip(
        requests(), sorted_by_request(engine.generate(requests(), PARAMS)), strict=True
    ):
        assert output.error is None
        for candidate in output.candidates:
            exact = teacher_forced(model, request, candidate.token_ids)
            assert candidate.cumulative_logprob == pytest.approx(exact, abs=1e-4)


def sorted_by_request(outputs: Iterator[RequestOutput]) -> list[RequestOutput]:
    return sorted(outputs, key=lambda output: int(output.id.split()[-1]))


def test_greedy_equals_generate(model: CogVLMForCausalLM, engine: Engine) -> None:
    params = GenerationParams(strategy="greedy", max_new_tokens=12, ignore_eos=True)
    for request in requests(6):
        request = replace(request, params=None)
        output = only(engine.generate([request], params))
        inputs = model.build_conversation_input_ids(
            ByteTokenizer(), query=request.prompt, images=[request.image] if request.image else []
        )
        sequence = model.generate(
            input_ids=inputs["input_ids"][None],
            token_type_ids=inputs["token_type_ids"][None],
            images=[inputs["images"]],
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=None,
        )
        assert output.candidates[0].token_ids == tuple(sequence[0, -12:].tolist())


# Sizes at which company would change numbers: in bf16 only wide products choose another kernel for more rows;
# with an odd width the last elements of a tensor are not computed by the vector unit, and more threads than
# one cut it at odd places too.
WIDE = {"hidden_size": 1024, "intermediate_size": 1024, "initializer_range": 0.04}
ODD = {"intermediate_size": 171}
LONG = {"intermediate_size": 11008, "num_hidden_layers": 1}


@pytest.mark.parametrize(
    ("sizes", "dtype", "threads"),
    [
        (WIDE, torch.float32, 1),
        (WIDE, torch.bfloat16, 1),
        (ODD, torch.float32, 1),
        (ODD, torch.bfloat16, 1),
        (LONG, torch.float32, 3),
    ],
)
@pytest.mark.parametrize("v2", [False, True])
def test_candidates_are_bitwise_the_same_in_any_company(
    v2: bool, sizes: dict[str, int], dtype: torch.dtype, threads: int
) -> None:
    engine = Engine(tiny_model(v2=v2, dtype=dtype, **sizes), ByteTokenizer(), num_threads=threads)
    alone = {request.id: only(engine.generate([request], PARAMS)) for request in requests()}
    shuffled = requests()
    for seed in range(3):
        random.Random(seed).shuffle(shuffled)
        company = [GenerationRequest(f"neighbour {i}", picture(9 + i), "x" * i) for i in range(seed)]
        together = {output.id: output for output in engine.generate([*company, *shuffled], PARAMS)}
        assert {name: together[name].candidates for name in alone} == {
            name: output.candidates for name, output in alone.items()
        }
    torch.set_num_threads(1)


@pytest.mark.parametrize("unit_rows", [8, 64])
def test_packed_blocks_give_the_same_up_to_rounding(model: CogVLMForCausalLM, unit_rows: int) -> None:
    """What CUDA uses; here on the CPU. Numbers of a row may depend on its place, beyond the sixth digit."""
    alone, packed = Engine(model, ByteTokenizer()), Engine(model, ByteTokenizer())
    packed._runner = Runner(model, unit_rows=unit_rows)
    for one, other in zip(
        sorted_by_request(alone.generate(requests(), PARAMS)),
        sorted_by_request(packed.generate(requests(), PARAMS)),
        strict=True,
    ):
        assert [c.token_ids for c in one.candidates] == [c.token_ids for c in other.candidates]
        for mine, theirs in zip(one.candidates, other.candidates, strict=True):
            assert mine.cumulative_logprob == pytest.approx(theirs.cumulative_logprob, abs=1e-4)


def test_without_deterministic_mode_all_rows_go_together(engine: Engine) -> None:
    loose = replace(PARAMS, deterministic=False)
    mixed = [replace(request, params=None) for request in requests()]
    for one, other in zip(
        sorted_by_request(engine.generate(mixed, PARAMS)),
        sorted_by_request(engine.generate(mixed, loose)),
        strict=True,
    ):
        assert [c.token_ids for c in one.candidates] == [c.token_ids for c in other.candidates]


def test_rows_and_cached_tokens_stay_within_their_bounds(model: CogVLMForCausalLM) -> None:
    engine = Engine(model, ByteTokenizer(), max_rows=12, max_cached_tokens=400)
    peaks = []
    decode = engine._runner.decode

    def watched(tokens: list[int], caches: list[ItemCache], *, deterministic: bool) -> list[torch.Tensor]:
        images = {id(cache.prefixes[0]): cache.prefixes[0].length for cache in caches}
        own = sum(cache.prefixes[-1].length + cache.num_rows * cache.filled for cache in caches)
        peaks.append((len(tokens), sum(images.values()) + own))
        return decode(tokens, caches, deterministic=deterministic)

    engine._runner.decode = watched  # type: ignore[assignment, method-assign]
    assert len(list(engine.generate(requests(20), PARAMS))) == 20
    assert 8 < max(rows for rows, _ in peaks) <= 12
    assert 100 < max(cached for _, cached in peaks) <= 400


def test_fewer_rows_at_a_time_change_nothing(model: CogVLMForCausalLM, engine: Engine) -> None:
    narrow = Engine(model, ByteTokenizer(), max_rows=1)
    wide = sorted_by_request(engine.generate(requests(), PARAMS))
    assert sorted_by_request(narrow.generate(requests(), PARAMS)) == wide


def test_candidates_end_at_their_own_end_token(engine: Engine) -> None:
    outputs = list(engine.generate(requests(), replace(PARAMS, max_new_tokens=60)))
    candidates = [candidate for output in outputs for candidate in output.candidates]
    assert {candidate.finish_reason for candidate in candidates} == {"stop", "length"}
    for candidate in candidates:
        assert candidate.num_tokens == len(candidate.token_ids)
        assert 2 not in candidate.token_ids[:-1]
        assert (candidate.token_ids[-1] == 2) == (candidate.finish_reason == "stop")


def test_text_leaves_out_the_end_token_and_ids_without_a_piece(engine: Engine) -> None:
    for output in engine.generate(requests(), replace(PARAMS, max_new_tokens=40)):
        for candidate in output.candidates:
            pieces = [token for token in candidate.token_ids if 3 <= token < 259]
            assert candidate.text == bytes(t - 3 for t in pieces).decode(errors="replace").strip()


def test_bad_requests_become_outputs_with_errors(engine: Engine) -> None:
    good = requests(2)
    truncated = io.BytesIO()
    picture(0).save(truncated, "PNG")
    bad = [
        GenerationRequest("image", b"no image", "x"),
        GenerationRequest("empty", b"", "x"),
        GenerationRequest("truncated", truncated.getvalue()[:-50], "x"),
        GenerationRequest("missing", "no/such/file.png", "x"),
        GenerationRequest("prompt", None, "x" * 600),
        GenerationRequest("params", None, "x", params=GenerationParams(top_p=2.0)),
    ]
    outputs = {output.id: output for output in engine.generate([*bad[:3], *good, *bad[3:]], PARAMS)}
    stages = {name: output.error.stage for name, output in outputs.items() if output.error}
    assert stages == {
        "image": "image",
        "empty": "image",
        "truncated": "image",
        "missing": "image",
        "prompt": "prompt",
        "params": "generate",
    }
    assert all(len(outputs[request.id].candidates) > 0 for request in good)
    assert "600" not in outputs["missing"].error.message  # type: ignore[union-attr]
    assert "601 tokens" in outputs["prompt"].error.message  # type: ignore[union-attr]


def test_new_tokens_are_cut_to_the_context(engine: Engine) -> None:
    output = only(
        engine.generate([GenerationRequest("a", None, "x" * 505)], replace(PARAMS, ignore_eos=True))
    )
    assert [candidate.num_tokens for candidate in output.candidates] == [6] * 5  # 512 - bos - 505
    assert {candidate.finish_reason for candidate in output.candidates} == {"length"}


def test_invalid_params_raise_before_anything_is_pulled(engine: Engine) -> None:
    def never() -> Iterator[GenerationRequest]:
        raise AssertionError("pulled")
        yield

    with pytest.raises(ValueError, match="unknown strategy"):
        engine.generate(never(), GenerationParams(strategy="best"))


def test_nan_weights_are_an_error_of_the_request() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    output = only(Engine(model, ByteTokenizer()).generate([GenerationRequest("a", None, "x")], PARAMS))
    assert output.candidates == ()
    assert output.error is not None
    assert "not numbers" in output.error.message


def test_outputs_stream_while_the_source_waits_for_more(engine: Engine) -> None:
    more = threading.Event()

    def source() -> Iterator[GenerationRequest]:
        yield from requests(2)
        assert more.wait(20)
        yield requests(3)[2]

    outputs = engine.generate(source(), PARAMS)
    first = list(itertools.islice(outputs, 2))
    more.set()
    assert {output.id for output in [*first, *outputs]} == {"item 0", "item 1", "item 2"}


def test_a_slow_image_does_not_hold_up_the_others(engine: Engine, tmp_path: Path) -> None:
    path = SlowPath(tmp_path)
    slow = GenerationRequest("slow", path, "x")
    outputs = engine.generate([slow, *requests(12)], PARAMS)
    first = [output.id for output in itertools.islice(outputs, 12)]
    assert "slow" not in first
    path.released.set()
    (last,) = outputs
    assert last.id == "slow"
    assert last.error is not None
    assert last.error.stage == "image"


class SlowPath(os.PathLike[str]):
    """A path that takes its time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.released = threading.Event()

    def __fspath__(self) -> str:
        assert self.released.wait(20)
        return str(self.path.with_name("absent.png"))


def test_paths_and_odd_ids_are_fine(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    picture(0).save(file)
    outputs = list(engine.generate([GenerationRequest("\ud800", file, "x")], PARAMS))
    assert [output.error for output in outputs] == [None]


def test_seconds_of_items_decoded_together_add_up_to_no_more_than_the_time_that_passed(
    engine: Engine,
) -> None:
    begun = time.perf_counter()
    outputs = list(engine.generate(requests(6), replace(PARAMS, num_candidates=4, ignore_eos=True)))
    passed_s = time.perf_counter() - begun
    assert passed_s / 10 < sum(output.seconds for output in outputs) <= passed_s


def test_seconds_count_the_prefill(engine: Engine) -> None:
    begun = time.perf_counter()
    output = only(engine.generate(requests(2)[1:], replace(PARAMS, max_new_tokens=1)))
    assert 0 < output.seconds <= time.perf_counter() - begun


def test_a_failing_source_raises_after_what_it_gave(engine: Engine) -> None:
    def source() -> Iterator[GenerationRequest]:
        yield requests(1)[0]
        raise RuntimeError("the source broke")

    outputs = engine.generate(source(), PARAMS)
    assert next(outputs).id == requests(1)[0].id
    with pytest.raises(RuntimeError, match="the source broke"):
        next(outputs)


def test_progress_counts_every_token(model: CogVLMForCausalLM) -> None:
    counts: list[int] = []
    engine = Engine(model, ByteTokenizer(), on_progress=counts.append)
    outputs = list(engine.generate(requests(), PARAMS))
    assert sum(counts) == sum(c.num_tokens for output in outputs for c in output.candidates)


def test_tags_come_back_and_ids_may_repeat(engine: Engine) -> None:
    twins = [GenerationRequest("same", None, "x", tag=tag) for tag in ("first", "second")]
    outputs = {output.tag: output for output in engine.generate(twins, PARAMS)}
    assert outputs["first"].candidates == outputs["second"].candidates
    assert set(outputs) == {"first", "second"}


def test_token_ids_can_be_left_out(engine: Engine) -> None:
    output = only(engine.generate(requests(2)[1:], replace(PARAMS, return_token_ids=False)))
    assert {candidate.token_ids for candidate in output.candidates} == {()}
    assert all(candidate.num_tokens > 0 for candidate in output.candidates)
