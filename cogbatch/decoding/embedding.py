"""Vectors of texts from a static embedding model in a local directory. Loads no code and no network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def embed(texts: Sequence[str], directory: str) -> NDArray[np.float64]:
    """[n, d] vectors; a text without a known token has zeros.

    Raises ValueError: as find_model, the model cannot be loaded, or it gives vectors that are not numbers.
    """
    vectors = np.asarray(_load(directory).encode(list(texts), use_multiprocessing=False), dtype=np.float64)
    if not np.isfinite(vectors).all():
        raise ValueError(f"embedding_model {directory!r} gives NaN or infinity: check its weights")
    return vectors


def find_model(directory: str) -> None:
    """Raises ValueError: directory is none on this machine, or model2vec is missing. Loads nothing."""
    if not Path(directory).is_dir():  # model2vec would look for the name on the hub
        raise ValueError(
            f"embedding_model is {directory!r}: expected a directory on this machine with a model2vec model"
        )
    if find_spec("model2vec") is None:
        raise ValueError("similarity 'embedding' needs model2vec: pip install 'cogbatch[embedding]'")


@lru_cache(maxsize=2)
def _load(directory: str) -> Any:
    find_model(directory)
    from model2vec import StaticModel  # optional, and slow to import

    try:
        return StaticModel.from_pretrained(directory)
    except Exception as err:  # whatever the files make the library stumble over
        raise ValueError(
            f"embedding_model {directory!r} cannot be loaded: expected model.safetensors, tokenizer.json and "
            f"config.json as model2vec writes them ({type(err).__name__}: {err})"
        ) from err
