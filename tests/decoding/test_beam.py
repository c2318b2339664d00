"""Beam search and its groups, against every sequence there is, a plain search, and transformers' own."""

import math
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch

from cogbatch import Engine, GenerationParams, GenerationRequest
from cogbatch.decoding.beam import Beam, lengths_power
from cogbatch.decoding.conformance import END, Markov, drive
from cogbatch.decoding.diverse_beam import DiverseBeam
from cogbatch.decoding.greedy import Greedy
from cogbatch.decoding.rng import prefix_stream
from cogbatch.decoding.strategy import Choice
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from tests.tiny import ByteTokenizer, tiny_model

Tokens = tuple[int, ...]
LENGTH = 5
SCORES = [
    {"length_penalty": 1.0},
    {"length_penalty": 0.0},
    {"length_penalty": 2.5},
    {"length_penalty": -1.0},
    {"length_penalty": 0.8, "beam_score": "sat"},
]


class Tree:
    """A language in which every prefix has a distribution of its own, so that no two sequences tie."""

    def __init__(self, vocabulary: int, seed: int) -> None:
        self.vocabulary, self.seed = vocabulary, seed

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.row(tuple(row)) for row in tokens.tolist()])

    @cache  # noqa: B019 - a few small trees
    def row(self, prefix: Tokens) -> torch.Tensor:
        generator = torch.Generator().manual_seed(prefix_stream((self.seed, *prefix)) % 2**63)
        return (1.5 * torch.randn(self.vocabulary, generator=generator)).log_softmax(-1)

    def total(self, tokens: Tokens) -> float:
        return math.fsum(self.row(tokens[:place])[token].item() for place, token in enumerate(tokens))


def score(total: float, length: int, params: GenerationParams) -> float:
    """By the formulas, in plain Python."""
    penalty = params.length_penalty
    if params.beam_score == "length":
        return total / length**penalty
    part = min(length / 5, 1.0)
    return total / (min(100, length) + 1) ** (part * penalty + (1 - part) * min(0.5, penalty / 2))


def plain_search(
    model: Tree, params: GenerationParams, *, groups: int = 1, penalty: float = 0.0, stops: bool = False
) -> list[list[tuple[Tokens, float]]]:
    """What each group ends with, best first: (tokens, score). Lists and loops; goes on to the last token.

    stops: end a group once the best that its beams may still come to is no better than its last one, which
    matters to the groups after it.
    """
    width = (params.num_beams or params.num_candidates) // groups
    live: list[list[tuple[Tokens, float]]] = [[((), 0.0)] for _ in range(groups)]
    done: list[list[tuple[Tokens, float]]] = [[] for _ in range(groups)]
    for t in range(1, params.max_new_tokens + 1):
        taken: Counter[int] = Counter()
        for group in range(groups):
            ranked = sorted(
                (
                    (penalty * taken[token] - total - gain.item(), (*tokens, token), total + gain.item())
                    for tokens, total in live[group]
                    for token, gain in enumerate(model.row(tokens))
                    if token != END or t > params.min_new_tokens
                ),
            )
            ends = [entry[1][-1] == END or t == params.max_new_tokens for entry in ranked]
            ended = [entry for entry, end in zip(ranked[:width], ends[:width], strict=True) if end]
            live[group] = [entry[1:] for entry, end in zip(ranked, ends, strict=True) if not end][:width]
            done[group] += [(tokens, score(total, t, params)) for _, tokens, total in ended]
            wanted = min(width, params.num_candidates)
            done[group] = sorted(done[group], key=lambda entry: -entry[1])[:wanted]
            if width == 1 and ended:
                live[group] = []
            if stops and live[group] and len(done[group]) == wanted:
                lengths = range(t + 1, params.max_new_tokens + 1)
                best = max(total for _, total in live[group])
                if max(score(best, n, params) for n in lengths) <= done[group][-1][1]:
                    live[group] = []
            taken.update([entry[1][-1] for entry in ended] + [tokens[-1] for tokens, _ in live[group]])
    return done


def found(choices: list[Choice]) -> list[Tokens]:
    return [choice.hypothesis.tokens for choice in choices]


