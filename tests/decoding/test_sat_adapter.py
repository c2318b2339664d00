"""Our strategies under SAT's loop, which a few lines stand for: rows, cache, ends, refusals."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cogbatch.decoding import registry
from cogbatch.decoding.conformance import END, Markov, drive
from cogbatch.decoding.params import check_params
from cogbatch.decoding.registry import STRATEGIES, strategy_named
from cogbatch.decoding.rng import ItemRandom
from cogbatch.decoding.sat_adapter import SatStrategy
from cogbatch.decoding.strategy import Choice, State
from cogbatch.types import Candidate, GenerationParams, PortfolioMember
from tests.tiny import ByteTokenizer

PROMPT = torch.tensor([7, 7, 9])
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"num_candidates": 1},
    "beam": {"num_beams": 6},
    "diverse-beam": {"num_beam_groups": 2, "diversity_penalty": 0.5},
}


class SatLoop:
    """filling_sequence of SAT 0.4.12 around a Markov model, whose cache holds the tokens that it saw.

    Attributes:
        rows: how many the model ran at each step. sequences: what finalize gave.
    """

    def __init__(self, model: Markov) -> None:
        self.model = model
        self.rows: list[int] = []

    def fill(self, strategy: SatStrategy, *, room: int, batch_size: int = 1) -> list[torch.Tensor]:
        *_, last = self.stream(strategy, room=room, batch_size=batch_size)
        return strategy.finalize(*last)[0]

    def stream(
        self, strategy: SatStrategy, *, room: int, batch_size: int = 1, prompt: torch.Tensor = PROMPT
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        batch_size = max(batch_size, strategy.num_beams)
        tokens, mems, index = prompt[None], None, 0
        for _ in range(room):
            new = tokens[:, index:].float()[None, :, :, None]  # [layers, B, T, 1]
            self.rows.append(len(tokens))
            if mems is not None:
                if mems.shape[1] < new.shape[1]:
                    mems = mems.expand(-1, new.shape[1], -1, -1)
                new = torch.cat([mems, new], dim=2)
            mems, index = new, tokens.shape[1]
            seen = mems[0, :, len(prompt) :, 0].long()  # the model sees its cache, not the tokens
            logits = self.model(seen) + 3.0  # logits are log-probabilities up to a constant
            tokens = tokens.expand(batch_size, -1)
            tokens, mems = strategy.forward(logits.expand(batch_size, -1), tokens, mems)
            yield tokens, mems
            if strategy.is_done:
                return


class Hourglass:
    """Forks the prompt, goes on with one row alone, forks that one, and so on."""

    uses: frozenset[str] = frozenset()
    distinct = True
    nested = False

    def check(self, params: GenerationParams) -> None:
        """Anything goes."""

    def num_rows(self, params: GenerationParams) -> int:
        return params.num_candidates

    def step(
        self,
        logprobs: torch.Tensor,
        state: State,
        t: int,
        rng: ItemRandom,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if t % 2:
            return torch.tensor([len(logprobs) - 1]), logprobs[-1:].argmax(-1)
        tokens = logprobs[0].topk(state.params.num_candidates).indices
        return torch.zeros_like(tokens), tokens

    def finish(self, state: State) -> list[Choice]:
        return [Choice(hypothesis) for hypothesis in state.finished]


def params_of(strategy: str, **changes: Any) -> GenerationParams:
    common = {"strategy": strategy, "num_candidates": 4, "max_new_tokens": 9, "seed": 3}
    return GenerationParams(**{**common, **OPTIONS.get(strategy, {}), **changes})


def a_language(seed: int = 0) -> Markov:
    return Markov.random(11, seed=seed)


def numbers(choice: Choice) -> dict[str, float]:
    """Those that the strategy defines."""
    values = {
        "logprob": choice.hypothesis.cumulative_logprob,
        "weight": choice.weight,
        "score": choice.score,
    }
    return {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("batch_size", [1, 9])
def test_candidates_are_those_of_the_strategy_by_itself(name: str, batch_size: int) -> None:
    """Rows end at different steps, in other orders than they began: 20 languages show all of that."""
    for seed in range(20):
        model, params = a_language(seed), params_of(name, min_new_tokens=seed % 3)
        strategy = SatStrategy(params, end_tokens=[END], item_id="item")
        sequences = SatLoop(model).fill(strategy, room=12, batch_size=batch_size)
        expected = drive(strategy_named(name), params, model, "item")
        answers = [choice.hypothesis.tokens for choice in expected]
        assert [choice.hypothesis.tokens for choice in strategy.choices] == answers
        assert [sequence.tolist() for sequence in sequences] == [[7, 7, 9, *answer] for answer in answers]
        for found, wanted in zip(strategy.choices, expected, strict=True):
            assert numbers(found) == pytest.approx(numbers(wanted), abs=1e-4, rel=1e-4)


def test_a_strategy_from_elsewhere_may_fork_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "STRATEGIES", {**STRATEGIES, "hourglass": Hourglass()})
    params, loop = params_of("hourglass", ignore_eos=True), SatLoop(a_language())
    strategy = SatStrategy(params, end_tokens=[END])
    loop.fill(strategy, room=9)
    expected = drive(Hourglass(), params, loop.model)
    assert [choice.hypothesis.tokens for choice in strategy.choices] == [
        c.hypothesis.tokens for c in expected
    ]
    assert loop.rows == [1, 4, 1, 4, 1, 4, 1, 4, 1]


def test_the_model_runs_one_row_or_the_whole_batch() -> None:
    """SAT can expand nothing else; a last row alone runs alone."""
    loop = SatLoop(a_language())
    loop.fill(SatStrategy(params_of("sample", max_new_tokens=40), end_tokens=[END]), room=40)
    several, alone = loop.rows.count(4), loop.rows.count(1) - 1
    assert min(several, alone) > 0
    assert loop.rows == [1, *[4] * several, *[1] * alone]


def test_rows_beyond_those_alive_repeat_the_first() -> None:
    strategy = SatStrategy(params_of("sample"), end_tokens=[END])
    steps = list(SatLoop(a_language()).stream(strategy, room=9, batch_size=7))
    for tokens, mems in steps[:-1]:
        assert mems is not None
        assert torch.equal(tokens[4:], tokens[:1].expand(max(0, len(tokens) - 4), -1))
        assert mems.shape[1] in (1, len(tokens))


def test_a_cache_that_nothing_moves_is_not_copied() -> None:
    strategy = SatStrategy(params_of("sample", ignore_eos=True), end_tokens=[END])
    logits, mems = torch.randn(4, 11), torch.zeros(2, 1, 3, 8)
    tokens, same = strategy.forward(logits, PROMPT.expand(4, -1), mems)
    assert same is mems
    grown = torch.zeros(2, 4, 4, 8)
    assert strategy.forward(logits, tokens, grown)[1] is grown


def test_one_strategy_serves_one_prompt_after_the_other() -> None:
    model, params = a_language(), params_of("stochastic-beam")
    strategy = SatStrategy(params, end_tokens=[END])
    for item in ("a", "b", "a"):
        strategy.item_id = item
        steps = SatLoop(model).stream(strategy, room=9)
        next(steps)
        assert strategy.choices == []  # not those of the prompt before
        *_, last = steps
        assert strategy.is_done
        strategy.finalize(*last)
        assert not strategy.is_done
        expected = drive(strategy_named("stochastic-beam"), params, model, item)
        answers = [choice.hypothesis.tokens for choice in expected]
        assert [choice.hypothesis.tokens for choice in strategy.choices] == answers


def test_half_precision_logits_that_want_gradients_are_fine() -> None:
    strategy = SatStrategy(params_of("beam", max_new_tokens=1, num_beams=4), end_tokens=[END])
    logits = torch.randn(4, 50, dtype=torch.bfloat16, requires_grad=True)
    logits = logits[:1].expand(4, -1)
    strategy.finalize(*strategy.forward(logits, PROMPT.expand(4, -1), None))
    best = logits[0].detach().float().log_softmax(-1).topk(4)
    assert [c.hypothesis.tokens[0] for c in strategy.choices] == best.indices.tolist()
    assert [c.hypothesis.cumulative_logprob for c in strategy.choices] == best.values.tolist()


def test_candidates_have_texts_and_a_selector_chooses_among_them() -> None:
    model = Markov.random(259, spread=2.5)
    params = params_of("sample", num_candidates=3, selector="dpp", pool_size=10)
    letters = range(3 + ord("a"), 3 + ord("m") + 1)
    strategy = SatStrategy(params, end_tokens=letters, item_id="a")
    pool = SatLoop(model).fill(strategy, room=9)
    candidates = strategy.candidates(ByteTokenizer())
    assert any(choice.hypothesis.finish_reason == "stop" for choice in strategy.choices)
    assert not set("abcdefghijklm") & set("".join(candidate.text for candidate in candidates))
    assert (len(pool), len(candidates)) == (10, 3)
    drawn = {choice.hypothesis.tokens for choice in strategy.choices}
    assert all(isinstance(c, Candidate) and c.token_ids in drawn and c.source == "sample" for c in candidates)
    assert [candidate.index for candidate in candidates] == [0, 1, 2]
    assert all(candidate.score is not None for candidate in candidates)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (params_of("sample", temperature=-1.0), "temperature is -1.0"),
        (params_of("greedy", num_candidates=2), "all of them would be equal"),
        (
            GenerationParams(strategy="portfolio", portfolio=(PortfolioMember(),)),
            "filling_sequence continues one",
        ),
        (params_of("sample", resample_loops=2), "set resample_loops to 0"),
    ],
)
def test_what_cannot_work_is_refused_at_once(params: GenerationParams, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SatStrategy(params, end_tokens=[END])


def test_the_refused_portfolio_and_loops_are_fine_for_the_engine() -> None:
    check_params(GenerationParams(strategy="portfolio", portfolio=(PortfolioMember(),)))
    check_params(params_of("sample", resample_loops=2))


def test_too_small_a_batch_is_refused() -> None:
    strategy = SatStrategy(params_of("stochastic-beam"), end_tokens=[END])
    with pytest.raises(ValueError, match="batch_size is 4: expected at least 5"):
        strategy.forward(torch.zeros(4, 11), PROMPT.expand(4, -1), None)


def test_a_sequence_with_too_little_room_is_refused() -> None:
    strategy = SatStrategy(params_of("sample", ignore_eos=True), end_tokens=[END])
    with pytest.raises(ValueError, match=r"4 rows have not ended after 5 tokens: .* max_new_tokens \(9\)"):
        SatLoop(a_language()).fill(strategy, room=5)
    with pytest.raises(ValueError, match="nothing was generated"):
        strategy.finalize(PROMPT[None], None)


def test_tokens_that_were_not_chosen_are_refused() -> None:
    """Such as tokens that seq gives behind the first -1, or those of a prompt after a run that broke off."""
    strategy = SatStrategy(params_of("sample", ignore_eos=True), end_tokens=[END])
    next(SatLoop(a_language()).stream(strategy, room=5))
    with pytest.raises(ValueError, match="a new SatStrategy is needed"):
        next(SatLoop(a_language()).stream(strategy, room=5, prompt=torch.tensor([8, 7, 9, 1])))


def test_nan_is_an_error_that_says_where() -> None:
    strategy = SatStrategy(params_of("sample"), end_tokens=[END])
    with pytest.raises(FloatingPointError, match="at token 1: check the weights"):
        strategy.forward(torch.full((4, 11), torch.nan), PROMPT.expand(4, -1), None)
