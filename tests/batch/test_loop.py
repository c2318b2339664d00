"""Laws of the engine loop: outputs find their shard, order is kept, faults stay where they belong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from cogbatch.batch.loop import EngineLoop, StoppedError
from cogbatch.dataset.rows import Row
from cogbatch.types import GenerationParams, GenerationRequest, RequestError, RequestOutput

PARAMS = GenerationParams()


class Backwards:
    """Pulls up to three requests, answers them in reverse: as unordered as a continuous batch."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.asked: list[str] = []
        self._fail_at = fail_at

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[RequestOutput]:
        held: list[GenerationRequest] = []
        for request in requests:
            self.asked.append(request.id)
            if len(self.asked) == self._fail_at:
                raise RuntimeError("out of memory")
            held.append(request)
            if len(held) == 3 or request.prompt == "flush":
                yield from (RequestOutput(r.id, tag=r.tag, num_prompt_tokens=1) for r in reversed(held))
                held = []


def rows(name: str, count: int) -> list[Row]:
    prompts = [*["say"] * (count - 1), "flush"]
    return [Row(name, n, f"{name}{n}", prompt=prompt) for n, prompt in enumerate(prompts)]


def run(
    loop: EngineLoop,
    given: Iterable[Row],
    *,
    params: GenerationParams = PARAMS,
    is_stopped: Callable[[], bool] = lambda: False,
) -> list[str]:
    results = loop.run(given, params, on_output=lambda _: None, is_stopped=is_stopped)
    return [output.id for _, _, output in results]


def make(engine: Backwards, on_crash: Callable[[Exception], None] | None = None) -> EngineLoop:
    return EngineLoop(engine, on_crash=on_crash or (lambda _: None))


def test_results_come_back_in_the_order_of_the_rows() -> None:
    assert run(make(Backwards()), rows("a", 7)) == [f"a{n}" for n in range(7)]


def test_two_shards_at_once_each_get_their_own_results() -> None:
    loop = make(Backwards())
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda name: run(loop, rows(name, 50)), "ab")
    assert first == [f"a{n}" for n in range(50)]
    assert second == [f"b{n}" for n in range(50)]


def test_equal_ids_do_not_mix() -> None:
    loop = make(Backwards())
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: run(loop, rows("same", 20)), range(2)))
    assert both[0] == both[1] == [f"same{n}" for n in range(20)]


def test_the_next_shard_follows_without_a_gap() -> None:
    """The engine waits for three rows before it answers: one shard of two rows alone would never end."""
    loop = make(engine := Backwards())
    short = [Row("a", n, f"a{n}", prompt="say") for n in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, loop, short)
        while len(engine.asked) < 2:
            time.sleep(0.001)
        pool.submit(run, loop, rows("b", 1))
        assert first.result(timeout=10) == ["a0", "a1"]


def test_a_row_with_an_error_never_reaches_the_engine() -> None:
    loop = make(engine := Backwards())
    error = RequestError("read", "ValueError", "no JSON")
    given = [Row("a", 0, "a0", error=error), *rows("b", 2), Row("a", 3, "a3", error=error)]
    results = loop.run(given, PARAMS, on_output=lambda _: None)
    assert [output.error for _, _, output in results] == [error, None, None, error]
    assert engine.asked == ["b0", "b1"]


def test_a_shard_that_cannot_be_read_fails_alone() -> None:
    def broken() -> Iterator[Row]:
        yield Row("a", 0, "a0", prompt="flush")
        raise OSError("the disk is gone")

    loop = make(Backwards())
    with pytest.raises(OSError, match="the disk is gone"):
        run(loop, broken())
    assert run(loop, rows("b", 4)) == ["b0", "b1", "b2", "b3"]


def test_an_empty_shard_ends() -> None:
    assert run(make(Backwards()), []) == []


@pytest.mark.parametrize("fail_at", [1, 2])
def test_a_failing_engine_is_reported_once_and_loses_nothing_silently(fail_at: int) -> None:
    crashed: list[Exception] = []
    seen = threading.Event()

    def on_crash(err: Exception) -> None:
        crashed.append(err)
        seen.set()

    loop = make(Backwards(fail_at), on_crash)
    with pytest.raises(StoppedError):
        run(loop, rows("a", 3), is_stopped=seen.is_set)
    assert seen.wait(5)
    assert [str(err) for err in crashed] == ["out of memory"]


def test_stopping_one_job_gives_its_shard_back_and_leaves_others_alone() -> None:
    loop, stopped, ended = make(engine := Backwards()), threading.Event(), threading.Event()

    def endless() -> Iterator[Row]:
        for n in count():
            time.sleep(0.001)
            yield Row("a", n, f"a{n}", prompt="say")

    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(run, loop, endless(), is_stopped=stopped.is_set)
        while not engine.asked:
            time.sleep(0.001)
        stopped.set()
        with pytest.raises(StoppedError):
            waiting.result(timeout=10)
        other = pool.submit(run, loop, rows("b", 4), is_stopped=ended.is_set)
        try:
            assert other.result(timeout=10) == ["b0", "b1", "b2", "b3"]
        finally:
            ended.set()


def test_every_request_has_the_parameters_of_its_shard() -> None:
    class Seeds(Backwards):
        def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[RequestOutput]:
            for request in requests:
                assert request.params is not None
                yield RequestOutput(f"{request.id} {request.params.seed}", tag=request.tag)

    loop = make(Seeds())
    with ThreadPoolExecutor(2) as pool:
        both = pool.map(lambda seed: run(loop, rows("a", 2), params=GenerationParams(seed=seed)), (1, 2))
        assert list(both) == [["a0 1", "a1 1"], ["a0 2", "a1 2"]]


def test_rows_about_one_image_follow_each_other() -> None:
    images = ["a", b"b", None, "a", b"b", None, "c", "a"]
    given = [Row("f", n, str(n), image=image, prompt="flush") for n, image in enumerate(images)]
    engine = Backwards()
    assert run(make(engine), given) == [str(n) for n in range(8)]  # results stay in the order of the rows
    assert engine.asked == ["0", "3", "7", "1", "4", "2", "5", "6"]


def test_looking_ahead_for_images_is_bounded() -> None:
    read = []

    def endless() -> Iterator[Row]:
        for n in range(300):
            read.append(n)
            yield Row("f", n, str(n), image="same" if n in (0, 250) else str(n), prompt="flush")

    class Watching(Backwards):
        def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[RequestOutput]:
            for request in requests:
                ahead.append(len(read) - int(request.id))
                yield RequestOutput(request.id, tag=request.tag)

    ahead: list[int] = []
    assert run(make(Watching()), endless()) == [str(n) for n in range(300)]
    assert max(ahead) <= 64
