"""cogbatch: k diverse, scored candidates per image from CogVLM, at scale, exactly once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from cogbatch.errors import CogbatchError
from cogbatch.types import Candidate, GenerationParams, GenerationRequest, RequestError, RequestOutput

if TYPE_CHECKING:
    from cogbatch.engine.engine import Engine

__version__ = "0.1.0"
__all__ = [
    "Candidate",
    "CogbatchError",
    "Engine",
    "GenerationParams",
    "GenerationRequest",
    "RequestError",
    "RequestOutput",
    "__version__",
]


def __getattr__(name: str) -> object:
    # Engine pulls in torch and transformers: seconds that `cogbatch --help` must not pay.
    if name == "Engine":
        return importlib.import_module("cogbatch.engine.engine").Engine
    raise AttributeError(f"module 'cogbatch' has no attribute {name!r}")
