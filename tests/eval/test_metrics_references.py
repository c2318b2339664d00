"""BLEU, ROUGE-L and CIDEr-D worked out by hand, in English and Chinese, and what the papers promise."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.eval.metrics import CiderD, corpus_bleu, rouge_l, sentence_bleu

CAPTIONS = st.text("ab 红", max_size=9)


def cider(candidate: str, references: list[str], corpus: list[list[str]]) -> float | None:
    return CiderD.of(corpus).scores([candidate], references)[0]


def test_sentence_bleu_by_hand() -> None:
    """2 of 3 words, 1 of 2 pairs, half a match for the one triple; there is no run of four."""
    assert sentence_bleu("The cat sat.", ["the cat ran"]) == pytest.approx(
        100 * (2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3)
    )


def test_sentence_bleu_of_chinese_counts_characters() -> None:
    """3 of 4, 1 of 3, none of 2 (half of one), none of 1 (a quarter)."""
    assert sentence_bleu("红色方形。", ["红色圆形"]) == pytest.approx(
        100 * (3 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** (1 / 4)
    )


def test_a_short_text_pays_for_its_brevity_by_the_closest_reference() -> None:
    assert sentence_bleu("a b", ["a b c"]) == pytest.approx(100 * math.exp(1 - 3 / 2))
    assert sentence_bleu("a b", ["a b c", "x y"]) == pytest.approx(100)


def test_bleu_clips_to_the_reference_that_has_most() -> None:
    """2 of 3 words, as in the first reference; one pair of two."""
    expected = 100 * (2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3)
    assert sentence_bleu("a a a", ["a a x", "a y z"]) == pytest.approx(expected)


def test_corpus_bleu_pools_the_counts_of_all_items() -> None:
    """8 of 9 words, 5 of 7 pairs, 3 of 5 triples, 2 of 3 runs of four; 9 words against 9."""
    found = corpus_bleu(["a b c d e", "f g h i"], [["x", "a b c d e"], ["f g x i"]])
    assert found == pytest.approx(100 * (8 / 9 * 5 / 7 * 3 / 5 * 2 / 3) ** (1 / 4))


def test_an_item_without_references_is_left_out_of_corpus_bleu() -> None:
    assert corpus_bleu(["a b c d", "x"], [["a b c d"], []]) == pytest.approx(100)
    assert corpus_bleu(["x"], [[]]) is None
    assert corpus_bleu([], []) is None
    with pytest.raises(ValueError, match="1 candidates and references of 2 items: expected as many"):
        corpus_bleu(["x"], [[], []])


def test_rouge_l_by_hand() -> None:
    """LCS "the cat mat" is 3 of 4 words and 3 of 6."""
    precision, recall = 3 / 4, 3 / 6
    candidate, reference = "The cat, a mat", "the cat sat on the mat"
    assert rouge_l(candidate, [reference]) == pytest.approx(2 * precision * recall / (precision + recall))
    assert rouge_l(candidate, [reference], beta=1.2) == pytest.approx(
        (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    )


def test_rouge_l_takes_the_closest_reference_and_chinese_by_character() -> None:
    assert rouge_l("红色方形", ["圆", "红色圆形"]) == pytest.approx(3 / 4)


def test_rouge_l_needs_a_beta_above_0() -> None:
    with pytest.raises(ValueError, match="beta is 0, expected above 0"):
        rouge_l("a", ["a"], beta=0)


def test_without_words_only_another_text_without_words_is_the_same() -> None:
    assert (rouge_l("?", ["!"]), rouge_l("?", ["a"]), rouge_l("a", ["?"])) == (1, 0, 0)
    assert (sentence_bleu("?", ["a"]), sentence_bleu("a", ["?"])) == (0, 0)


def test_cider_of_a_reference_is_10_and_less_when_it_is_short() -> None:
    """Two words have no n-gram of 3 or 4, so two of the four cosines are 0."""
    corpus = [["a red square lies here"], ["two blue circles meet below"], ["a b"]]
    assert cider("A red square lies here.", corpus[0], corpus) == pytest.approx(10)
    assert cider("a b", corpus[2], corpus) == pytest.approx(10 * 2 / 4)
    assert cider("红色方形", ["红色方形"], [["红色方形"], ["小猫"]]) == pytest.approx(10)


def test_cider_weighs_nothing_what_every_item_has() -> None:
    """Only "a" is in both items: "cat" and the pair weigh log 2 each; what weighs in "a dog" is not there.

    Words with a weight in "a cat sits" are "cat" and "sits": a cosine of 1 / sqrt(2), and so for the pairs.
    """
    corpus = [["a cat"], ["a dog"]]
    assert cider("a cat", ["a cat"], corpus) == pytest.approx(5)
    assert cider("a dog", ["a cat"], corpus) == 0
    longer = math.exp(-1 / 72)  # by one word
    assert cider("a cat sits", ["a cat"], corpus) == pytest.approx(10 * 2 / math.sqrt(2) / 4 * longer)


def test_cider_weighs_rare_words_more() -> None:
    """Frequencies 1, 2, 4 of 4 items: weights log 4, log 2, 0 for words; both pairs are in one item only."""
    corpus = [["cat sits here"], ["sits here"], ["here"], ["here"]]
    rare, common = math.log(4), math.log(2)
    norm = math.hypot(rare, common)
    one = cider("cat", ["cat sits here"], corpus)
    other = cider("sits", ["cat sits here"], corpus)
    longer = math.exp(-(2**2) / 72)
    assert one == pytest.approx(10 * rare / norm / 4 * longer)
    assert other == pytest.approx(10 * common / norm / 4 * longer)


def test_repeating_a_rare_word_gains_nothing() -> None:
    """Weights (2 log 2) against (log 2), clipped to log 2: a cosine of 1/2; the pair is in no reference."""
    corpus = [["a cat"], ["a dog"]]
    assert cider("cat cat", ["a cat"], corpus) == pytest.approx(10 * 1 / 2 / 4)


def test_a_length_other_than_the_references_is_penalised() -> None:
    corpus = [["a cat"], ["a dog"]]
    assert cider("cat", ["a cat"], corpus) == pytest.approx(10 / 4 * math.exp(-1 / 72))


def test_cider_is_the_mean_over_references() -> None:
    corpus = [["red cat runs off", "blue dog sits still"], ["one more item"]]
    assert cider("red cat runs off", corpus[0], corpus) == pytest.approx(5)


def test_document_frequencies_count_items_and_not_references() -> None:
    corpus = [["a cat", "a cat", "cat"], [], ["a dog"]]
    found = CiderD.of(corpus)
    assert found.num_documents == 2
    assert (found.document_frequencies["cat",], found.document_frequencies["a",]) == (1, 2)


def test_cider_without_references_or_with_one_item_is_not_defined() -> None:
    assert cider("a", [], [["a"], ["b"]]) is None
    assert cider("a", ["a"], [["a"]]) is None


@given(CAPTIONS, st.lists(CAPTIONS, min_size=1, max_size=4), st.lists(st.lists(CAPTIONS), max_size=4))
def test_scores_lie_in_their_bounds_and_order_of_references_does_not_count(
    candidate: str, references: list[str], others: list[list[str]]
) -> None:
    judge = CiderD.of([references, *others])
    turned = references[::-1]
    (found,), (again,) = (judge.scores([candidate], texts) for texts in (references, turned))
    assert (found is None) == (again is None) == (judge.num_documents < 2)
    assert found is None or 0 <= found <= 10 + 1e-9
    assert found == pytest.approx(again)
    for metric, top in ((sentence_bleu, 100), (rouge_l, 1)):
        value = metric(candidate, references)
        assert value == metric(candidate, turned)
        assert value is not None
        assert 0 <= value <= top


@pytest.mark.parametrize("metric", [sentence_bleu, rouge_l])
def test_without_references_there_is_no_score(metric: Any) -> None:
    assert metric("a", []) is None
