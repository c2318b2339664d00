"""Who is decoded together: images shared, bounds kept, memory that runs out."""

import random
from collections.abc import Container, Sequence
from dataclasses import replace
from weakref import WeakSet

import pytest
import torch
from PIL import Image

from cogbatch import Engine, GenerationParams, GenerationRequest, RequestOutput
from cogbatch.decoding import registry
from cogbatch.decoding.sample import Sample
from cogbatch.decoding.strategy import Choice, State
from cogbatch.engine.cache import ItemCache, Prefix
from cogbatch.engine.runner import Runner
from tests.tiny import ByteTokenizer, tiny_model

PARAMS = GenerationParams(num_candidates=4, max_new_tokens=8, seed=1)
IMAGE_TOKENS = 1 + 18  # bos, boi, 16 patches, eoi


def picture(seed: int) -> Image.Image:
    return Image.frombytes("RGB", (56, 56), random.Random(seed).randbytes(56 * 56 * 3))


def questions(images: int, each: int) -> list[GenerationRequest]:
    """`each` questions about every image, the images taking turns."""
    return [
        GenerationRequest(f"{image}-{index}", picture(image), f"question {index}?")
        for index in range(each)
        for image in range(images)
    ]


def candidates(outputs: Sequence[RequestOutput]) -> dict[str, tuple[object, ...]]:
    assert all(output.error is None for output in outputs), [output.error for output in outputs]
    return {output.id: output.candidates for output in outputs}


class Short(Runner):
    """A device on which no more than so many tokens of keys and values fit, prefixes and suffixes."""

    def __init__(self, *, tokens: int) -> None:
        super().__init__(tiny_model())
        self.tokens, self.refused = tokens, 0
        self._held: dict[int, tuple[Prefix, ...]] = {}

    def _check(self, caches: Sequence[ItemCache]) -> None:
        prefixes = {id(prefix): prefix.length for cache in caches for prefix in cache.prefixes}
        if sum(prefixes.values()) + sum(c.num_rows * (c.filled + 1) for c in caches) > self.tokens:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def decode(
        self, tokens: Sequence[int], caches: Sequence[ItemCache], *, deterministic: bool
    ) -> list[torch.Tensor]:
        self._check(caches)
        return super().decode(tokens, caches, deterministic=deterministic)


class Failing(Runner):
    """There is no memory for the images of these numbers, counted from 1."""

    def __init__(self, numbers: Container[int] = (), error: Exception | None = None) -> None:
        super().__init__(tiny_model())
        self.images, self._numbers, self._error = 0, numbers, error

    def prefill_image(self, bos: int, pixels: torch.Tensor) -> Prefix:
        self.images += 1
        if self.images in self._numbers:
            assert self._error is not None
            raise self._error
        return super().prefill_image(bos, pixels)


class Hungry(Sample):
    """Asks for more memory than there is, once, at its fourth token."""

    asked = 0

    def step(
        self, logprobs: torch.Tensor, state: State, t: int, rng: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if t == 3 and not self.asked:
            self.asked += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().step(logprobs, state, t, rng)  # type: ignore[arg-type]


def engine_on(runner: Runner, **options: int) -> Engine:
    engine = Engine(runner.model, ByteTokenizer(), **options)
    engine._runner = runner
    return engine


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, tuple[object, ...]]:
    return candidates(list(Engine(tiny_model(), ByteTokenizer()).generate(questions(4, 3), PARAMS)))


def test_prompts_about_one_image_encode_it_once() -> None:
    model = tiny_model()
    seen = []
    model.model.vision.register_forward_hook(lambda *_: seen.append(1))
    engine = Engine(model, ByteTokenizer())
    alone = {}
    for request in questions(3, 4):
        alone |= candidates(list(engine.generate([request], PARAMS)))
    assert len(seen) == 12
    together = candidates(list(engine.generate(questions(3, 4), PARAMS)))
    assert len(seen) == 12 + 3
    assert together == alone  # bit for bit


def test_an_image_is_forgotten_when_others_need_its_room() -> None:
    """Room for one image and its question: a second image must push the first one out."""
    runner = Failing()
    room = IMAGE_TOKENS + 20 + 4 * 8
    engine = engine_on(runner, max_cached_tokens=room)
    turns = [GenerationRequest(f"{i}", picture(i % 2), "q") for i in range(6)]
    assert len(candidates(list(engine.generate(turns, PARAMS)))) == 6
    assert runner.images == 6
    wide = engine_on(runner, max_cached_tokens=10 * room)
    list(wide.generate(turns, PARAMS))
    assert runner.images == 6 + 2


def test_when_memory_runs_out_the_batch_shrinks_and_nothing_is_lost(
    undisturbed: dict[str, tuple[object, ...]],
) -> None:
    runner = Short(tokens=2 * (IMAGE_TOKENS + 12) + 8 * 8)
    outputs = list(engine_on(runner).generate(questions(4, 3), PARAMS))
    assert runner.refused
    assert candidates(outputs) == undisturbed
    assert len(outputs) == 12
    assert runner.refused < 12  # it learns what fits


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_an_image_without_room_waits_for_others_to_end(
    error: Exception, undisturbed: dict[str, tuple[object, ...]]
) -> None:
    runner = Failing([2], error)
    assert candidates(list(engine_on(runner).generate(questions(4, 3), PARAMS))) == undisturbed


