"""The spec as job.json keeps it: without the secrets of its addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cogbatch.batch.spec import JobSpec
from cogbatch.redact import lacks_secrets, sayable, without_secrets

ADDRESSES = (
    ("model", "checkpoint"),
    ("model", "tokenizer"),
    ("input", "path"),
    ("input", "image_root"),
    ("output", "path"),
)


def stored_spec(spec: JobSpec) -> dict[str, Any]:
    """The spec as JSON. Prompts are data and stay as they are."""
    tree: dict[str, Any] = spec.model_dump(mode="json")
    for section, key in ADDRESSES:
        if isinstance(value := tree[section][key], str):
            tree[section][key] = sayable(without_secrets(value, whole=True))
    return tree


def incomplete_addresses(tree: Mapping[str, Any]) -> list[str]:
    """Keys of a stored spec whose address lacks what stored_spec took out."""
    return [
        f"{section}.{key}" for section, key in ADDRESSES if lacks_secrets(str(tree.get(section, {}).get(key)))
    ]
