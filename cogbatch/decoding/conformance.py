"""What every strategy must hold, ours or not: laws to call from tests, on small scripted models.

A package that offers a strategy runs them with pytest:

    from cogbatch.decoding.conformance import LAWS

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    def test_law(law):
        law(MyStrategy(), {"temperature": 0.7})

A law raises AssertionError where it is broken. No law needs a model, an engine, or the package installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.strategy import Choice, State, Strategy
from cogbatch.types import GenerationParams

END = 0
Options = Mapping[str, Any]
Model = Callable[[torch.Tensor], torch.Tensor]  # tokens [R, t] -> log-probabilities [R, V]


class Markov:
    """A language whose next token depends on the last one. table: [V + 1, V] logits, the last row first."""

    def __init__(self, table: torch.Tensor) -> None:
        self.logprobs = table.float().log_softmax(-1)

    @classmethod
    def random(cls, vocabulary: int, seed: int = 0, spread: float = 1.5) -> Markov:
        generator = torch.Generator().manual_seed(seed)
        return cls(spread * torch.randn(vocabulary + 1, vocabulary, generator=generator))

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.logprobs[tokens[:, -1]] if tokens.shape[1] else self.logprobs[-1:]

    def total(self, tokens: Sequence[int]) -> float:
        """Log-probability of a sequence."""
        last = len(self.logprobs) - 1
        return math.fsum(
            self.logprobs[before, token].item()
            for before, token in zip([last, *tokens[:-1]], tokens, strict=True)
        )


def drive(strategy: Strategy, params: GenerationParams, model: Model, item_id: str = "item") -> list[Choice]:
    """The strategy's candidates from a model, as the engine gets them. END ends a row."""
    (choices,) = drive_together(strategy, params, model, [item_id])
    return choices


def drive_together(
    strategy: Strategy, params: GenerationParams, model: Model, item_ids: Sequence[str]
) -> list[list[Choice]]:
    """Several items in turns, one step each."""
    runs = [_run(strategy, params, model, item_id) for item_id in item_ids]
    results: dict[int, list[Choice]] = {}
    while len(results) < len(runs):
        for index, run in enumerate(runs):
            if index not in results and (choices := next(run)) is not None:
                results[index] = choices
    return [results[index] for index in range(len(runs))]


def _run(
    strategy: Strategy, params: GenerationParams, model: Model, item_id: str
) -> Iterator[list[Choice] | None]:
    """None after each step, the candidates at last."""
    strategy.check(params)
    state = State(params=params, end_ids=frozenset() if params.ignore_eos else frozenset({END}))
    random = ItemRandom(params.seed, item_id)
    while state.lanes:
        logprobs = model(state.tokens)  # [R, V]
        parent, token = strategy.step(state.allowed(logprobs), state, state.step, random)
        assert parent.shape == token.shape == (len(token),), f"step gave shapes {parent.shape}, {token.shape}"
        assert parent.dtype == token.dtype == torch.int64, "step gives int64"
        assert ((parent >= 0) & (parent < len(logprobs))).all(), f"parents {parent} of {len(logprobs)} rows"
        assert ((token >= 0) & (token < logprobs.shape[1])).all(), f"tokens {token} outside the vocabulary"
        state.advance(logprobs, parent, token)
        rows, most = len(state.lanes), strategy.num_rows(params)
        assert rows <= most, f"{rows} rows go on, num_rows says {most}"
        yield None
    yield strategy.finish(state)


def delivers_k(strategy: Strategy, options: Options) -> None:
    """k candidates, or fewer where they are promised to differ; at least one."""
    for params in _sizes(strategy, options):
        k = params.num_candidates
        for vocabulary in (2, 5, 40):
            choices = drive(strategy, params, Markov.random(vocabulary))
            assert 1 <= len(choices) <= k, f"{len(choices)} candidates for k = {k}"
            assert strategy.distinct or len(choices) == k, f"{len(choices)} candidates, not {k}"


def keeps_candidates_apart(strategy: Strategy, options: Options) -> None:
    """Different token sequences, where that is promised."""
    for params in _sizes(strategy, options):
        for seed in range(20 if strategy.distinct else 0):
            choices = drive(strategy, replace(params, seed=seed), Markov.random(4, seed))
            sequences = [choice.hypothesis.tokens for choice in choices]
            assert len(set(sequences)) == len(sequences), f"twice the same sequence in {sequences}"


