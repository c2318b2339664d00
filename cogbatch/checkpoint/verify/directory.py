"""What a model directory's files say, without a model: manifest, sha256s, configuration, tensors, code."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogbatch.checkpoint.manifest import MANIFEST, NUMERICS_VERSION, fingerprint, read_manifest, weight_files
from cogbatch.checkpoint.names import is_rotary
from cogbatch.checkpoint.safetensors_writer import DTYPE_NAMES, INDEX
from cogbatch.checkpoint.verify.check import Check
from cogbatch.checkpoint.verify.code import check_code
from cogbatch.checkpoint.verify.tensors import StoredTensor, check_finite, check_tensors, read_tensors
from cogbatch.checkpoint.verify.threads import differences, some
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig, CogVLMVisionConfig
from cogbatch.model.directory import read_config

# What official config.json files leave to class defaults; there, the tensors decide.
_LEFT_TO_CODE = {
    "model_type",
    "num_multi_query_heads",
    "num_vision_expert_layers",
    "vision_expert_qkv_bias",
    "rope_theta",
    "rope_inv_freq",
    "rope_dtype",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "use_cache",
    "tie_word_embeddings",
    "vision_config.model_type",
    "vision_config.downsample",
    "vision_config.dropout_prob",
    "vision_config.hidden_act",
    "auto_map",
    "dtype",
}

# Of the manifest, besides files, which read_manifest checks.
_OBJECTS = ("source", "options")


@dataclass(frozen=True)
class Contents:
    """What the checks learned.

    manifest, config: None where there is none to be read. dtype: of all weights; None: they differ, or cannot
    be read. runs_own_code: the code files are, byte for byte, those of this version.
    """

    checks: tuple[Check, ...]
    manifest: dict[str, Any] | None
    config: CogVLMConfig | None
    is_readable: bool
    dtype: str | None
    runs_own_code: bool


def check_directory(folder: Path, *, on_check: Callable[[Check], None]) -> Contents:
    """Every check that needs no model; each is reported as soon as it is done."""
    done: list[Check] = []

    def report(check: Check) -> None:
        done.append(check)
        on_check(check)

    manifest, check = _manifest(folder)
    report(check)
    if manifest is not None:
        report(_files(folder, manifest))
    config, check = _config(folder, official=manifest is None)
    report(check)
    stored: list[StoredTensor] = []
    try:
        stored = read_tensors(weight_files(folder))
    except CheckpointError as err:
        report(Check("tensors", "FAILED", str(err)))
    else:
        if config is not None:
            report(check_tensors(folder, stored, config))
            report(check_finite(stored, config, official=manifest is None))
        if config is not None and manifest is not None:
            report(_fingerprint(folder, stored, config, manifest))
    code, runs_own_code = check_code(folder, manifest)
    report(code)
    return Contents(
        checks=tuple(done),
        manifest=manifest,
        config=config,
        is_readable=config is not None and bool(stored),
        dtype=_common_dtype(stored),
        runs_own_code=runs_own_code,
    )


def _manifest(folder: Path) -> tuple[dict[str, Any] | None, Check]:
    try:
        manifest = read_manifest(folder)
    except CheckpointError as err:
        return None, Check("manifest", "FAILED", str(err))
    if manifest is None:
        return None, Check(
            "manifest", "ok", "none: not written by cogbatch; judged by its tensors and config"
        )
    manifest, ills = _mended(manifest)
    if ills:
        return manifest, Check("manifest", "FAILED", f"{folder / MANIFEST}: damaged ({ills}); convert again")
    source = manifest.get("source", {}).get("name", "unknown")
    version = manifest.get("converter_version", "unknown")
    return manifest, Check("manifest", "ok", f"cogbatch {version}, converted from {source}")


def _mended(manifest: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The manifest with an object wherever one is read, and what was none."""
    wrong = {name: manifest[name] for name in _OBJECTS if not isinstance(manifest.get(name, {}), dict)}
    manifest = manifest | {name: {} for name in wrong}
    source = manifest.get("source", {})
    if not isinstance(source.get("files", {}), dict):
        wrong["source.files"] = source["files"]
        manifest["source"] = source | {"files": {}}
    ills = (f"{name} is {reprlib.repr(value)}, expected an object" for name, value in wrong.items())
    return manifest, "; ".join(ills)


def _files(folder: Path, manifest: dict[str, Any]) -> Check:
    expected: dict[str, str] = manifest["files"]
    if unknown := [name for name in _read_by_all(folder) if name not in expected]:
        return Check("files", "FAILED", f"the manifest has no sha256 of {some(unknown)}; convert again")
    if ills := differences(folder, expected):
        return Check("files", "FAILED", f"{ills} since the conversion; copy again, or convert again")
    known = {*expected, MANIFEST}
    extra = sorted(entry.name for entry in folder.iterdir() if entry.name not in known)
    beside = f"; not in the manifest: {some(extra)}" if extra else ""
    return Check("files", "ok", f"sha256 of {len(expected)} files as in the manifest{beside}")


def _read_by_all(folder: Path) -> list[str]:
    """Files here that say which model this is, whoever reads it."""
    try:
        weights = [file.name for file in weight_files(folder)]
    except CheckpointError:
        weights = []  # has a line of its own
    names = dict.fromkeys(["config.json", "model.safetensors", INDEX, *weights])
    return [name for name in names if (folder / name).is_file()]


def _config(folder: Path, *, official: bool) -> tuple[CogVLMConfig | None, Check]:
    try:
        config = read_config(folder)
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except CheckpointError as err:
        return None, Check("config", "FAILED", str(err))
    vision = values.get("vision_config") or {}
    wanted = ["architectures", "auto_map", "model_type", *CogVLMConfig.__annotations__]
    missing = [name for name in wanted if name not in values]
    vision_keys = ("model_type", *CogVLMVisionConfig.__annotations__)
    missing += [f"vision_config.{name}" for name in vision_keys if name not in vision]
    if "dtype" not in values and "torch_dtype" not in values:
        missing.append("dtype")
    if official:
        left = [name for name in missing if name in _LEFT_TO_CODE]
        missing = [name for name in missing if name not in _LEFT_TO_CODE]
    if missing:
        advice = "cogbatch doctor --fix may mend it" if official else "convert again"
        return config, Check("config", "FAILED", f"config.json lacks {some(missing)}; {advice}")
    if official and left:
        return config, Check("config", "ok", f"complete; left to code and tensors: {some(left)}")
    return config, Check("config", "ok", f"complete, template {config.template_version}")


def _fingerprint(
    folder: Path, stored: Sequence[StoredTensor], config: CogVLMConfig, manifest: dict[str, Any]
) -> Check:
    if manifest.get("numerics_version") != NUMERICS_VERSION:
        made = manifest.get("numerics_version")
        detail = (
            f"made by numerics version {made}, this is {NUMERICS_VERSION}; convert again to have it compared"
        )
        return Check("fingerprint", "skipped", detail)
    computed = fingerprint([tensor.digest for tensor in stored], config, tokenizer_dir=folder)
    if computed != manifest["fingerprint"]:
        detail = f"{computed[:12]} is not the manifest's {str(manifest['fingerprint'])[:12]}; convert again"
        return Check("fingerprint", "FAILED", detail)
    return Check("fingerprint", "ok", computed)


def _common_dtype(stored: Sequence[StoredTensor]) -> str | None:
    names = {short: str(dtype).removeprefix("torch.") for dtype, short in DTYPE_NAMES.items()}
    found = {tensor.digest.dtype for tensor in stored if not is_rotary(tensor.digest.name)}
    return names.get(found.pop()) if len(found) == 1 else None