@pytest.mark.parametrize("changes", SCORES, ids=str)
@pytest.mark.parametrize("min_new_tokens", [0, 3])
def test_a_wide_beam_finds_the_best_of_all_sequences(changes: dict[str, float], min_new_tokens: int) -> None:
    """At least as wide as the tree, so nothing is pruned; 2 + 4 + 8 + ... sequences of a 3-token language."""
    for seed in range(4):
        model = Tree(3, seed)
        params = GenerationParams(
            num_candidates=6, num_beams=100, max_new_tokens=LENGTH, min_new_tokens=min_new_tokens, **changes
        )  # type: ignore[arg-type]
        every: list[tuple[float, Tokens]] = []
        prefixes: list[Tokens] = [()]
        for t in range(1, LENGTH + 1):
            longer = [(*prefix, token) for prefix in prefixes for token in range(3)]
            ended = [tokens for tokens in longer if tokens[-1] == END and t > min_new_tokens]
            prefixes = [tokens for tokens in longer if tokens[-1] != END]
            every += [
                (score(model.total(tokens), t, params), tokens)
                for tokens in (ended + prefixes if t == LENGTH else ended)
            ]
        best = sorted(every, reverse=True)[:6]
        choices = drive(Beam(), params, model)
        assert found(choices) == [tokens for _, tokens in best]
        assert [choice.score for choice in choices] == pytest.approx([value for value, _ in best], abs=1e-5)


@pytest.mark.parametrize("changes", SCORES, ids=str)
@pytest.mark.parametrize(("k", "width"), [(1, 1), (1, 4), (3, 3), (2, 5)])
def test_ending_early_changes_nothing(changes: dict[str, float], k: int, width: int) -> None:
    for seed in range(8):
        model = Tree(4, seed)
        params = GenerationParams(num_candidates=k, num_beams=width, max_new_tokens=7, **changes)  # type: ignore[arg-type]
        (best,) = plain_search(model, params)
        assert found(drive(Beam(), params, model)) == [tokens for tokens, _ in best]


