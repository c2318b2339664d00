"""What every registered selector promises, on pools of any texts; and what it leaves in the scores."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogbatch.decoding.params import check_params
from cogbatch.decoding.registry import SELECTORS
from cogbatch.decoding.selector import LOWEST_QUALITY, SelectionContext
from cogbatch.text import normalise
from cogbatch.types import Candidate, GenerationParams

NAMES = sorted(SELECTORS)
COMPARING = [name for name in NAMES if "similarity" in SELECTORS[name].uses]


def candidate(text: str, logprob: float = -1.0, num_tokens: int = 1, **values: object) -> Candidate:
    return replace(Candidate(0, text, (), logprob, num_tokens, "stop"), **values)


def select(name: str, pool: list[Candidate], k: int, **params: object) -> tuple[list[Candidate], list[float]]:
    """What a selector chooses, and the scores, best first."""
    counts = params.pop("counts", ())
    asked = GenerationParams(num_candidates=k, selector=name, **params)
    context = SelectionContext(pool, asked, counts=counts)
    chosen = list(SELECTORS[name].select(pool, k, context))
    assert sorted(context.scores) == sorted(chosen)
    return [pool[index] for index in chosen], [context.scores[index] for index in chosen]


# Few letters and few log-probabilities, so that equal texts, equal qualities and empty texts are common.
CANDIDATES = st.builds(
    candidate,
    st.text(alphabet="abA 红.", max_size=6),
    logprob=st.sampled_from([0.0, -1.0, -1.5, -7.0, -math.inf]),
    num_tokens=st.integers(1, 3),
    lane=st.integers(0, 3),
)
POOLS = st.lists(CANDIDATES, max_size=8)
WEIGHTS = st.sampled_from([0.0, 0.3, 0.5, 1.0])


@settings(deadline=None)
@given(POOLS, st.integers(1, 9), WEIGHTS, st.sampled_from(NAMES))
def test_k_different_texts_or_all_there_are_with_finite_scores(
    pool: list[Candidate], k: int, weight: float, name: str
) -> None:
    for kind in ("ngram", "edit"):
        chosen, scores = select(name, pool, k, similarity=kind, quality_weight=weight)
        different = {normalise(candidate.text) for candidate in pool}
        assert len(chosen) == min(k, len(different))
        assert len({normalise(candidate.text) for candidate in chosen}) == len(chosen)
        assert all(math.isfinite(score) for score in scores)


@settings(deadline=None)
@given(POOLS.flatmap(lambda pool: st.tuples(st.just(pool), st.permutations(pool))), WEIGHTS)
def test_the_order_of_the_pool_changes_nothing(
    case: tuple[list[Candidate], list[Candidate]], weight: float
) -> None:
    pool, moved = case
    for name in NAMES:
        for kind in ("ngram", "edit"):
            params = {"similarity": kind, "quality_weight": weight}
            assert select(name, moved, 3, **params) == select(name, pool, 3, **params)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "other",
    [{"text": "A cat"}, {"token_ids": (1,)}, {"lane": 1}, {"source": "beam"}],
    ids=lambda d: next(iter(d)),
)
def test_candidates_of_one_text_and_quality_are_told_apart_by_content(
    name: str, other: dict[str, object]
) -> None:
    pool = [candidate("a cat"), replace(candidate("a cat"), **other)]
    assert select(name, pool, 1) == select(name, pool[::-1], 1)


def test_the_order_of_weights_changes_no_bit() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1."""
    pool = [candidate("a", 0.0, weight=weight) for weight in (0.1, 0.2, 0.3)] + [
        candidate("b", 0.0, weight=1.0)
    ]
    assert select("mbr", pool, 2)[1] == select("mbr", [pool[2], pool[1], pool[0], pool[3]], 2)[1]


@settings(deadline=None)
@given(POOLS, st.sampled_from(NAMES))
def test_of_equal_texts_the_best_is_chosen(pool: list[Candidate], name: str) -> None:
    def quality(candidate: Candidate) -> float:
        return max(candidate.cumulative_logprob / candidate.num_tokens, LOWEST_QUALITY)

    for chosen in select(name, pool, 3)[0]:
        same = [other for other in pool if normalise(other.text) == normalise(chosen.text)]
        assert quality(chosen) == max(quality(other) for other in same)


