"""One run of a strategy in flight: its state, its cache, and what it has drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from cogbatch.decoding.loops import is_loop
from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.strategy import Choice, State
from cogbatch.engine.allocation import is_out_of_memory
from cogbatch.engine.cache import ItemCache
from cogbatch.engine.prompts import Prompt
from cogbatch.types import RequestError

# Lanes of the n-th time that a lane is drawn anew: far from any lane of a first draw.
_LANES_PER_ATTEMPT = 1 << 20

Proposal = Sequence[Sequence[float]]  # parents, tokens, log-probabilities, each [R']


class Item:
    """A prefilled prompt whose rows are being decoded.

    A step is `propose`, which leaves what was chosen on the device, and `accept`, once that has been read: so
    the engine reads once for all items.

    Args:
        logprobs: [1, V] of the first token. end_ids: the model's end tokens.
        stream: names the random numbers, with the seed.

    Attributes:
        error: what ended it. is_starved: memory ran out while it chose; nothing of it can be used.
    """

    def __init__(
        self,
        prompt: Prompt,
        cache: ItemCache,
        logprobs: torch.Tensor,
        *,
        end_ids: frozenset[int],
        seed: int,
        stream: str,
    ) -> None:
        self.prompt = prompt
        self.cache = cache
        self.error: RequestError | None = None
        self.is_starved = False
        self._strategy = prompt.part.strategy
        self._first_logprobs = logprobs
        self._end_ids = frozenset() if prompt.part.params.ignore_eos else end_ids
        self._random = ItemRandom(seed, stream)
        self._attempt = 0
        self._draws: dict[int, Choice] = {}  # by first lane, where lanes are drawn anew
        self._choices: list[Choice] | None = None
        self._state = self._fork(None)

    @property
    def is_done(self) -> bool:
        return self.error is not None or self._choices is not None

    @property
    def choices(self) -> list[Choice]:
        """What it came to, once it is done without error."""
        assert self._choices is not None
        return self._choices

    @property
    def last_tokens(self) -> list[int]:
        """[R] of the rows alive."""
        tokens: list[int] = self._state.tokens[:, -1].tolist()
        return tokens

    def start(self) -> int:
        """Lets the strategy choose the first tokens; returns how many it chose."""
        return self.accept(self.propose(self._first_logprobs).tolist())

    def propose(self, logprobs: torch.Tensor) -> torch.Tensor:
        """Lets the strategy choose from [R, V] log-probabilities: [3, R'] float64, see Proposal."""
        try:
            return self._propose(logprobs)
        except Exception as problem:  # strategies from elsewhere run here too; one must not end the batch
            self._fail(problem)
            return logprobs.new_empty(3, 0, dtype=torch.float64)

    def accept(self, proposal: Proposal) -> int:
        """Takes what was chosen into state and cache; returns how many tokens that were."""
        if self.error or self.is_starved:
            return 0
        try:
            chosen = self._accept(proposal)
            while not self._state.lanes and not self.is_done:
                chosen += self._finish()
        except Exception as problem:
            self._fail(problem)
            return 0
        return chosen

    def _propose(self, logprobs: torch.Tensor) -> torch.Tensor:
        state = self._state
        parent, token = self._strategy.step(state.allowed(logprobs), state, state.step, self._random)
        if parent.dim() != 1 or parent.shape != token.shape:
            raise ValueError(f"step returned parents {list(parent.shape)} and tokens {list(token.shape)}")
        return torch.stack([parent.double(), token.double(), logprobs[parent, token].double()])

    def _accept(self, proposal: Proposal) -> int:
        state = self._state
        parents, tokens = ([int(value) for value in row] for row in proposal[:2])
        rows, vocabulary = len(state.lanes), self._first_logprobs.shape[1]
        if any(not 0 <= row < rows for row in parents) or any(not 0 <= t < vocabulary for t in tokens):
            raise ValueError(
                f"step returned a parent outside 0..{rows - 1} or a token outside 0..{vocabulary - 1}"
            )
        kept = state.take(parents, tokens, list(proposal[2]))
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
        return len(tokens)

    def _finish(self) -> int:
        """Takes the choices of a run that ended, or draws those again that ended in a loop."""
        choices = list(self._strategy.finish(self._state))
        attempts = self.prompt.part.params.resample_loops
        if not attempts:
            self._choices = choices
            return 0
        self._draws |= {choice.hypothesis.lane % _LANES_PER_ATTEMPT: choice for choice in choices}
        looped = [lane for lane, choice in self._draws.items() if is_loop(choice.hypothesis.tokens)]
        if not looped or self._attempt == attempts:
            self._choices = [self._draws[lane] for lane in sorted(self._draws)]
            return 0
        self._attempt += 1
        self._state = self._fork(tuple(lane + self._attempt * _LANES_PER_ATTEMPT for lane in sorted(looped)))
        self.cache.restart()
        return self._accept(self._propose(self._first_logprobs).tolist())

    def _fork(self, lanes: tuple[int, ...] | None) -> State:
        return State(params=self.prompt.part.params, end_ids=self._end_ids, first_lanes=lanes)

    def _fail(self, problem: Exception) -> None:
        if is_out_of_memory(problem):
            self.is_starved = True
            return
        self.error = RequestError(
            stage="generate",
            type=type(problem).__name__,
            message=f"strategy {self.prompt.part.params.strategy!r}: {problem}",
        )
