"""In what two jobs differ, for whoever starts one in the directory of the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

MAX_DIFFERENCES = 5  # in one message
# What a fingerprint that differs means.
_CHANGED = {
    "input.fingerprint": "the input files changed",
    "model.fingerprint": "the model or its tokenizer changed",
    "shards.sha256": "the shards changed",
}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Key by key, old -> new, of the identities (of the whole job where there is none)."""
    before = dict(_flat(old.get("identity", old)))
    after = dict(_flat(new.get("identity", new)))
    keys = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
    if any(key.startswith("input.") for key in keys):  # another input has other shards
        keys = [key for key in keys if not key.startswith("shards.")]
    lines = [
        _CHANGED.get(key) or f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in keys[:MAX_DIFFERENCES]
    ]
    return [*lines, *([f"and {len(keys) - MAX_DIFFERENCES} more"] if len(keys) > MAX_DIFFERENCES else [])]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
        yield prefix, text if len(text) <= 100 else text[:97] + "..."
