"""Similarities worked out by hand, in English and Chinese, and what holds for any texts: they are kernels."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cogbatch.decoding.similarity import similarity_matrix

WITHOUT_MODEL = ("ngram", "edit")
# Few letters, so that texts often share words; signs, blanks, Chinese, and texts that normalise to nothing.
TEXTS = st.lists(st.text(alphabet="abA 红猫.@,", max_size=12), max_size=8)
NO_KERNEL = ["ab", "ba", "aba", "bab"]  # whose edit similarities have a negative eigenvalue


def pair(one: str, other: str, kind: str) -> float:
    return float(similarity_matrix([one, other], kind=kind)[0, 1])


@settings(deadline=None)
@given(TEXTS, st.sampled_from(WITHOUT_MODEL))
def test_similarities_are_a_kernel_in_0_to_1_with_ones_on_the_diagonal(texts: list[str], kind: str) -> None:
    matrix = similarity_matrix(texts, kind=kind)
    assert matrix.shape == (len(texts), len(texts))
    assert matrix.dtype == np.float64
    assert np.array_equal(matrix, matrix.T)
    assert np.all((matrix >= 0) & (matrix <= 1))
    assert np.all(matrix.diagonal() == 1)
    assert not texts or np.linalg.eigvalsh(matrix)[0] > -1e-9


@settings(deadline=None)
@given(TEXTS.flatmap(lambda texts: st.tuples(st.just(texts), st.permutations(range(len(texts))))))
@example((NO_KERNEL, [3, 0, 2, 1]))
def test_the_order_of_the_texts_changes_no_bit(case: tuple[list[str], list[int]]) -> None:
    texts, order = case
    for kind in WITHOUT_MODEL:
        matrix = similarity_matrix(texts, kind=kind)
        moved = similarity_matrix([texts[place] for place in order], kind=kind)
        assert np.array_equal(moved, matrix[np.ix_(order, order)])


@settings(deadline=None)
@given(TEXTS.filter(lambda texts: len(texts) > 1))
def test_ngram_similarity_of_two_texts_does_not_depend_on_the_others(texts: list[str]) -> None:
    assert similarity_matrix(texts, kind="ngram")[0, 1] == pair(texts[0], texts[1], "ngram")


@pytest.mark.parametrize("kind", WITHOUT_MODEL)
def test_texts_that_count_as_the_same_have_exactly_1(kind: str) -> None:
    assert pair("A  red SQUARE.", "a red square", kind) == 1
    assert pair("你好。", "你好", kind) == 1
    assert pair("", "...", kind) == 1
    assert pair("", "red", kind) == 0
    assert pair("@@", "##", kind) < 1


def test_ngram_similarity_is_the_cosine_of_words_and_pairs() -> None:
    # red, ^red, red$ and a, red, ^a, "a red", red$
    assert pair("red", "a red", "ngram") == pytest.approx(2 / sqrt(3 * 5))
    # a twice, b, ^a, ab, ba, a$: 4 + 1 + 4; b twice, a, ^b, ba, ab, b$; shared 2 + 2 words, ab, ba
    assert pair("a b a", "b a b", "ngram") == pytest.approx(6 / 9)
    assert pair("red blue", "blue red", "ngram") == pytest.approx(2 / 5)  # order counts


def test_long_texts_are_compared_as_short_ones_are() -> None:
    """3,000 different words, the last changed: of 3,000 words and 3,001 pairs 2,999 of each are shared."""
    words = [f"w{number}" for number in range(3000)]
    assert pair(" ".join(words), " ".join([*words[:-1], "x"]), "ngram") == pytest.approx(5998 / 6001)


def test_chinese_characters_are_words() -> None:
    assert pair("红猫", "红狗", "ngram") == pytest.approx(2 / 5)  # 红, ^红 of 红, 猫, ^红, 红猫, 猫$
    assert pair("你好", "你好啊", "edit") == pytest.approx(2 / 3)


def test_edit_similarity_is_one_minus_the_share_of_edits() -> None:
    assert pair("a cat", "a cab", "edit") == pytest.approx(4 / 5)
    assert pair("kitten", "sitting", "edit") == pytest.approx(4 / 7)


def test_edit_similarity_shrinks_by_one_factor_where_it_is_no_kernel() -> None:
    raw = np.array(
        [[1, 0, 2 / 3, 2 / 3], [0, 1, 2 / 3, 2 / 3], [2 / 3, 2 / 3, 1, 1 / 3], [2 / 3, 2 / 3, 1 / 3, 1]]
    )
    lowest = np.linalg.eigvalsh(raw)[0]
    assert lowest < -0.1
    different = ~np.eye(4, dtype=bool)
    found = similarity_matrix(NO_KERNEL, kind="edit")
    assert np.linalg.eigvalsh(found)[0] == pytest.approx(0, abs=1e-12)
    assert found[different] == pytest.approx(raw[different] / (1 - lowest))
    # Equal texts keep 1 even then.
    assert similarity_matrix([*NO_KERNEL, "AB."], kind="edit")[0, 4] == 1


def test_an_unknown_kind_and_a_model_without_use_are_named() -> None:
    with pytest.raises(ValueError, match=r"similarity is 'cosine': expected one of ngram, edit, embedding"):
        similarity_matrix(["a"], kind="cosine")
    with pytest.raises(ValueError, match=r"'ngram' does not use embedding_model"):
        similarity_matrix(["a"], kind="ngram", embedding_model="models/m2v")


def test_embedding_wants_a_local_directory() -> None:
    with pytest.raises(ValueError, match=r"'embedding' needs embedding_model: give a local directory"):
        similarity_matrix(["a"], kind="embedding")
    with pytest.raises(ValueError, match=r"'minishlab/potion': expected a directory on this machine"):
        similarity_matrix(["a"], kind="embedding", embedding_model="minishlab/potion")