def test_it_ends_before_max_new_tokens_when_no_beam_can_win() -> None:
    """First token: the end with .9. All others together have .1, which no score with penalty 0 makes up."""
    table = torch.tensor([[0.9, 0.05, 0.05]] * 4).log()
    steps = 0

    def model(tokens: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return Markov(table)(tokens)

    (choice,) = drive(Beam(), GenerationParams(num_beams=3, length_penalty=0.0, max_new_tokens=50), model)
    assert (choice.hypothesis.tokens, steps) == ((END,), 1)


def test_one_beam_is_greedy() -> None:
    for seed in range(10):
        model, params = Tree(9, seed), GenerationParams(max_new_tokens=8)
        assert found(drive(Beam(), params, model)) == found(drive(Greedy(), params, model))


def test_repetition_is_penalised_in_scores_but_not_in_log_probabilities() -> None:
    """A token with .5 comes twice: its log-probability counts 1 and then 2 times in the score."""
    model = Markov(torch.tensor([[0.5, 0.2, 0.3]] * 4).log())
    params = GenerationParams(
        strategy="beam",
        num_beams=5,
        max_new_tokens=2,
        ignore_eos=True,
        repetition_penalty=2.0,
        length_penalty=0.0,
    )
    (choice,) = drive(Beam(), params, model)
    assert choice.hypothesis.tokens in {(0, 2), (2, 0)}  # .5 * .3; 0 0 has .25 with a score of .5 ** 3
    assert choice.hypothesis.cumulative_logprob == pytest.approx(math.log(0.15), abs=1e-6)
    (twice,) = drive(Beam(), replace(params, repetition_penalty=1.1), model)
    assert twice.hypothesis.tokens == (0, 0)
    assert twice.hypothesis.cumulative_logprob == pytest.approx(math.log(0.25), abs=1e-6)
    assert twice.score == pytest.approx(2.1 * math.log(0.5), abs=1e-6)


def test_divisors_are_those_of_the_formulas() -> None:
    lengths = torch.arange(1, 130).numpy()
    for changes in SCORES:
        params = GenerationParams(**changes)  # type: ignore[arg-type]
        expected = [1 / score(1.0, int(n), params) for n in lengths]
        assert lengths_power(lengths, params).tolist() == pytest.approx(expected)


def test_sat_prefers_short_answers_less_than_their_length_says() -> None:
    """Worked out by hand: 4 tokens, a = 4/5 * 1 + 1/5 * 1/2 = .9; 5 tokens, a = 1; beyond 100, 101 ** a."""
    divisors = lengths_power(torch.tensor([4, 5, 100, 300]).numpy(), GenerationParams(beam_score="sat"))
    assert divisors.tolist() == pytest.approx([5**0.9, 6.0, 101.0, 101.0])


@pytest.mark.parametrize("changes", SCORES, ids=str)
@pytest.mark.parametrize(("groups", "penalty"), [(2, 0.4), (3, 1.5), (6, 0.7)])
def test_groups_keep_away_from_earlier_ones(changes: dict[str, float], groups: int, penalty: float) -> None:
    for seed in range(6):
        model = Tree(5, seed)
        params = GenerationParams(
            num_candidates=6,
            max_new_tokens=6,
            num_beam_groups=groups,
            diversity_penalty=penalty,
            **changes,
        )  # type: ignore[arg-type]
        ends = plain_search(model, params, groups=groups, penalty=penalty, stops=True)
        rounds = [done[place] for place in range(6) for done in ends if place < len(done)]
        expected = sorted(dict(rounds).items(), key=lambda entry: -entry[1])[:6]
        choices = drive(DiverseBeam(), params, model)
        assert found(choices) == [tokens for tokens, _ in expected]
        assert [c.score for c in choices] == pytest.approx([value for _, value in expected], abs=1e-5)


def test_a_second_group_takes_the_next_token() -> None:
    """.5 .3 .2: the first group takes 0; .5 * exp(-1) = .18 is less than .3, so the second takes 1."""
    model = Markov(torch.tensor([[0.5, 0.3, 0.2]] * 4).log())
    params = GenerationParams(
        num_candidates=3, max_new_tokens=1, num_beam_groups=3, diversity_penalty=1.0, ignore_eos=True
    )
    assert found(drive(DiverseBeam(), params, model)) == [(0,), (1,), (2,)]
    assert found(drive(DiverseBeam(), replace(params, diversity_penalty=0.2), model)) == [(0,)]


def test_one_group_is_beam() -> None:
    for seed in range(10):
        params = GenerationParams(num_candidates=4, num_beams=5, max_new_tokens=6, diversity_penalty=3.0)
        model = Tree(6, seed)
        assert drive(DiverseBeam(), params, model) == drive(Beam(), params, model)


def test_groups_without_a_penalty_are_identical() -> None:
    """Each is then a beam search of its own width: together they find no more than one of them."""
    for seed in range(10):
        model = Tree(6, seed)
        params = GenerationParams(num_candidates=2, num_beams=6, num_beam_groups=3, max_new_tokens=6)
        alone = drive(Beam(), GenerationParams(num_candidates=2, num_beams=2, max_new_tokens=6), model)
        assert found(drive(DiverseBeam(), params, model)) == found(alone)


# The model's end tokens: a tenth of its vocabulary, so that random weights end at all lengths.
ENDS = [2, *range(10, 300, 10)]


@pytest.fixture(scope="module", params=["v1", "v2"])
def model(request: pytest.FixtureRequest) -> CogVLMForCausalLM:
    return tiny_model(v2=request.param == "v2", eos_token_id=ENDS)


@pytest.mark.parametrize(
    ("k", "num_beams", "changes"),
    [
        (1, 1, {}),
        (4, 4, {}),
        (3, 7, {"length_penalty": 0.0}),
        (2, 5, {"length_penalty": 2.0}),
        (4, 4, {"length_penalty": -0.5}),
        (8, 8, {"min_new_tokens": 4}),
        (5, 5, {"max_new_tokens": 1}),
        (12, 12, {"length_penalty": 0.3}),
    ],
)
def test_it_is_the_beam_search_of_transformers(
    model: CogVLMForCausalLM, k: int, num_beams: int, changes: dict[str, float]
) -> None:
    """The same tokens in the same order; of equal texts (other end tokens) the engine keeps the first."""
    engine = Engine(model, NumberTokenizer())
    params = GenerationParams(
        strategy="beam", num_candidates=k, num_beams=num_beams, **{"max_new_tokens": 10, **changes}
    )  # type: ignore[arg-type]
    lengths = set()
    for prompt in ("why? ", "a", "what is it?"):
        (output,) = engine.generate([GenerationRequest("a", None, prompt)], params)
        inputs = model.build_conversation_input_ids(NumberTokenizer(), query=prompt, images=[])
        search = {"early_stopping": "never", "length_penalty": params.length_penalty} if num_beams > 1 else {}
        sequences = model.generate(
            input_ids=inputs["input_ids"][None],
            token_type_ids=inputs["token_type_ids"][None],
            do_sample=False,
            num_beams=num_beams,
            num_return_sequences=k,
            max_new_tokens=params.max_new_tokens,
            min_new_tokens=params.min_new_tokens or None,
            **search,
        )[:, len(inputs["input_ids"]) :]
        texts: dict[Tokens, Tokens] = {}
        for sequence in map(up_to_end, sequences.tolist()):
            texts.setdefault(tuple(token for token in sequence if token not in ENDS), sequence)
        assert [candidate.token_ids for candidate in output.candidates] == list(texts.values())
        lengths |= {len(tokens) for tokens in texts.values()}
    assert len(lengths) > 1 or params.max_new_tokens == 1 or params.length_penalty == 2.0


def up_to_end(tokens: list[int]) -> Tokens:
    end = next((place for place, token in enumerate(tokens) if token in ENDS), len(tokens) - 1)
    return tuple(tokens[: end + 1])


class NumberTokenizer(ByteTokenizer):
    """Every id has a text of its own."""

    def __len__(self) -> int:
        return 300

    def decode(self, ids: list[int], *, skip_special_tokens: bool = True) -> str:
        del skip_special_tokens
        return " ".join(map(str, ids))
