"""From what runs of strategies drew to the candidates that a caller gets: texts, deduplicated, selected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from cogbatch.decoding.loops import is_loop
from cogbatch.decoding.parts import Part
from cogbatch.decoding.registry import selector_named
from cogbatch.decoding.selector import SelectionContext
from cogbatch.decoding.strategy import Choice
from cogbatch.text import normalise
from cogbatch.types import Candidate, GenerationParams


def candidates_of(
    choices: Iterable[Choice], part: Part, *, tokenizer: Any, end_ids: frozenset[int]
) -> list[Candidate]:
    """The choices of one run with their texts; where the strategy promises distinct ones, each text once."""
    drawn = [
        Candidate(
            index=0,
            text=decode_text(tokenizer, choice.hypothesis.tokens, end_ids),
            token_ids=choice.hypothesis.tokens,
            cumulative_logprob=choice.hypothesis.cumulative_logprob,
            num_tokens=len(choice.hypothesis.tokens),
            finish_reason=choice.hypothesis.finish_reason,
            weight=choice.weight,
            score=choice.score,
            lane=choice.hypothesis.lane,
            flags=("loop",) if is_loop(choice.hypothesis.tokens) else (),
            source=part.source,
        )
        for choice in choices
    ]
    return _distinct(drawn) if part.strategy.distinct else drawn


def deliver(drawn: Sequence[Candidate], params: GenerationParams) -> list[Candidate]:
    """The num_candidates of a request, numbered, out of what all its runs drew."""
    if params.selector is not None:
        drawn = select(drawn, params)
    return [
        replace(candidate, index=index, token_ids=candidate.token_ids if params.return_token_ids else ())
        for index, candidate in enumerate(drawn[: params.num_candidates])
    ]


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
    # Weights are those of the draws: of what was chosen among them they say nothing.
    return [replace(pool[index], score=context.scores.get(index), weight=None) for index in chosen]


def decode_text(tokenizer: Any, tokens: Sequence[int], end_ids: frozenset[int]) -> str:
    """Text of the tokens without end tokens; ids for which the tokenizer has no piece decode to nothing."""
    known = [token for token in tokens if token < len(tokenizer) and token not in end_ids]
    return str(tokenizer.decode(known, skip_special_tokens=True)).strip()


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first of each text. Weights are those of token sequences: without one of them all are void."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(normalise(candidate.text), candidate)
    if len(first) == len(candidates):
        return list(candidates)
    return [replace(candidate, weight=None) for candidate in first.values()]