def test_a_request_that_does_not_fit_alone_becomes_an_error() -> None:
    engine = engine_on(Short(tokens=IMAGE_TOKENS + 12 + 4 * 8))
    large = GenerationRequest("large", picture(0), "q", params=replace(PARAMS, num_candidates=9))
    outputs = {o.id: o for o in engine.generate([large, *questions(2, 1)], PARAMS)}
    assert len(outputs) == 3
    error = outputs.pop("large").error
    assert error is not None
    assert error.type == "OutOfMemoryError"
    assert "lower max_new_tokens or num_candidates" in error.message
    candidates(list(outputs.values()))


def test_an_image_that_never_fits_becomes_an_error() -> None:
    engine = engine_on(Failing(range(9), torch.OutOfMemoryError("CUDA out of memory.")))
    outputs = list(engine.generate([*questions(2, 1), GenerationRequest("text", None, "q")], PARAMS))
    assert [output.id for output in outputs if output.error is None] == ["text"]
    assert len(outputs) == 3


def test_a_strategy_without_memory_is_begun_anew(
    monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, tuple[object, ...]]
) -> None:
    hungry = Hungry()
    monkeypatch.setattr(registry, "STRATEGIES", {**registry.STRATEGIES, "hungry": hungry})
    engine = Engine(tiny_model(), ByteTokenizer())
    outputs = list(engine.generate(questions(4, 3), replace(PARAMS, strategy="hungry")))
    plain = [replace(o, candidates=tuple(replace(c, source="sample") for c in o.candidates)) for o in outputs]
    assert candidates(plain) == undisturbed
    assert hungry.asked == 1


def test_other_errors_of_the_device_are_not_taken_for_a_lack_of_memory() -> None:
    engine = engine_on(Failing([3], RuntimeError("CUDA error: an illegal memory access")))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(engine.generate(questions(4, 3), PARAMS))


class Crowded(Runner):
    """Room for the keys and values of so many items that are alive, wherever a name for them is left."""

    def __init__(self, *, items: int) -> None:
        super().__init__(tiny_model())
        self._items, self._alive = items, WeakSet[ItemCache]()

    def decode(
        self, tokens: Sequence[int], caches: Sequence[ItemCache], *, deterministic: bool
    ) -> list[torch.Tensor]:
        self._alive.update(caches)
        if len(self._alive) > self._items:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().decode(tokens, caches, deterministic=deterministic)


@pytest.mark.parametrize("items", [1, 2])
def test_what_had_to_leave_is_freed_at_once(items: int, undisturbed: dict[str, tuple[object, ...]]) -> None:
    outputs = list(engine_on(Crowded(items=items)).generate(questions(4, 3), PARAMS))
    assert candidates(outputs) == undisturbed


class Wrong(Sample):
    """Breaks the protocol in one way at its third token, or at the end."""

    def __init__(self, way: str) -> None:
        self._way = way

    def step(
        self, logprobs: torch.Tensor, state: State, t: int, rng: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if t == 0 and self._way == "no memory":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        parent, token = super().step(logprobs, state, t, rng)  # type: ignore[arg-type]
        if t == 2 and self._way == "token":
            token = token - 1000
        if t == 2 and self._way == "parent":
            parent = parent - 1
        if t == 2 and self._way == "shape":
            parent, token = parent[None], token[None]
        return parent, token

    def finish(self, state: State) -> list[Choice]:
        return None if self._way == "nothing" else super().finish(state)  # type: ignore[return-value]


@pytest.mark.parametrize("way", ["no memory", "token", "parent", "shape", "nothing"])
def test_a_strategy_that_breaks_its_protocol_ends_its_own_request_only(
    monkeypatch: pytest.MonkeyPatch, way: str, undisturbed: dict[str, tuple[object, ...]]
) -> None:
    monkeypatch.setattr(registry, "STRATEGIES", {**registry.STRATEGIES, "wrong": Wrong(way)})
    bad = GenerationRequest("bad", picture(0), "q", params=replace(PARAMS, strategy="wrong"))
    engine = Engine(tiny_model(), ByteTokenizer())
    outputs = {o.id: o for o in engine.generate([*questions(4, 1), bad, *questions(4, 3)[4:]], PARAMS)}
    assert outputs.pop("bad").error is not None
    assert candidates(list(outputs.values())) == undisturbed


def test_an_image_is_kept_for_the_next_request_when_none_is_left() -> None:
    runner = Failing()
    same = [GenerationRequest(f"{i}", picture(0), "q" * i) for i in range(4)]
    candidates(list(engine_on(runner, max_rows=4).generate(same, PARAMS)))
    assert runner.images == 1
