"""One request in flight: the items it came down to, and how their draws become its candidates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from cogbatch.decoding.candidates import candidates_of, deliver
from cogbatch.engine.item import Item
from cogbatch.engine.prompts import Task
from cogbatch.types import Candidate, GenerationRequest, RequestError, RequestOutput


class Answer:
    """A request whose items are being decoded.

    Args:
        end_ids: the model's end tokens. seconds: that the engine spent on it so far; whoever runs it adds.
    """

    def __init__(
        self,
        request: GenerationRequest,
        task: Task,
        items: Sequence[Item],
        *,
        end_ids: frozenset[int],
        seconds: float,
    ) -> None:
        self.task = task
        self.items = items
        self.request = request
        self._end_ids = end_ids
        self.seconds = seconds

    @property
    def running(self) -> Iterator[Item]:
        """Items with rows to decode; none once one of them failed."""
        return iter(()) if self._error else (item for item in self.items if not item.is_done)

    @property
    def num_rows(self) -> int:
        """Rows that the next step decodes for it."""
        return sum(len(item.last_tokens) for item in self.running)

    @property
    def is_done(self) -> bool:
        return next(self.running, None) is None

    @property
    def is_starved(self) -> bool:
        """Memory ran out while it was being decoded."""
        return any(item.is_starved for item in self.items)

    @property
    def _error(self) -> RequestError | None:
        return next((item.error for item in self.items if item.error), None)

    def output(self, tokenizer: Any) -> RequestOutput:
        """What the caller gets, once all items are done."""
        began = time.perf_counter()
        error = self._error
        candidates: tuple[Candidate, ...] = ()
        if error is None:
            try:
                candidates = tuple(self._candidates(tokenizer))
            except Exception as problem:  # selectors from elsewhere run here too; one must not end the batch
                error = RequestError(stage="generate", type=type(problem).__name__, message=str(problem))
        return RequestOutput(
            id=self.request.id,
            candidates=candidates,
            error=error,
            num_prompt_tokens=len(self.task.prompts[0].ids),
            seconds=self.seconds + time.perf_counter() - began,
            tag=self.request.tag,
        )

    def _candidates(self, tokenizer: Any) -> list[Candidate]:
        drawn: list[Candidate] = []
        for item in self.items:
            drawn += candidates_of(item.choices, item.prompt.part, tokenizer=tokenizer, end_ids=self._end_ids)
        return deliver(drawn, self.task.params)
