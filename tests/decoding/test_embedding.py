"""Similarity by a real static embedding model of four words, written and loaded by model2vec itself."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import model2vec
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from cogbatch.decoding.similarity import similarity_matrix

VECTORS = {"[UNK]": (5, 5), "cat": (1, 0), "kitten": (0.8, 0.6), "stone": (-1, 0), "broken": (np.nan, 0)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    tokenizer = Tokenizer(WordLevel({word: row for row, word in enumerate(VECTORS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    directory = tmp_path_factory.mktemp("model")
    vectors = np.array(list(VECTORS.values()), dtype=np.float32)
    model2vec.StaticModel(vectors, tokenizer).save_pretrained(directory)
    return str(directory)


def test_embedding_similarity_is_half_of_one_plus_the_cosine(model: str) -> None:
    matrix = similarity_matrix(
        ["cat", "kitten", "stone", "cat kitten"], kind="embedding", embedding_model=model
    )
    assert matrix[0, 1] == pytest.approx((1 + 0.8) / 2)
    assert matrix[0, 2] == pytest.approx(0, abs=1e-7)
    assert matrix[0, 3] == pytest.approx((1 + 0.9 / sqrt(0.9**2 + 0.3**2)) / 2)
    assert np.linalg.eigvalsh(matrix)[0] > -1e-9


def test_texts_without_a_known_word_have_no_direction(model: str) -> None:
    matrix = similarity_matrix(["cat", "", "窗"], kind="embedding", embedding_model=model)
    assert matrix == pytest.approx(np.array([[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]]))


def test_the_order_of_the_texts_changes_no_bit(model: str) -> None:
    texts = ["cat", "kitten kitten stone", "stone cat", "kitten"]
    matrix = similarity_matrix(texts, kind="embedding", embedding_model=model)
    moved = similarity_matrix(texts[::-1], kind="embedding", embedding_model=model)
    assert np.array_equal(moved, matrix[::-1, ::-1])


def test_vectors_that_are_no_numbers_are_an_error(model: str) -> None:
    with pytest.raises(ValueError, match="gives NaN or infinity: check its weights"):
        similarity_matrix(["cat", "broken"], kind="embedding", embedding_model=model)


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be loaded: expected model\.safetensors, tokenizer\.json"):
        similarity_matrix(["a"], kind="embedding", embedding_model=str(tmp_path))
