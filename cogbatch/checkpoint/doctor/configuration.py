"""config.json: absent, another model's, contradicted by the tensors, with a wrong epsilon, no auto_map."""

from __future__ import annotations

import json
import math
from typing import Any

from cogbatch.checkpoint.doctor.changes import Changes
from cogbatch.checkpoint.doctor.finding import Finding
from cogbatch.checkpoint.doctor.geometry import disagreements
from cogbatch.checkpoint.doctor.state import CONFIG, State
from cogbatch.checkpoint.layout import write_config
from cogbatch.checkpoint.manifest import MANIFEST
from cogbatch.checkpoint.names import is_rotary

GENERATION_CONFIG = "generation_config.json"
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_PUBLISHED_EPSILON = 1e-5
_CLASS_EPSILON = 1e-6
_AUTO_CLASSES = {
    "AutoConfig": "configuration_cogvlm.CogVLMConfig",
    "AutoModelForCausalLM": "modeling_cogvlm.CogVLMForCausalLM",
}


def find_unusable_config(state: State) -> Finding | None:
    """No configuration, or one that leaves open what nothing else decides."""
    undecided = state.geometry.undecided
    if not state.unusable and not undecided:
        return None
    what = state.unusable or f"config.json lacks {', '.join(undecided)}"
    if state.config is None and not undecided:
        return Finding("config", what, "nobody can load the model", "comes after the weights: see there")
    if undecided:
        return Finding(
            "config",
            what,
            "nobody can load the model",
            f"the tensors do not decide {', '.join(undecided)}: write a config.json with them and "
            "run it again (in SAT's model_config.json: num_attention_heads, also inside eva_args)",
        )
    template = "" if "template_version" in state.values else "; template chat is assumed"
    recorded = (state.manifest or {}).get("config") is not None
    source = MANIFEST if recorded else "the tensors' shapes and what all published models share"
    return Finding(
        "config",
        what,
        "nobody can load the model",
        f"writes a complete {CONFIG} from {source}{template}",
        (CONFIG, GENERATION_CONFIG),
        lambda changes: write_complete_config(state, changes),
    )


def find_contradicted_config(state: State) -> Finding | None:
    """Values, stated or left to class defaults, that the tensors prove wrong."""
    if state.unusable or state.config is None:
        return None
    wrong = disagreements(state.values, state.config)
    if not wrong:
        return None
    told = [f"{name} is {right}" + _as_written(state, name, found) for name, (found, right) in wrong.items()]
    return Finding(
        "config",
        f"the tensors do not agree with {CONFIG}: {', '.join(told)}",
        "code with other defaults (v1 and v2 differ) builds another model",
        f"writes every value into {CONFIG}",
        (CONFIG, GENERATION_CONFIG),
        lambda changes: write_complete_config(state, changes),
    )


def find_wrong_epsilon(state: State) -> Finding | None:
    """The class default of official code is not what any published checkpoint was trained with."""
    if state.unusable or state.config is None or state.is_vouched(CONFIG):
        return None
    value = state.values.get("rms_norm_eps")
    if isinstance(value, float) and value > 0 and value != _CLASS_EPSILON:
        return None
    found = f"rms_norm_eps is {value}" if "rms_norm_eps" in state.values else "rms_norm_eps is absent"
    return Finding(
        "rms_norm_eps",
        f"{found} in {CONFIG}",
        f"{_CLASS_EPSILON} is a default of the official class, and logits shift with it: all published "
        f"models have {_PUBLISHED_EPSILON}",
        f"writes {_PUBLISHED_EPSILON}",
        (CONFIG,),
        lambda changes: write_complete_config(state, changes, rms_norm_eps=_PUBLISHED_EPSILON),
    )


def find_missing_auto_map(state: State) -> Finding | None:
    """Without it AutoModelForCausalLM does not find the code beside the weights, or finds it on the hub."""
    if state.unusable or state.config is None:
        return None
    stated = state.values.get("auto_map")
    found = stated if isinstance(stated, dict) else {}
    wrong = [name for name, place in _AUTO_CLASSES.items() if found.get(name) != place]
    if not wrong:
        return None
    told = ", ".join(f"{name} {found[name]!r}" if name in found else f"no {name}" for name in wrong)
    return Finding(
        "auto_map",
        f"auto_map in {CONFIG} has {told}",
        "AutoModelForCausalLM cannot find the code in this directory",
        "maps it to the code files that cogbatch ships",
        (CONFIG,),
        lambda changes: write_complete_config(state, changes),
    )


def write_complete_config(state: State, changes: Changes, **values: Any) -> None:
    """config.json with every value explicit; keys that only its author knows stay, at its end."""
    config, weights = state.config, state.chosen
    assert config is not None
    assert weights is not None
    for name, value in values.items():
        setattr(config, name, value)
    with changes.staging() as folder:
        write_config(folder, config, dtype=_dtype(state))
        written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        foreign = {} if state.unusable else state.values
        more = {
            name: value
            for name, value in foreign.items()
            if name not in written and name != "torch_dtype"  # dtype's old name
        }
        if more:
            text = json.dumps({**written, **more}, indent=2, ensure_ascii=False) + "\n"
            (folder / CONFIG).write_text(text, encoding="utf-8")
        changes.put(folder / CONFIG)
        if not (state.folder / GENERATION_CONFIG).exists():
            changes.put(folder / GENERATION_CONFIG)


def _dtype(state: State) -> str:
    """What config.json says, else that of most bytes."""
    stated = state.values.get("dtype") or state.values.get("torch_dtype")
    if stated in _DTYPES.values():
        return str(stated)
    sizes: dict[str, int] = {}
    assert state.chosen is not None
    for name, stored in state.chosen.tensors.items():
        if not is_rotary(name):
            sizes[stored.dtype] = sizes.get(stored.dtype, 0) + math.prod(stored.shape)
    return _DTYPES[max(sizes, key=lambda dtype: sizes[dtype])]


def _as_written(state: State, name: str, found: object) -> str:
    outer, _, inner = name.partition(".")
    place: Any = state.values.get(outer)
    stated = (place or {}).get(inner) if inner and isinstance(place, dict | None) else place
    return f", not {stated}" if stated is not None else f" (not stated, and {found} by default)"
