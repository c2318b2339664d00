"""What an export is asked for, as one value, checked as a whole. Nothing is read here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, get_args

from cogbatch.eval.judge import THRESHOLDS
from cogbatch.types import Dedupe, FormatName, ImageFormat, JudgeOptions, Keep, Select, SplitBy

NEAR = 0.8  # where nothing else is asked for
CHOICES: dict[str, tuple[str, ...]] = {
    "format": get_args(FormatName),
    "select": get_args(Select),
    "dedupe": get_args(Dedupe),
    "split_by": get_args(SplitBy),
    "image_format": get_args(ImageFormat),
}


@dataclass(frozen=True)
class ExportOptions:
    """What becomes of a run's candidates.

    Args:
        format: of the training data.
        select: which candidates of an item; dpo makes pairs instead and takes none.
        top: of top-n. threshold: from which score a candidate is good enough to be selected, or to be the
            chosen one of dpo. None: select threshold takes what the checker or metric itself calls correct;
            all else asks for no score.
        judge: what scores candidates; it has the export's threshold and none of its own.
        score: what scores them instead: "logprob" (nats per token), "selector" (of a selector or beam), or a
            carried column with one number, or one a candidate.
            Neither: the selector's score where an item has one, else log-probability per token.
        keep: candidates that would be left out: in a loop, cut off by max_new_tokens, without text.
        dedupe: what counts as a duplicate across items; the first in input order stays. pairs: the same
            image, prompt and text. texts: the same text. near: a text like an earlier one.
        near: from which similarity (Jaccard, of pairs of neighbouring words) two texts are near duplicates,
            across items and for select distinct; None: 0.8.
        validation: share of images that go to the validation split. seed: of the split.
        split_by: perceptual puts images that look alike on one side, pixels only equal ones.
        min_gap: of the scores of a dpo pair, at least; 0: any gap above 0. pairs: at most, of an item.
        image_format: png writes every image as PNG; keep leaves JPEG, PNG and WebP as they are.
        image_urls: openai-chat names http(s) images by address instead of holding them.
        shard_bytes: a Parquet or tar file is closed at this size. partial: unfinished runs are exported.

    Raises ValueError: everything that is wrong, in one line.
    """

    format: FormatName
    select: Select | None = None
    top: int | None = None
    threshold: float | None = None
    judge: JudgeOptions | None = None
    score: str | None = None
    keep: tuple[Keep, ...] = ()
    dedupe: Dedupe = "pairs"
    near: float | None = None
    validation: float = 0.0
    seed: int = 0
    split_by: SplitBy = "perceptual"
    min_gap: float | None = None
    pairs: int | None = None
    image_format: ImageFormat = "keep"
    image_urls: bool = False
    shard_bytes: int = 500_000_000
    partial: bool = False

    def __post_init__(self) -> None:
        if problems := [*_wrong_values(self), *_wrong_together(self)]:
            raise ValueError("; ".join(problems))

    @property
    def is_pairs(self) -> bool:
        """Whether an example is a pair of candidates."""
        return self.format == "dpo"

    @property
    def nearness(self) -> float:
        """From which similarity two texts are near duplicates, where that is asked for."""
        return NEAR if self.near is None else self.near

    @property
    def judged_by(self) -> str:
        """What says whether a candidate is correct, for people."""
        return (
            "the checker" if self.judge is not None and self.judge.checker is not None else "the references"
        )

    def settings(self) -> dict[str, Any]:
        """All of it as plain values, for the card."""
        select = None if self.is_pairs else self.select or "best"
        return asdict(self) | {"select": select, "near": self.nearness}


def _wrong_values(options: ExportOptions) -> Iterator[str]:
    for name, expected in CHOICES.items():
        value = getattr(options, name)
        if value not in expected and not (name == "select" and value is None):
            yield f"{name} is {value!r}, expected {', '.join(expected)}"
    for value in options.keep:
        if value not in get_args(Keep):
            yield f"keep is {value!r}, expected {', '.join(get_args(Keep))}"
    if not 0 <= options.validation < 1:
        yield f"validation is {options.validation}, expected a share from 0 to below 1"
    if not 0 < options.nearness <= 1:
        yield f"near is {options.near}, expected a similarity above 0 and at most 1"
    for name in ("threshold", "min_gap"):
        value = getattr(options, name)
        if value is not None and not math.isfinite(value):
            yield f"{name} is {value}, expected a finite number"
    if options.min_gap is not None and options.min_gap < 0:
        yield f"min_gap is {options.min_gap}, expected at least 0"
    for name in ("top", "pairs", "shard_bytes"):
        value = getattr(options, name)
        if value is not None and value < 1:
            yield f"{name} is {value}, expected at least 1"


def _wrong_together(options: ExportOptions) -> Iterator[str]:
    has_score = options.judge is not None or options.score is not None
    if options.judge is not None and options.score is not None:
        yield "a checker or references and score are two ways to score; give one"
    if options.is_pairs:
        if options.select is not None:
            yield "dpo makes pairs of the best and the worst candidate; leave select out"
        if not has_score:
            yield "dpo needs scores: a checker, references, or score (logprob only if you mean it)"
        if options.dedupe not in ("none", "pairs"):
            yield f"dpo has pairs of texts; dedupe {options.dedupe} does not apply, use pairs or none"
    else:
        for name in ("min_gap", "pairs"):
            if getattr(options, name) is not None:
                yield f"{name} is for dpo only"
    if (options.select == "top-n") != (options.top is not None):
        yield "select top-n and top go together; give both or neither"
    if options.select == "threshold" or (options.threshold is not None and not options.is_pairs):
        yield from _wrong_threshold(options)
    if options.judge is not None and options.judge.threshold is not None:
        yield "the threshold is that of the export; leave it out of the judge"
    if options.near is not None and options.dedupe != "near" and options.select != "distinct":
        yield "near is for dedupe near and for select distinct"
    if options.image_urls and options.format != "openai-chat":
        yield "image_urls is for openai-chat only; other formats hold their images"


def _wrong_threshold(options: ExportOptions) -> Iterator[str]:
    judge, unsaid = options.judge, "does not say what is correct; add --threshold"
    if judge is None and options.score is None:
        asked = "select threshold" if options.select == "threshold" else "threshold"
        yield f"{asked} needs scores: a checker, references, or score"
    elif options.threshold is not None:
        return
    elif judge is None:
        yield f"select threshold needs a threshold: score {options.score} {unsaid}"
    elif judge.references is not None and judge.metric not in THRESHOLDS:
        yield f"select threshold needs a threshold: {judge.metric} {unsaid}"
