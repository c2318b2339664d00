"""More than one set of weights, or none that loaders find: old shards, a new pickle, a wrong index."""

from __future__ import annotations

import json
from datetime import datetime

from cogbatch.checkpoint.doctor.changes import Changes
from cogbatch.checkpoint.doctor.finding import Finding
from cogbatch.checkpoint.doctor.state import State
from cogbatch.checkpoint.doctor.weights import BIN, SINGLE, WeightSet, first_difference, some
from cogbatch.checkpoint.manifest import MANIFEST
from cogbatch.checkpoint.safetensors_writer import DTYPE_NAMES, INDEX, TensorSpec, write_safetensors

SHARD_BYTES = 5_000_000_000
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
_KEPT = "what it replaces is kept as *.bak"


def find_stray_weights(state: State) -> Finding | None:
    """Whatever keeps from_pretrained, here or in plain transformers, from the one right set."""
    chosen = state.chosen
    if chosen is None:
        return Finding(
            "weights",
            f"no weights: neither {SINGLE}, {INDEX} nor {BIN}",
            "nothing can be loaded",
            "copy the weight files into the directory",
        )
    if chosen.problems or state.faults(chosen):
        return _incomplete(chosen)
    loading = next((one for one in state.sets if one.kind != "loose"), None)
    if chosen.kind == "loose":
        told = f"no {INDEX}" if loading is None else "; ".join(state.faults(loading)[:3])
        return Finding(
            "index",
            told,
            "transformers finds the weights by it and would load none, or not all",
            f"writes {INDEX} anew from the headers of {some(list(chosen.files))}, which hold every tensor",
            (INDEX,),
            lambda changes: _index_loose(chosen, changes),
        )
    others = [one for one in state.sets if one not in (chosen, loading) and one.kind != "loose"]
    if chosen is not loading:
        assert loading is not None
        faults = state.faults(loading)
        reason = (
            f"not whole ({faults[0]})"
            if faults
            else f"older ({_day(loading)}; {_differing(chosen, loading)})"
        )
        return Finding(
            "weights",
            f"{loading.entry} lies beside {chosen.entry} ({_day(chosen)}), and is {reason}",
            f"transformers loads {loading.entry}, whatever else is there",
            f"{_makes(chosen)}; {_KEPT}",
            _entries(state),
            lambda changes: _keep_only(chosen, [loading, *others], state, changes),
        )
    in_the_way = [one for one in others if _is_in_the_way(one, chosen, state)]
    if in_the_way:
        other = in_the_way[0]
        return Finding(
            "weights",
            f"{other.entry} lies beside {chosen.entry}, but "
            + (state.faults(other) or [f"is older ({_differing(chosen, other)})"])[0],
            "which of the two loads depends on who loads",
            f"{_makes(chosen)}; {_KEPT}",
            _entries(state),
            lambda changes: _keep_only(chosen, in_the_way, state, changes),
        )
    if chosen.is_pickle:
        return Finding(
            "weights",
            f"the weights are a pickle only ({chosen.entry})",
            "cogbatch reads safetensors only: a pickle may hold code, and cannot be checked tensor by tensor",
            f"{_makes(chosen)}; {_KEPT}",
            _entries(state),
            lambda changes: _keep_only(chosen, [], state, changes),
        )
    return None


def _incomplete(chosen: WeightSet) -> Finding | None:
    """No set is whole. Tensors that are missing from readable files are told by another check."""
    if not chosen.problems:
        return None
    return Finding(
        "index" if chosen.kind.endswith("index") else "weights",
        "; ".join(chosen.problems),
        "transformers cannot load the model",
        "nothing in the directory can replace them: copy the weight files and their index again",
    )


def _is_in_the_way(other: WeightSet, chosen: WeightSet, state: State) -> bool:
    if state.faults(other):  # a pickle behind safetensors is never read
        return not other.is_pickle or chosen.is_pickle
    return first_difference(chosen, other) is not None


