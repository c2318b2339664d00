"""What a model directory is: cogbatch_manifest.json, the model fingerprint, and whether files still match.

The fingerprint names results, not files: sharding, file names and comments do not change it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from cogbatch.checkpoint.hashing import file_sha256, remembered
from cogbatch.checkpoint.names import is_rotary, vision_config
from cogbatch.checkpoint.safetensors_writer import INDEX, TensorDigest, raw_bytes
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig, CogVLMVisionConfig
from cogbatch.model.directory import read_config

MANIFEST = "cogbatch_manifest.json"
WHOLE = "model.safetensors"
"""Weights in one file, which transformers loads rather than an index."""

NUMERICS_VERSION = 2
"""Raised whenever our code computes other numbers from the same weights."""

TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)

# Values of CogVLMConfig that leave every candidate as it is.
_NO_EFFECT = {"initializer_range", "use_cache", "dropout_prob", "vision_config"}


def fingerprint(tensors: Iterable[TensorDigest], config: CogVLMConfig, *, tokenizer_dir: Path | None) -> str:
    """Hex sha256 over tensors, configuration, tokenizer files and NUMERICS_VERSION.

    Rotary buffers do not count: our class computes them from the configuration.
    """
    identity = {
        "numerics_version": NUMERICS_VERSION,
        "tensors": sorted(list(tensor) for tensor in tensors if not is_rotary(tensor.name)),
        "config": {
            **_values(config, CogVLMConfig),
            "vision_config": _values(vision_config(config), CogVLMVisionConfig),
        },
        "tokenizer": {file.name: file_sha256(file) for file in tokenizer_files(tokenizer_dir)},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def model_fingerprint(model_dir: Path, *, tokenizer_dir: Path | None = None) -> str:
    """The fingerprint of a Hugging Face directory, from its content; a manifest is not asked.

    Args:
        tokenizer_dir: tokenizer to use with it; None takes the directory's own, if any.

    Raises:
        CheckpointError: config.json or safetensors are missing or unreadable.
    """
    own = tokenizer_dir or model_dir
    files = (model_dir / "config.json", *weight_files(model_dir), *tokenizer_files(own))
    return remembered(f"fingerprint {NUMERICS_VERSION}", files, lambda: _compute(model_dir, own))


def weight_files(model_dir: Path) -> tuple[Path, ...]:
    """The safetensors files that from_pretrained would read: one whole file first, else those of the index.

    Raises:
        CheckpointError: there are none, or one that the index names is missing.
    """
    index, single = model_dir / INDEX, model_dir / WHOLE
    if not single.is_file() and index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as err:
            raise CheckpointError(f"{index}: not a weight index ({err!r}); copy it again") from err
        files = tuple(model_dir / name for name in names)
    else:
        files = (single,)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{model_dir}: {', '.join(missing[:5])} missing; copy the directory again")
    return files


def tokenizer_files(folder: Path | None) -> tuple[Path, ...]:
    """The tokenizer files in folder that exist, in a fixed order."""
    return () if folder is None else tuple(folder / n for n in TOKENIZER_FILES if (folder / n).is_file())


def read_manifest(model_dir: Path) -> dict[str, Any] | None:
    """The manifest, or None without one. Raises CheckpointError: unreadable."""
    file = model_dir / MANIFEST
    if not file.is_file():
        return None
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(manifest["files"], dict) or not isinstance(manifest["fingerprint"], str):
            raise TypeError("no files or fingerprint")
    except (ValueError, KeyError, TypeError) as err:
        raise CheckpointError(f"{file}: damaged ({err!r}); convert again, or delete it") from err
    return dict(manifest)


def check_files(model_dir: Path) -> list[str]:
    """Names of files that are missing or differ from the manifest; empty: all is well, or no manifest.

    What would load without being in the manifest is among them: weights that someone laid beside the others.
    """
    manifest = read_manifest(model_dir)
    if manifest is None:
        return []
    files = manifest["files"]
    try:
        loaded = ["config.json", *(file.name for file in weight_files(model_dir))]
    except CheckpointError:  # those that are missing are found below
        loaded = ["config.json"]
    return [name for name in loaded if name not in files] + [
        name
        for name, expected in files.items()
        if not (model_dir / name).is_file() or file_sha256(model_dir / name) != expected
    ]


def require_intact(model_dir: Path) -> None:
    """Raises CheckpointError: the directory is not what its manifest says. Without one nothing is asked."""
    if damaged := check_files(model_dir):
        raise CheckpointError(
            f"{model_dir}: {', '.join(damaged[:5])} differ from the manifest; convert again, or delete "
            f"{MANIFEST} if the change is meant"
        )


def _compute(model_dir: Path, tokenizer_dir: Path) -> str:
    tensors = [digest for file in weight_files(model_dir) for digest in _digests(file)]
    return fingerprint(tensors, read_config(model_dir), tokenizer_dir=tokenizer_dir)


def _digests(file: Path) -> list[TensorDigest]:
    try:
        with safe_open(file, framework="pt") as tensors:
            return [
                TensorDigest(
                    name,
                    tensors.get_slice(name).get_dtype(),
                    tuple(tensors.get_slice(name).get_shape()),
                    hashlib.sha256(raw_bytes(tensors.get_tensor(name))).hexdigest(),
                )
                for name in tensors.keys()  # noqa: SIM118 - not a dict
            ]
    except Exception as err:  # SafetensorError has no public base besides Exception
        raise CheckpointError(f"{file}: not readable as safetensors ({err}); copy it again") from err


def _values(config: object, cls: type) -> dict[str, Any]:
    return {name: getattr(config, name) for name in cls.__annotations__ if name not in _NO_EFFECT}
