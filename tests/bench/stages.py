"""Where an engine's time and memory go. The one file of the benchmark that knows the engine's inside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.profiler import record_function

from cogbatch import Engine

STAGES = ("vision", "image", "text", "decode")


class Watched:
    """An engine's stages by the clock, each without what it calls of another; and keys and values held.

    Attributes:
        seconds: by stage, since `restart`. kv_bytes: the most that were held at the start of a step.
    """

    def __init__(self, engine: Engine) -> None:
        runner = engine._runner
        self._open: list[str] = []
        self._since = 0.0
        self.restart()
        self._watch(runner.model, "get_image_features", "vision")
        self._watch(runner, "prefill_image", "image")
        self._watch(runner, "prefill_text", "text")
        self._watch(runner, "first_logprobs", "text")
        self._watch(runner, "decode", "decode", self._count_bytes)

    def restart(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.kv_bytes = 0

    def _watch(
        self, owner: Any, name: str, stage: str, look: Callable[..., None] = lambda *_, **__: None
    ) -> None:
        watched = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            look(*args, **kwargs)
            with self._in(stage), record_function(f"stage {stage}"):
                return watched(*args, **kwargs)

        setattr(owner, name, call)

    @contextmanager
    def _in(self, stage: str) -> Iterator[None]:
        self._book()
        self._open.append(stage)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def _book(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def _count_bytes(self, tokens: Sequence[int], caches: Sequence[Any], **_: Any) -> None:
        del tokens
        prefixes = {id(prefix): prefix.states.nbytes for cache in caches for prefix in cache.prefixes}
        suffixes = sum(cache._suffix.nbytes for cache in caches)
        self.kv_bytes = max(self.kv_bytes, sum(prefixes.values()) + suffixes)
