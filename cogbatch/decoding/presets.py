"""Presets: generation parameters by use. A table, and nothing that a user could not write out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cogbatch.decoding.params import used_fields
from cogbatch.types import GenerationParams


@dataclass(frozen=True)
class Preset:
    """values: fields of GenerationParams. when to take it, and why these values: one sentence each."""

    values: Mapping[str, Any]
    when: str
    why: str


PRESETS: Mapping[str, Preset] = {
    "training-data": Preset(
        {
            "num_candidates": 8,
            "strategy": "sample",
            "temperature": 1.0,
            "resample_loops": 2,
            "selector": "dpp",
            "similarity": "ngram",
            "quality": "support",
            "quality_weight": 0.5,
        },
        when="Captions and answers to train on: many different texts per image, each of them good.",
        why=(
            "Further rows cost little beside the prefill, so four times as many are drawn, and the selector "
            "keeps texts that differ from one another while each says what other draws say too; loops are "
            "drawn anew."
        ),
    ),
    "evaluation": Preset(
        {"num_candidates": 8, "strategy": "sample", "temperature": 0.8, "top_p": 0.95},
        when="pass@k, mean@k, reward estimates: whatever takes the candidates for draws of the model.",
        why=(
            "Independent draws, repeats and loops included: whatever drops or replaces a draw (selectors, "
            "deduplication, drawing loops anew) would bias these figures."
        ),
    ),
    "short-answers": Preset(
        {
            "num_candidates": 4,
            "strategy": "branch",
            "branch_length": 2,
            "temperature": 0.7,
            "max_new_tokens": 32,
        },
        when="Alternatives of a word or a phrase: visual question answering, labels.",
        why=(
            "A short answer is decided by its first tokens, where sampling repeats the likely one: branch "
            "draws k different openings, likely ones sooner, and continues each at a low temperature."
        ),
    ),
    "preference-pairs": Preset(
        {"num_candidates": 4, "strategy": "sample", "temperature": 1.0, "selector": "spread"},
        when="Chosen and rejected answers for DPO or a reward model, to be judged or paired as they come.",
        why=(
            "Best first, worst last, qualities as far apart as the pool allows, so that any two make a pair "
            "with a margin; quality is the model's own log-probability per token, which no judge confirmed."
        ),
    ),
    "sat-beam": Preset(
        {"num_candidates": 4, "strategy": "beam", "beam_score": "sat", "length_penalty": 1.0},
        when="Comparing with SAT's beam search.",
        why=(
            "Beams ranked by SAT's length normalisation, but deterministic, where SAT draws its beams at "
            "random; expect close variants of one answer."
        ),
    ),
}


def preset_values(name: str) -> dict[str, Any]:
    """Fields of GenerationParams under a preset. Raises ValueError: there is none of that name."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: expected one of {', '.join(PRESETS)}")
    return dict(PRESETS[name].values)


def over_preset(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, over a preset's values without those that another strategy or selector does not read.

    Raises ValueError: there is no preset of that name.
    """
    values = {**preset_values(name), **given}
    strategy, selector = values.get("strategy") or "sample", values.get("selector")
    try:
        used = used_fields(GenerationParams(strategy=strategy, selector=selector))
    except (ValueError, TypeError):  # an unknown name, or a portfolio: told when everything is checked
        return values
    return {field: value for field, value in values.items() if field in given or field in used}


def preset(name: str, **overrides: Any) -> GenerationParams:
    """A preset's parameters, with other values where overrides has them.

    Raises ValueError: no such preset, or an override that is no field of GenerationParams.
    """
    values = over_preset(name, overrides)
    unknown = sorted(set(values) - set(GenerationParams.__dataclass_fields__))
    if unknown:
        raise ValueError(f"preset {name!r}: no generation parameter is called {', '.join(unknown)}")
    return GenerationParams(**values)
