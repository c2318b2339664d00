"""One request in flight: its strategy, its state, its cache, and the output it ends as."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from cogbatch.decoding.registry import strategy_named
from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.strategy import Choice, State
from cogbatch.engine.cache import ItemCache
from cogbatch.engine.prompts import Prompt
from cogbatch.types import Candidate, GenerationRequest, RequestError, RequestOutput


class Item:
    """A prefilled request whose rows are being decoded.

    Args:
        end_ids: the model's end tokens. started: time.perf_counter() when its prefill began.
    """

    def __init__(
        self,
        request: GenerationRequest,
        prompt: Prompt,
        cache: ItemCache,
        *,
        end_ids: frozenset[int],
        started: float,
    ) -> None:
        self.request = request
        self.prompt = prompt
        self.cache = cache
        self.strategy = strategy_named(prompt.params.strategy)
        self.end_ids = end_ids
        self.state = State(
            params=prompt.params,
            end_ids=frozenset() if prompt.params.ignore_eos else end_ids,
        )
        self.error: RequestError | None = None
        self.random = ItemRandom(prompt.params.seed, request.id)
        self.started = started

    @property
    def is_done(self) -> bool:
        return self.error is not None or not self.state.lanes

    def choose(self, logprobs: torch.Tensor) -> int:
        """Lets the strategy choose from [R, V] log-probabilities, moves the cache; returns tokens chosen."""
        state = self.state
        parent, token = self.strategy.step(state.allowed(logprobs), state, state.step, self.random)
        kept = state.advance(logprobs, parent, token)
        if any(
            math.isnan(total) for total in state.logprobs + [h.cumulative_logprob for h in state.finished]
        ):
            self.error = RequestError(
                stage="generate",
                type="FloatingPointError",
                message=f"the model's log-probabilities are not numbers at token {state.step}: "
                "check the weights (cogbatch convert refuses NaNs) and the dtype (float16 may overflow)",
            )
        elif kept:
            self.cache.move_rows(kept)
        return int(token.numel())

    def output(self, tokenizer: Any) -> RequestOutput:
        """What the caller gets, once the item is done."""
        candidates = () if self.error else self._candidates(tokenizer)
        return RequestOutput(
            id=self.request.id,
            candidates=candidates,
            error=self.error,
            num_prompt_tokens=len(self.prompt.ids),
            seconds=time.perf_counter() - self.started,
            tag=self.request.tag,
        )

    def _candidates(self, tokenizer: Any) -> tuple[Candidate, ...]:
        choices = self.strategy.finish(self.state)
        return tuple(self._candidate(index, choice, tokenizer) for index, choice in enumerate(choices))

    def _candidate(self, index: int, choice: Choice, tokenizer: Any) -> Candidate:
        hypothesis, params = choice.hypothesis, self.prompt.params
        return Candidate(
            index=index,
            text=decode_text(tokenizer, hypothesis.tokens, self.end_ids),
            token_ids=hypothesis.tokens if params.return_token_ids else (),
            cumulative_logprob=hypothesis.cumulative_logprob,
            num_tokens=len(hypothesis.tokens),
            finish_reason=hypothesis.finish_reason,
            weight=choice.weight,
            score=choice.score,
            lane=hypothesis.lane,
            source=params.strategy,
        )


def decode_text(tokenizer: Any, tokens: tuple[int, ...], end_ids: frozenset[int]) -> str:
    """Text of the tokens without end tokens; ids for which the tokenizer has no piece decode to nothing."""
    known = [token for token in tokens if token < len(tokenizer) and token not in end_ids]
    return str(tokenizer.decode(known, skip_special_tokens=True)).strip()
