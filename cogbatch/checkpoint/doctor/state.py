"""What a directory holds at this moment, read once: configuration, sets of weights, manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cogbatch.checkpoint.doctor.geometry import (
    Geometry,
    absent_layers,
    complete,
    is_cogvlm,
    of_stored_layers,
)
from cogbatch.checkpoint.doctor.weights import WeightSet, count, first_difference, some, weight_sets
from cogbatch.checkpoint.hashing import file_sha256
from cogbatch.checkpoint.manifest import read_manifest
from cogbatch.checkpoint.names import TensorName, is_rotary, tensor_names
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig

CONFIG = "config.json"
_CLASS = "CogVLMForCausalLM"


@dataclass(frozen=True)
class State:
    """values: config.json's; where it is unusable, what can be had instead. unusable: why it is, or ""."""

    folder: Path
    values: dict[str, Any]
    unusable: str
    sets: tuple[WeightSet, ...]

    @cached_property
    def manifest(self) -> dict[str, Any] | None:
        """None also where it is unreadable, which the manifest's own check tells."""
        try:
            return read_manifest(self.folder)
        except CheckpointError:
            return None

    @cached_property
    def chosen(self) -> WeightSet | None:
        """The set of weights that the directory is about: whole, and the newest where two whole ones differ.

        With no whole one: what loads.
        """
        whole = [one for one in self.sets if not self.faults(one)]
        found = [one for one in whole if one.kind != "loose"]
        if not found:
            return next(iter(whole or self.sets), None)
        best = found[0]
        for other in found[1:]:
            if other.changed_ns > best.changed_ns and first_difference(best, other) is not None:
                best = other
        return best

    @cached_property
    def geometry(self) -> Geometry:
        """Of the chosen weights; nothing where they cannot be read."""
        if self.chosen is None or not is_cogvlm(self.chosen.shapes):
            return Geometry(None, ())
        return complete(self.values, self.chosen.shapes)

    @property
    def config(self) -> CogVLMConfig | None:
        """The complete configuration; None without readable weights, or where something is undecided."""
        return self.geometry.config

    def faults(self, weights: WeightSet) -> list[str]:
        """Why this set is no whole model."""
        if weights.problems:
            return list(weights.problems)
        if not is_cogvlm(weights.shapes):
            return [f"{weights.entry} holds no CogVLM"]
        config = complete(self.values, weights.shapes).config
        if config is None:
            return []
        fewer = absent_layers(config, weights.shapes)
        layers = [
            f"{weights.entry} holds {stored} layers, but {name} is {n}" for name, (n, stored) in fewer.items()
        ]
        absent = missing(config, weights)
        lacks = [f"{weights.entry} lacks {count(absent)}: {some(absent)}"] if absent else []
        return [*layers, *lacks, *misshapen(config, weights)]

    def is_vouched(self, name: str) -> bool:
        """Whether a file is, byte for byte, the one that a conversion wrote."""
        recorded = None if self.manifest is None else self.manifest["files"].get(name)
        file = self.folder / name
        return recorded is not None and file.is_file() and file_sha256(file) == recorded


def read_state(folder: Path) -> State:
    """The directory as it is. Raises CheckpointError: no directory, or a checkpoint of another kind."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such directory; expected a Hugging Face model directory")
    if (folder / "model_config.json").is_file():
        raise CheckpointError(
            f"{folder}: a SAT checkpoint; convert it with: cogbatch convert {folder} OUT_DIR"
        )
    sets = weight_sets(folder)
    for weights in sets:
        foreign = next(
            (name for name in weights.tensors if "cross_attn" in name or "cross_vision" in name), ""
        )
        if foreign:
            raise CheckpointError(
                f"{folder}: CogAgent weights ({foreign!r}): only CogVLM v1 and v2 are supported"
            )
    if sets and not any(weights.problems or is_cogvlm(weights.shapes) for weights in sets):
        raise CheckpointError(
            f"{folder}: the weights are not CogVLM's (no language_expert_query_key_value); check the path"
        )
    values, unusable = _read_config(folder / CONFIG)
    state = State(folder, values, unusable, sets)
    recorded = (state.manifest or {}).get("config")
    return replace(state, values=recorded) if unusable and isinstance(recorded, dict) else state


def missing(config: CogVLMConfig, weights: WeightSet) -> list[str]:
    """Tensors that stored layers and the rest of the model need and the set has not; rotary tables aside."""
    return [n.hf for n in _names(config, weights) if n.hf is not None and n.hf not in weights.tensors]


def misshapen(config: CogVLMConfig, weights: WeightSet) -> list[str]:
    """One text for each tensor of another shape than the configuration means."""
    shapes = weights.shapes
    return [
        f"{name.hf} is {list(shapes[name.hf])}, expected {list(name.shape)}"
        for name in _names(config, weights)
        if name.hf in shapes and shapes[name.hf] != name.shape
    ]


def unknown(config: CogVLMConfig, weights: WeightSet) -> list[str]:
    """Tensors that the model has no place for."""
    known = {name.hf for name in _names(config, weights)}
    return [name for name in weights.tensors if name not in known and not is_rotary(name)]


def _names(config: CogVLMConfig, weights: WeightSet) -> tuple[TensorName, ...]:
    """Of stored layers only: config.json can claim a billion of them."""
    return tensor_names(of_stored_layers(config, weights.shapes))


def _read_config(file: Path) -> tuple[dict[str, Any], str]:
    if not file.is_file():
        return {}, "there is no config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8") or "{}")
    except (OSError, ValueError) as err:
        return {}, f"config.json is not readable as JSON ({err})"
    if not isinstance(values, dict):
        return {}, f"config.json holds a JSON {type(values).__name__}, expected an object"
    if not values:
        return {}, "config.json is empty"
    classes, kind = values.get("architectures"), values.get("model_type")
    if (classes is not None and classes != [_CLASS]) or kind not in (None, CogVLMConfig.model_type):
        shown = classes[0] if isinstance(classes, list) and classes else classes
        values.pop("num_hidden_layers", None)  # another model's
        return values, f"config.json describes {shown} ({kind}), but the weights are CogVLM's"
    return values, ""