@pytest.mark.parametrize("name", ["dpp", "mmr", "k-medoids", "top"])
def test_with_all_weight_on_quality_the_best_are_chosen(name: str) -> None:
    pool = [candidate("a", -3), candidate("a b", -1), candidate("c", -2), candidate("a b c", -1.5)]
    chosen, _ = select(name, pool, 2, **({} if name == "top" else {"quality_weight": 1.0}))
    assert {each.text for each in chosen} == {"a b", "a b c"}


@pytest.mark.parametrize("name", ["dpp", "mmr", "k-medoids"])
def test_a_text_unlike_the_rest_beats_a_likelier_look_alike(name: str) -> None:
    pool = [
        candidate("a red square on the left", -1.0),
        candidate("a red square on the left side", -1.0),
        candidate("two green stars", -1.2),
    ]
    chosen, _ = select(name, pool, 2)
    assert "two green stars" in {each.text for each in chosen}
    assert {each.text for each in select("top", pool, 2)[0]} == {pool[0].text, pool[1].text}


def test_quality_is_the_log_probability_per_token() -> None:
    pool = [candidate("a", -3.0, 2), candidate("b", -4.0, 4), candidate("c", -0.5, 1)]
    chosen, scores = select("top", pool, 3)
    assert [each.text for each in chosen] == ["c", "b", "a"]
    assert scores == [-0.5, -1.0, -1.5]


def test_an_impossible_text_has_the_lowest_quality() -> None:
    context = SelectionContext([candidate("a", -math.inf), candidate("b", math.nan)], GenerationParams())
    assert context.quality.tolist() == [LOWEST_QUALITY, LOWEST_QUALITY]


@pytest.mark.parametrize("name", COMPARING)
def test_embedding_without_a_model_is_refused_before_generation(name: str) -> None:
    with pytest.raises(ValueError, match="'embedding' needs embedding_model"):
        check_params(GenerationParams(num_candidates=2, selector=name, similarity="embedding"))


@pytest.mark.parametrize("name", ["top", "spread"])
def test_selectors_that_compare_no_texts_refuse_a_similarity(name: str) -> None:
    with pytest.raises(ValueError, match="does not use similarity"):
        check_params(GenerationParams(num_candidates=2, selector=name, similarity="edit"))


def test_a_text_drawn_often_counts_as_often_for_mbr() -> None:
    """Without counts the two texts about a cat agree; drawn six times, the dog is the consensus."""
    pool = [candidate("a cat"), candidate("a big cat"), candidate("one dog")]
    assert select("mbr", pool, 1)[0][0].text in ("a cat", "a big cat")
    chosen, scores = select("mbr", pool, 1, counts=[1, 1, 6])
    assert chosen[0].text == "one dog"
    assert scores == [pytest.approx(6 / 8)]
    # The same when the pool itself holds the repeats.
    assert select("mbr", [*pool, *[pool[2]] * 5], 1) == (chosen, scores)


def test_draws_without_replacement_count_by_probability_times_weight() -> None:
    """Masses 0.6 x 1 and 0.1 x 2: the shares of two texts with nothing in common are 3/4 and 1/4."""
    pool = [candidate("a", math.log(0.6), weight=1.0), candidate("b", math.log(0.1), weight=2.0)]
    assert select("mbr", pool, 2)[1] == pytest.approx([0.75, 0.25])
    # One candidate without a weight, and all count once.
    assert select("mbr", [pool[0], replace(pool[1], weight=None)], 2)[1] == pytest.approx([0.5, 0.5])
    # Probabilities far below the smallest float64 still have shares.
    tiny = [replace(each, cumulative_logprob=each.cumulative_logprob - 2000) for each in pool]
    assert select("mbr", tiny, 2)[1] == pytest.approx([0.75, 0.25])


def test_a_selector_from_elsewhere_finds_texts_similarities_and_qualities() -> None:
    pool = [candidate("A b.", -2.0, 2), candidate("c", -1.0)]
    context = SelectionContext(pool, GenerationParams(num_candidates=1, selector="theirs"))
    assert context.texts == ["a b", "c"]
    assert np.array_equal(context.similarity, np.eye(2))
    assert context.quality.tolist() == [-1.0, -1.0]
