"""Tensors that the model needs and the files lack, or hold in another shape, or that no model needs."""

from __future__ import annotations

from cogbatch.checkpoint.doctor.finding import Finding
from cogbatch.checkpoint.doctor.geometry import absent_layers
from cogbatch.checkpoint.doctor.state import CONFIG, State, misshapen, missing, unknown
from cogbatch.checkpoint.doctor.weights import count, some
from cogbatch.checkpoint.manifest import MANIFEST


def find_missing_layers(state: State) -> Finding | None:
    """More layers in the configuration than in the files: either of the two may be wrong."""
    if state.chosen is None or state.chosen.problems or state.config is None:
        return None
    absent = absent_layers(state.config, state.chosen.shapes)
    if not absent:
        return None
    source = MANIFEST if state.unusable and (state.manifest or {}).get("config") else CONFIG
    told = ", ".join(f"{name} is {n} and {stored} are stored" for name, (n, stored) in absent.items())
    return Finding(
        "layers",
        f"{source} has more layers than {state.chosen.entry}: {told}",
        "transformers fills what is missing with random numbers, or leaves it on the meta device",
        f"which of the two is wrong cannot be known: correct {source}, or copy the weight files again",
    )


def find_missing_tensors(state: State) -> Finding | None:
    """They would be random numbers, or stay on meta."""
    if state.chosen is None or state.chosen.problems or state.config is None:
        return None
    absent = missing(state.config, state.chosen)
    if not absent:
        return None
    return Finding(
        "tensors",
        f"{count(absent, (' is', ' are'))} missing from {state.chosen.entry}: {some(absent)}",
        "transformers fills what is missing with random numbers, or leaves it on the meta device",
        "values cannot be invented: copy the weight files again, or convert the checkpoint again",
    )


def find_misshapen_tensors(state: State) -> Finding | None:
    """Shapes that contradict each other; where one configuration fits all, that is told instead."""
    if state.chosen is None or state.chosen.problems or state.config is None:
        return None
    wrong = misshapen(state.config, state.chosen)
    if not wrong:
        return None
    return Finding(
        "shapes",
        f"{count(wrong, (' does', ' do'))} not fit the others: {some(wrong)}",
        "no model has these tensors together",
        "weight files of different models seem mixed: copy them again from one place",
    )


def find_unknown_tensors(state: State) -> Finding | None:
    """cogbatch refuses what transformers drops with a warning."""
    if state.chosen is None or state.config is None:
        return None
    extra = unknown(state.config, state.chosen)
    if not extra:
        return None
    return Finding(
        "unknown",
        f"{count(extra, (' has', ' have'))} no place in CogVLM: {some(extra)}",
        "transformers drops what it does not know, and cogbatch refuses to",
        "merge adapters (LoRA) into the model with the tool that trained them, then save it again",
    )
