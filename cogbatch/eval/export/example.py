"""One record of training data before it has a format: image, prompt, and the text to learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cogbatch.eval.export.picture import Picture
from cogbatch.eval.metrics import logprob_per_token
from cogbatch.types import Candidate

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class Choice:
    """A candidate, the score that it was chosen by, whether that is enough; None where nothing says so."""

    candidate: Candidate
    score: float | None
    is_correct: bool | None = None

    @property
    def text(self) -> str:
        """Of the candidate."""
        return self.candidate.text

    @property
    def logprob_per_token(self) -> float | None:
        """Nats, under the model before warpers."""
        return logprob_per_token(self.candidate)


@dataclass(frozen=True)
class Example:
    """What one record of any format is made of.

    Args:
        id: of ours: <run>-<input file>-<row>-<candidate>, by their numbers; unique in an export.
        source_id: the item's own id, which may be anything. picture: None for a text-only item.
        url: http(s) address of the image, where its data had one that grants nothing.
        rejected: the worse candidate of a dpo pair.
    """

    id: str
    source_id: str
    prompt: str
    picture: Picture | None
    chosen: Choice
    rejected: Choice | None = None
    url: str | None = None