def honours_end_tokens(strategy: Strategy, options: Options) -> None:
    """Each row ends at its own end token, not before min_new_tokens, or at max_new_tokens."""
    for sizes in _sizes(strategy, options):
        for changes in ({}, {"min_new_tokens": 4}, {"ignore_eos": True}, {"max_new_tokens": 1}):
            params = replace(sizes, **changes)
            for choice in drive(strategy, params, Markov.random(5)):
                tokens, reason = choice.hypothesis.tokens, choice.hypothesis.finish_reason
                wrong_reason = f"{tokens} is called {reason!r}"
                assert len(tokens) <= params.max_new_tokens, f"{len(tokens)} tokens"
                if params.ignore_eos:
                    assert reason == "length", "it stopped in spite of ignore_eos"
                else:
                    assert END not in tokens[:-1], f"{tokens} goes on after its end token {END}"
                    assert (reason == "stop") == (tokens[-1] == END), wrong_reason
                    assert reason == "length" or len(tokens) > params.min_new_tokens, f"{tokens} is too short"
                assert reason == "stop" or len(tokens) == params.max_new_tokens, (
                    f"{tokens} is called {reason!r}"
                )


def reports_the_models_log_probabilities(strategy: Strategy, options: Options) -> None:
    """cumulative_logprob is the model's own, before warpers; nothing is NaN or without probability."""
    model = Markov.random(6)
    for params in _sizes(strategy, options):
        for choice in drive(strategy, params, model):
            exact, reported = model.total(choice.hypothesis.tokens), choice.hypothesis.cumulative_logprob
            assert abs(exact - reported) < 1e-4, f"log-probability {reported}, the model says {exact}"
            for value in (choice.weight, choice.score):
                assert value is None or math.isfinite(value), f"weight {choice.weight}, score {choice.score}"


def depends_on_its_item_alone(strategy: Strategy, options: Options) -> None:
    """The same candidates again, and among other items in any order: all state is in State."""
    model, names = Markov.random(6), ["a", "b", "c"]
    for params in _sizes(strategy, options):
        alone = [drive(strategy, params, model, name) for name in names]
        assert drive_together(strategy, params, model, names) == alone, "other items change candidates"
        backwards = drive_together(strategy, params, model, names[::-1])
        assert backwards[::-1] == alone, "the order of items changes candidates"


def nests(strategy: Strategy, options: Options) -> None:
    """The candidates for a smaller k are the first of those for a larger one, where that is promised."""
    if not strategy.nested:
        return
    model = Markov.random(6)
    sizes = _sizes(strategy, options)
    largest = [choice.hypothesis.tokens for choice in drive(strategy, sizes[-1], model)]
    for params in sizes[:-1]:
        fewer = [choice.hypothesis.tokens for choice in drive(strategy, params, model)]
        assert fewer == largest[: params.num_candidates], (
            f"k = {params.num_candidates}: {fewer}, not {largest}"
        )


def survives_any_vocabulary(strategy: Strategy, options: Options) -> None:
    """One token, one end token, one token with all the mass, and more candidates than tokens."""
    certain = torch.full((5, 4), -torch.inf)
    certain[[0, 1, 2, 3, 4], [0, 2, 3, 0, 1]] = 0.0  # 1 2 3 and the end
    for params in _sizes(strategy, options):
        for model in (Markov(torch.zeros(2, 1)), Markov.random(2), Markov(certain)):
            for changes in ({}, {"min_new_tokens": 3}, {"ignore_eos": True}):
                for choice in drive(strategy, replace(params, **changes), model):
                    total = choice.hypothesis.cumulative_logprob
                    assert math.isfinite(total), f"{choice.hypothesis.tokens} has log-probability {total}"
        only = {choice.hypothesis.tokens for choice in drive(strategy, params, Markov(certain))}
        assert only == {(1, 2, 3, 0)}, f"only 1 2 3 0 is possible, not {only}"


def passes_nan_on(strategy: Strategy, options: Options) -> None:
    """A model that gives NaN is seen in the log-probabilities, where the engine reports it."""
    table = torch.zeros(6, 5)
    table[1:5] = torch.nan
    table[:, 0] = -9.0  # hardly any row ends before it comes to the NaNs
    for params in _sizes(strategy, options):
        choices = drive(strategy, replace(params, min_new_tokens=4), Markov(table))
        totals = [choice.hypothesis.cumulative_logprob for choice in choices]
        assert any(math.isnan(total) for total in totals), f"the model's NaNs became {totals}"


LAWS: tuple[Callable[[Strategy, Options], None], ...] = (
    delivers_k,
    keeps_candidates_apart,
    honours_end_tokens,
    reports_the_models_log_probabilities,
    depends_on_its_item_alone,
    nests,
    survives_any_vocabulary,
    passes_nan_on,
)


def _sizes(strategy: Strategy, options: Options) -> list[GenerationParams]:
    """Params for k = 1 and, unless the strategy refuses, for larger ones."""
    sizes = [GenerationParams(**{"max_new_tokens": 8, "seed": 3, **options, "num_candidates": 1})]
    for k in (3, 6):
        larger = replace(sizes[0], num_candidates=k)
        try:
            strategy.check(larger)
        except ValueError:
            continue
        sizes.append(larger)
    return sizes
