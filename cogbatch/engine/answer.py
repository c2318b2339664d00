"""One request in flight: the items it came down to, and how their draws become its candidates."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from cogbatch.decoding.loops import is_loop
from cogbatch.decoding.registry import selector_named
from cogbatch.decoding.selector import SelectionContext
from cogbatch.decoding.strategy import Choice
from cogbatch.engine.item import Item
from cogbatch.engine.prompts import Task
from cogbatch.text import normalise
from cogbatch.types import Candidate, GenerationParams, GenerationRequest, RequestError, RequestOutput


class Answer:
    """A request whose items are being decoded.

    Args:
        end_ids: the model's end tokens. started: time.perf_counter() when its prefill began.
    """

    def __init__(
        self,
        request: GenerationRequest,
        task: Task,
        items: Sequence[Item],
        *,
        end_ids: frozenset[int],
        started: float,
    ) -> None:
        self.task = task
        self.items = items
        self._request = request
        self._end_ids = end_ids
        self._started = started

    @property
    def running(self) -> Iterator[Item]:
        """Items with rows to decode; none once one of them failed."""
        return iter(()) if self._error else (item for item in self.items if not item.is_done)

    @property
    def is_done(self) -> bool:
        return next(self.running, None) is None

    @property
    def _error(self) -> RequestError | None:
        return next((item.error for item in self.items if item.error), None)

    def output(self, tokenizer: Any) -> RequestOutput:
        """What the caller gets, once all items are done."""
        error = self._error
        candidates: tuple[Candidate, ...] = ()
        if error is None:
            try:
                candidates = tuple(self._candidates(tokenizer))
            except Exception as problem:  # selectors from elsewhere run here too; one must not end the batch
                error = RequestError(stage="generate", type=type(problem).__name__, message=str(problem))
        return RequestOutput(
            id=self._request.id,
            candidates=candidates,
            error=error,
            num_prompt_tokens=len(self.items[0].prompt.ids),
            seconds=time.perf_counter() - self._started,
            tag=self._request.tag,
        )

    def _candidates(self, tokenizer: Any) -> Iterator[Candidate]:
        params = self.task.params
        drawn: list[Candidate] = []
        for item in self.items:
            own = [self._candidate(choice, item, tokenizer) for choice in item.choices]
            drawn += _distinct(own) if item.prompt.part.strategy.distinct else own
        if params.selector is not None:
            drawn = select(drawn, params)
        for index, candidate in enumerate(drawn[: params.num_candidates]):
            ids = candidate.token_ids if params.return_token_ids else ()
            yield replace(candidate, index=index, token_ids=ids)

    def _candidate(self, choice: Choice, item: Item, tokenizer: Any) -> Candidate:
        hypothesis = choice.hypothesis
        return Candidate(
            index=0,
            text=decode_text(tokenizer, hypothesis.tokens, self._end_ids),
            token_ids=hypothesis.tokens,
            cumulative_logprob=hypothesis.cumulative_logprob,
            num_tokens=len(hypothesis.tokens),
            finish_reason=hypothesis.finish_reason,
            weight=choice.weight,
            score=choice.score,
            lane=hypothesis.lane,
            flags=("loop",) if is_loop(hypothesis.tokens) else (),
            source=item.prompt.part.source,
        )


def select(drawn: Sequence[Candidate], params: GenerationParams) -> list[Candidate]:
    """What the selector of params chooses among different texts, best first; loops only where it must."""
    pool = _distinct(drawn)
    sound = [candidate for candidate in pool if "loop" not in candidate.flags]
    if len(sound) >= params.num_candidates:
        pool = sound
    times = Counter(normalise(candidate.text) for candidate in drawn)
    context = SelectionContext(pool, params, counts=[times[normalise(each.text)] for each in pool])
    chosen = list(selector_named(str(params.selector)).select(pool, params.num_candidates, context))
    if len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(len(pool))):
        raise ValueError(f"selector {params.selector!r} chose {chosen} out of a pool of {len(pool)}")
    return [replace(pool[index], score=context.scores.get(index)) for index in chosen]


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first of each text. Weights are those of token sequences: without one of them all are void."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(normalise(candidate.text), candidate)
    if len(first) == len(candidates):
        return list(candidates)
    return [replace(candidate, weight=None) for candidate in first.values()]


def decode_text(tokenizer: Any, tokens: tuple[int, ...], end_ids: frozenset[int]) -> str:
    """Text of the tokens without end tokens; ids for which the tokenizer has no piece decode to nothing."""
    known = [token for token in tokens if token < len(tokenizer) and token not in end_ids]
    return str(tokenizer.decode(known, skip_special_tokens=True)).strip()