def _keep_only(chosen: WeightSet, others: list[WeightSet], state: State, changes: Changes) -> None:
    if chosen.is_pickle:
        _convert(chosen, others, changes)
    else:
        if chosen.kind == "index" and SINGLE in chosen.files:
            rename_single(_places(chosen), chosen.tensor_bytes, changes)
        for other in others:
            _set_aside(other, changes, but=chosen)
    if _is_of_other_weights(state):
        changes.set_aside(MANIFEST)


def _convert(chosen: WeightSet, others: list[WeightSet], changes: Changes) -> None:
    """Killed anywhere: the pickle is what loads, until the new index is there."""
    changes.need_room(chosen.size_bytes)
    read = chosen.reader()
    specs = [TensorSpec(n, _DTYPES[stored.dtype], stored.shape) for n, stored in chosen.tensors.items()]
    with changes.staging() as folder:
        written = write_safetensors(
            folder, specs, make=read, max_shard_bytes=SHARD_BYTES, on_progress=changes.on_progress
        )
        for name in (INDEX, SINGLE):
            changes.set_aside(name)
        for other in others:
            _set_aside(other, changes, but=chosen)
        for leftover in sorted(changes.folder.glob("model*.safetensors")):
            changes.set_aside(leftover.name)
        for name in written.files:
            if name != INDEX:
                changes.put(folder / name)
        changes.put(folder / INDEX)
    _set_aside(chosen, changes)


def _index_loose(chosen: WeightSet, changes: Changes) -> None:
    write_index(_places(chosen), chosen.tensor_bytes, changes)
    if SINGLE not in chosen.files:
        changes.set_aside(SINGLE)


def write_index(places: dict[str, str], size_bytes: int, changes: Changes) -> None:
    """model.safetensors.index.json over tensor name -> file. size_bytes: of the tensors."""
    index = {"metadata": {"total_size": size_bytes}, "weight_map": dict(sorted(places.items()))}
    changes.write(INDEX, json.dumps(index, indent=2) + "\n")


def rename_single(places: dict[str, str], size_bytes: int, changes: Changes) -> None:
    """model.safetensors becomes a file like others of the index: while it has its name, it alone is read.

    places: tensor name -> file, all of them.
    """
    new = "model-00001-of-00001.safetensors"
    moved = {name: new if file == SINGLE else file for name, file in places.items()}
    changes.set_aside(new)
    write_index(moved, size_bytes, changes)
    changes.rename(SINGLE, new)


def _places(weights: WeightSet) -> dict[str, str]:
    return {name: stored.file for name, stored in weights.tensors.items()}


def _set_aside(weights: WeightSet, changes: Changes, *, but: WeightSet | None = None) -> None:
    for name in (weights.entry, *weights.files):
        if but is None or name not in (but.entry, *but.files):
            changes.set_aside(name)


def _makes(chosen: WeightSet) -> str:
    return (
        f"converts {chosen.entry} to safetensors, tensor by tensor"
        if chosen.is_pickle
        else f"leaves {chosen.entry} as the only one"
    )


def _differing(a: WeightSet, b: WeightSet) -> str:
    return f"{first_difference(a, b)} differs"


def _day(weights: WeightSet) -> str:
    return f"of {datetime.fromtimestamp(weights.changed_ns / 1e9):%Y-%m-%d %H:%M:%S}"


def _entries(state: State) -> tuple[str, ...]:
    recorded = state.manifest["files"] if state.manifest is not None and _is_of_other_weights(state) else ()
    return (*recorded, *(name for one in state.sets for name in (one.entry, *one.files)))


def _is_of_other_weights(state: State) -> bool:
    """Whether the manifest tells where weights came from that are not those to keep."""
    if state.manifest is None or state.chosen is None:
        return False
    return not set(state.chosen.files) <= state.manifest["files"].keys()
