"""The files of a model directory beside weights and tokenizer: configuration, processor, code, manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import transformers

import cogbatch
from cogbatch.checkpoint.hashing import file_sha256
from cogbatch.checkpoint.manifest import MANIFEST, NUMERICS_VERSION, fingerprint
from cogbatch.checkpoint.names import vision_config
from cogbatch.checkpoint.safetensors_writer import WrittenWeights
from cogbatch.model.configuration_cogvlm import CogVLMConfig, CogVLMVisionConfig

_AUTO_MAP = {
    "AutoConfig": "configuration_cogvlm.CogVLMConfig",
    "AutoModelForCausalLM": "modeling_cogvlm.CogVLMForCausalLM",
    "AutoModelForImageTextToText": "modeling_cogvlm.CogVLMForCausalLM",
    "AutoImageProcessor": "processing_cogvlm.CogVLMImageProcessor",
    "AutoProcessor": "processing_cogvlm.CogVLMProcessor",
}

CODE_FILES = (
    "configuration_cogvlm.py",
    "decoder.py",
    "modeling_cogvlm.py",
    "processing_cogvlm.py",
    "templates.py",
    "visual.py",
)


def write_config(folder: Path, config: CogVLMConfig, *, dtype: str) -> None:
    """config.json with every value explicit, and generation_config.json."""
    vision = {
        "model_type": CogVLMVisionConfig.model_type,
        **{name: getattr(vision_config(config), name) for name in CogVLMVisionConfig.__annotations__},
    }
    values = {
        "architectures": ["CogVLMForCausalLM"],
        "auto_map": _AUTO_MAP,
        "model_type": CogVLMConfig.model_type,
        **{name: getattr(config, name) for name in CogVLMConfig.__annotations__},
        "vision_config": vision,
        "dtype": dtype,
        "transformers_version": transformers.__version__,
    }
    _write_json(folder / "config.json", values)
    ids = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    generation = {"_from_model_config": True, **ids, "transformers_version": transformers.__version__}
    _write_json(folder / "generation_config.json", generation)


def write_processor(folder: Path, config: CogVLMConfig) -> None:
    """What AutoProcessor and AutoImageProcessor read; useful once the directory has a tokenizer."""
    image = {
        "auto_map": {name: _AUTO_MAP[name] for name in ("AutoImageProcessor", "AutoProcessor")},
        "image_processor_type": "CogVLMImageProcessor",
        "image_size": vision_config(config).image_size,
        "processor_class": "CogVLMProcessor",
    }
    _write_json(folder / "preprocessor_config.json", image)
    processor = {
        "auto_map": {"AutoProcessor": _AUTO_MAP["AutoProcessor"]},
        "num_image_tokens": config.num_image_tokens,
        "processor_class": "CogVLMProcessor",
        "template_version": config.template_version,
    }
    _write_json(folder / "processor_config.json", processor)


def write_code(folder: Path) -> None:
    """The model's code, so that the directory loads where cogbatch is not installed."""
    for name, content in shipped_code().items():
        (folder / name).write_bytes(content)


def shipped_code() -> dict[str, bytes]:
    """The code files that travel with every directory, by name."""
    folder = resources.files("cogbatch.model")
    return {name: (folder / name).read_bytes() for name in CODE_FILES}


def write_manifest(
    folder: Path,
    config: CogVLMConfig,
    *,
    weights: WrittenWeights,
    sources: Mapping[Path, str],
    source_root: Path,
    options: Mapping[str, Any],
    merged: Sequence[Mapping[str, Any]],
    dropped: Sequence[str],
    notes: Sequence[str],
) -> str:
    """cogbatch_manifest.json over everything in folder; written last. Returns the model fingerprint.

    sources: sha256 of each file below source_root that was converted.
    """
    model = fingerprint(weights.tensors, config, tokenizer_dir=folder)
    others = sorted(f for f in folder.iterdir() if f.is_file() and f.name not in weights.files)
    manifest = {
        "fingerprint": model,
        "numerics_version": NUMERICS_VERSION,
        "converter_version": cogbatch.__version__,
        "source": {
            "name": source_root.resolve().name,
            "files": {f.relative_to(source_root).as_posix(): sha256 for f, sha256 in sources.items()},
        },
        "options": dict(options),
        "merged": [dict(item) for item in merged],
        "dropped": list(dropped),
        "notes": list(notes),
        # What the tensors alone do not say: a lost config.json can be written again.
        "config": json.loads((folder / "config.json").read_text(encoding="utf-8")),
        "files": weights.files | {f.name: file_sha256(f) for f in others},
    }
    _write_json(folder / MANIFEST, manifest)
    return model


def code_sha256() -> str:
    """Identifies the code that travels: a directory converted with other code is another directory."""
    digest = hashlib.sha256()
    for name, content in sorted(shipped_code().items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
