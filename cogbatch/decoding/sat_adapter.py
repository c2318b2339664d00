"""Any strategy of ours as a strategy of SwissArmyTransformer, for those who still run its filling_sequence.

SAT 0.4.12 (sat/generation/autoregressive_sampling.py) prefills one prompt, repeats its logits batch_size
times, and from then on takes one row or batch_size rows, never another number. So the rows that are alive
come first and copies of the first one fill up; the rest is SAT's own: it runs all of them. SAT itself is not
needed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from cogbatch.decoding.candidates import candidates_of, deliver
from cogbatch.decoding.params import check_params
from cogbatch.decoding.parts import PORTFOLIO, parts
from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.strategy import Choice, State
from cogbatch.types import Candidate, GenerationParams


class SatStrategy:
    """What filling_sequence and stream_filling_sequence take as `strategy`; one prompt after the other.

    The tokens are those of the engine for the same params and id, in fp32 and with the same rotary table.

    Args:
        params: as for the engine. With a selector the whole pool is generated, and `candidates` selects.
        end_tokens: ids that end a row, the tokenizer's end token first of all.
        item_id: names the random numbers, with params.seed, as the id of a request does; set it anew before
            the next prompt, which otherwise is drawn with the same numbers.

    Attributes:
        num_beams: rows needed; SAT raises its batch_size to it.
        is_done: no row is alive; SAT stops then.
        choices: of the last prompt, once finalised: tokens, log-probabilities, weights, as drawn.

    Raises:
        ValueError: params are invalid, or ask for what SAT's loop cannot do.
    """

    def __init__(self, params: GenerationParams, *, end_tokens: Iterable[int], item_id: str = "") -> None:
        check_params(params)
        if params.strategy == PORTFOLIO:
            raise ValueError(
                "strategy 'portfolio' asks several prompts, and SAT's filling_sequence continues one: "
                "run each member's strategy on its own prompt"
            )
        if params.resample_loops:
            raise ValueError(
                f"resample_loops is {params.resample_loops}, but SAT's filling_sequence cannot go back to "
                "its prompt: set resample_loops to 0"
            )
        (self._part,) = parts(params)
        self._params = params
        self._end_ids = frozenset(end_tokens)
        self._run: _Run | None = None
        self.item_id = item_id
        self.num_beams = self._part.strategy.num_rows(self._part.params)
        self.is_done = False
        self.choices: list[Choice] = []

    def forward(
        self, logits: torch.Tensor, tokens: torch.Tensor, mems: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One step.

        Args:
            logits: [B, V] of the next token. tokens: [B, T] prompt and what forward returned before.
            mems: [L, 1 or B, T, ...] SAT's cache, whose rows move with the tokens.

        Returns:
            tokens [1 or B, T + 1] and mems; as they came when no row is alive any more.

        Raises:
            ValueError: fewer rows than needed, or tokens that are not those of the last step.
            FloatingPointError: NaN among the log-probabilities of what was chosen.
        """
        if self._run is None:
            self._run = self._start(logits, tokens)
        run, state = self._run, self._run.state
        run.expect(tokens)
        logprobs = logits[: len(state.lanes)].detach().float().log_softmax(-1)  # [R, V]
        parent, token = self._part.strategy.step(state.allowed(logprobs), state, state.step, run.random)
        kept = state.advance(logprobs, parent, token)
        if any(map(math.isnan, state.logprobs + [ended.cumulative_logprob for ended in state.finished])):
            raise FloatingPointError(
                f"the model's log-probabilities are not numbers at token {state.step}: check the weights and "
                "the dtype (float16 may overflow)"
            )
        self.is_done = not kept
        if not kept:
            return tokens, mems
        # SAT repeats a single row by itself, and runs the model on one row only.
        filling = len(logits) - len(kept) if len(kept) > 1 else 0
        parents = kept + [kept[0]] * filling
        last = state.tokens[:, -1:]  # [R, 1]
        column = torch.cat([last, last[:1].expand(filling, 1)]).to(tokens)
        return torch.cat([tokens[parents], column], dim=1), _moved(mems, parents)

    def finalize(self, tokens: torch.Tensor, mems: torch.Tensor | None) -> tuple[list[torch.Tensor], None]:  # noqa: ARG002
        """Ends the prompt; the strategy is ready for the next one.

        Returns:
            (sequences, None): prompt and answer, end token included, best first where the strategy ranks, at
            most num_candidates (with a selector: the pool); as of SAT's beam search a list of 1-D tensors of
            different lengths. The cache belongs to none of them.

        Raises:
            ValueError: seq had less room than max_new_tokens, so that some rows did not end, or none at all.
        """
        run, done = self._run, self.is_done
        self._run, self.is_done = None, False
        if run is None:
            raise ValueError("nothing was generated: seq needs a -1 for each new token behind the prompt")
        if not done:
            raise ValueError(
                f"{len(run.state.lanes)} rows have not ended after {run.state.step} tokens: seq needs "
                f"max_new_tokens ({run.state.params.max_new_tokens}) times -1 behind the prompt"
            )
        self.choices = self._part.strategy.finish(run.state)
        return [
            torch.cat([run.prompt, torch.tensor(choice.hypothesis.tokens).to(run.prompt)])
            for choice in self.choices
        ], None

    def candidates(self, tokenizer: Any) -> list[Candidate]:
        """What the engine would deliver of the last prompt: texts deduplicated, and selected by a selector.

        tokenizer: has decode and a length.
        """
        drawn = candidates_of(self.choices, self._part, tokenizer=tokenizer, end_ids=self._end_ids)
        return deliver(drawn, self._params)

    def _start(self, logits: torch.Tensor, tokens: torch.Tensor) -> _Run:
        if len(logits) < self.num_beams:
            raise ValueError(
                f"batch_size is {len(logits)}: expected at least {self.num_beams}, num_beams of this strategy"
            )
        self.choices = []
        params = self._part.params
        state = State(params=params, end_ids=frozenset() if params.ignore_eos else self._end_ids)
        return _Run(tokens[0].clone(), state, ItemRandom(params.seed, self.item_id))


@dataclass(frozen=True)
class _Run:
    """One prompt between its first step and finalize. prompt: [P]."""

    prompt: torch.Tensor
    state: State
    random: ItemRandom

    def expect(self, tokens: torch.Tensor) -> None:
        """Raises ValueError unless tokens [B, T] are the prompt and what the rows alive have so far."""
        so_far = self.state.tokens  # [R, t]
        prompts = self.prompt.expand(len(so_far), -1).to(so_far)  # [R, P]
        if not torch.equal(tokens[: len(so_far)].to(so_far), torch.cat([prompts, so_far], dim=1)):
            raise ValueError(
                f"tokens {tuple(tokens.shape)} are not what forward returned last: behind the prompt seq may "
                "hold only -1, and after a run that broke off a new SatStrategy is needed"
            )


def _moved(mems: torch.Tensor | None, parents: list[int]) -> torch.Tensor | None:
    """mems [L, N, T, ...] with row i a copy of old row parents[i]; a single row serves all, as SAT has it."""
    if mems is None or mems.shape[1] == 1 or parents == list(range(mems.shape[1])):
        return mems
    return mems[:, parents]
