"""Beam search: the most probable sequences that a search of bounded width finds. No randomness.

Each step ranks the continuations of all beams by log-probability. Those among the best num_beams that end
are done; the best num_beams that do not end go on. The search is over when no live beam can still win: their
log-probabilities only fall, so a bound on their scores at every length that is left is exact (transformers'
early_stopping="never"). One beam alone ends where it ends, which is greedy search. A wider search than k is
num_beams > num_candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cogbatch.decoding.ranking import as_step, best_first, top_tokens
from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.strategy import Choice, State
from cogbatch.decoding.warpers import discourage_repetition
from cogbatch.types import GenerationParams

# SAT's prefer_min_length and prefer_max_length, sat/generation/sampling_strategies/beam_search_strategy.py.
_SAT_MIN_LENGTH, _SAT_MAX_LENGTH = 5, 100


class Beam:
    uses: frozenset[str] = frozenset(
        {"num_beams", "length_penalty", "beam_score", "repetition_penalty", "no_repeat_ngram_size"}
    )
    distinct = True
    nested = False  # num_beams follows k

    def check(self, params: GenerationParams) -> None:
        if num_beams(params) < params.num_candidates:
            raise ValueError(
                f"num_beams is {params.num_beams}: expected at least num_candidates ({params.num_candidates})"
            )

    def num_rows(self, params: GenerationParams) -> int:
        return num_beams(params)

    def step(
        self,
        logprobs: torch.Tensor,
        state: State,
        t: int,  # noqa: ARG002
        rng: ItemRandom,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return search_step(logprobs, state, num_groups=1, diversity_penalty=0.0)

    def finish(self, state: State) -> list[Choice]:
        return best_choices(state)


@dataclass
class Beams:
    """What a beam search remembers.

    Args:
        row: [n] which row of the state a beam is; at first all groups share the prompt's.
        group: [n] of each beam. total: [n] log-probability, after penalties on repetition.
        done: of each group, (score, index into state.finished) of its best, best first.
    """

    row: NDArray[np.int64]
    group: NDArray[np.int64]
    total: NDArray[np.float64]
    done: list[list[tuple[float, int]]]


def num_beams(params: GenerationParams) -> int:
    return params.num_candidates if params.num_beams is None else params.num_beams


def search_step(
    logprobs: torch.Tensor, state: State, *, num_groups: int, diversity_penalty: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of every group, in order; see DiverseBeam for what groups are."""
    width = num_beams(state.params) // num_groups
    if state.memory is None:
        first = np.arange(num_groups)
        state.memory = Beams(0 * first, first, np.zeros(num_groups), [[] for _ in range(num_groups)])
    beams: Beams = state.memory
    # Enough of each row that its best are there whatever ends and whatever a penalty moves back.
    chosen_before = (num_groups - 1) * width + len(state.end_ids) if diversity_penalty else 0
    values, tokens = top_tokens(
        discourage_repetition(logprobs, state.tokens, state.params),
        width + len(state.end_ids) + chosen_before,
    )
    picked = []  # per group: (parent, token, total, group)
    taken = np.zeros(0, dtype=np.int64)  # tokens that earlier groups chose
    num_finished = len(state.finished)
    for group, done in enumerate(beams.done):
        own = beams.group == group
        rows = beams.row[own]
        total = beams.total[own][:, None] + values[rows]  # [r, n]
        times_taken = (tokens[rows][:, :, None] == taken).sum(-1)
        order = best_first(total - diversity_penalty * times_taken)
        parent, token = rows[order // tokens.shape[1]], tokens[rows].ravel()[order]
        total = total.ravel()[order]
        ends = state.ends(token)
        ending, going = np.flatnonzero(ends[:width]), np.flatnonzero(~ends)[:width]
        done += [(_score(total[place], state), num_finished + i) for i, place in enumerate(ending)]
        done.sort(key=lambda entry: -entry[0])
        wanted = min(width, state.params.num_candidates)
        del done[wanted:]
        over = len(done) == wanted and _none_can_pass(done[-1][0], total[going], state)
        if over or (width == 1 and len(ending)):  # one beam takes the best continuation, whatever it is
            going = going[:0]
        num_finished += len(ending)
        chosen = np.concatenate([ending, going])
        taken = np.concatenate([taken, token[chosen]])
        picked.append((parent[chosen], token[chosen], total[chosen], np.full(len(chosen), group)))
    parent, token, total, groups = (np.concatenate(column) for column in zip(*picked, strict=True))
    alive = ~state.ends(token)
    beams.row, beams.group, beams.total = np.arange(alive.sum()), groups[alive], total[alive]
    return as_step(parent, token)


def best_choices(state: State) -> list[Choice]:
    """The best of each group, then the second best of each, until there are k; sequences count once."""
    groups: list[list[tuple[float, int]]] = state.memory.done
    choices: dict[tuple[int, ...], Choice] = {}
    for place in range(max(len(done) for done in groups)):
        for score, index in (done[place] for done in groups if place < len(done)):
            hypothesis = state.finished[index]
            if len(choices) < state.params.num_candidates and hypothesis.tokens not in choices:
                choices[hypothesis.tokens] = Choice(hypothesis, score=score)
    return sorted(choices.values(), key=lambda choice: -(choice.score or 0.0))


def lengths_power(lengths: NDArray[np.int64], params: GenerationParams) -> NDArray[np.float64]:
    """What the log-probability of sequences of these lengths, end token included, is divided by.

    "sat": (min(100, n) + 1) ** a with SAT's smaller a below 5 tokens (BeamSearchStrategy of its
    sat/generation/sampling_strategies/beam_search_strategy.py).
    """
    penalty = params.length_penalty
    if params.beam_score == "length":
        return lengths.astype(np.float64) ** penalty
    part = np.minimum(lengths / _SAT_MIN_LENGTH, 1.0)
    power = part * penalty + (1 - part) * min(0.5, penalty / 2)
    return (np.minimum(lengths, _SAT_MAX_LENGTH) + 1.0) ** power


def _score(total: float, state: State) -> float:
    return float(total / lengths_power(np.array(state.step + 1), state.params))


def _none_can_pass(score: float, totals: NDArray[np.float64], state: State) -> bool:
    """Whether no beam of these totals can get a better score, whatever it becomes."""
    if len(totals) == 0:
        return True
    lengths = np.arange(state.step + 2, state.params.max_new_tokens + 1)
    # Totals are at most 0 and only fall: the largest divisor gives the best score.
    return bool(min(totals.max(), 0.0) / lengths_power(lengths, state.params).max() <= score)
