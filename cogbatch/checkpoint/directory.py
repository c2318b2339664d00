"""From whatever a job names as its model (SAT directory, model directory, hub id) to a model directory."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

import cogbatch
from cogbatch.checkpoint.convert import convert
from cogbatch.checkpoint.hashing import cache_root, file_sha256, intact_sha256
from cogbatch.checkpoint.hub import local_directory
from cogbatch.checkpoint.kind import classify as classify  # also the way in for the layers above
from cogbatch.checkpoint.layout import code_sha256
from cogbatch.checkpoint.manifest import (
    NUMERICS_VERSION,
    TOKENIZER_FILES,
    model_fingerprint,
    read_manifest,
    require_intact,
    tokenizer_files,
)
from cogbatch.checkpoint.once import made_once
from cogbatch.checkpoint.remote import is_url
from cogbatch.checkpoint.sat import find_sat_files
from cogbatch.checkpoint.sat_config import template_version
from cogbatch.checkpoint.staging import staged_directory
from cogbatch.checkpoint.tokenizer import install_tokenizer
from cogbatch.errors import CheckpointError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.directory import read_config
from cogbatch.model.templates import TEMPLATE_NAMES


@dataclass(frozen=True)
class PreparedModel:
    """A model directory that is ready to load.

    path: the model directory. tokenizer_path: where to load the tokenizer from, path itself or a checked
    copy in the cache; None without one. fingerprint: of model and tokenizer together. template_version:
    config.json's name (chat, vqa, base, inst) of the template to use. origin: URL that path is a copy of.
    """

    path: Path
    fingerprint: str
    template_version: str
    tokenizer_path: Path | None
    origin: str | None = field(default=None, repr=False)

    @property
    def has_tokenizer(self) -> bool:
        return self.tokenizer_path is not None


def check_sat_config(sat_dir: str | Path, *, version: str | None = None) -> None:
    """Raises what prepare_model would raise of a SAT directory before it reads any weights.

    Supported class, required fields and their types, files of the iteration there, a template to use.

    Raises:
        ValueError: unknown version.
        CheckpointError: whatever is wrong, in one line.
    """
    files = find_sat_files(Path(sat_dir).expanduser())
    template_version(version, files.config, where=files.config_file)


def prepare_model(
    checkpoint: str | Path,
    *,
    tokenizer: str | Path | None = None,
    version: str | None = None,
    cache_dir: str | Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PreparedModel:
    """A model directory for any checkpoint: SAT is converted once into a cache, others are used as they are.

    Args:
        checkpoint: SAT directory, model directory, URL of either, or hub id.
        tokenizer: directory or hub id; None takes the model directory's own. One that is given is used, also
            where the directory has its own.
        version: SAT's template name; None takes what the checkpoint says.
        cache_dir: None means $COGBATCH_CACHE/models, else ~/.cache/cogbatch/models.
        on_progress: of a conversion: (bytes written, bytes in total).

    Raises:
        ValueError: unknown version.
        CheckpointError: whatever is wrong with checkpoint or tokenizer, in one line.
    """
    folder = local_directory(checkpoint)
    tokenizer_dir = None if tokenizer is None else local_directory(tokenizer, allow_patterns=TOKENIZER_FILES)
    cache = cache_root() / "models" if cache_dir is None else Path(cache_dir).expanduser()
    if classify(folder) == "sat":
        # The directory's own template is already `version`.
        folder = _converted(folder, tokenizer_dir, version=version, cache=cache, on_progress=on_progress)
        return _as_it_is(folder, tokenizer_dir=None, version=None, cache=cache)
    prepared = _as_it_is(folder, tokenizer_dir=tokenizer_dir, version=version, cache=cache)
    return replace(prepared, origin=str(checkpoint) if is_url(checkpoint) else None)


def _as_it_is(folder: Path, *, tokenizer_dir: Path | None, version: str | None, cache: Path) -> PreparedModel:
    config = read_config(folder)
    template = config.template_version if version is None else template_version(version, {}, where=folder)
    if template not in TEMPLATE_NAMES.values():
        raise CheckpointError(f"{folder}: template_version {template!r} is unknown; pass a version")
    require_intact(folder)
    manifest = read_manifest(folder)
    own = {file.name for file in tokenizer_files(folder)}
    if manifest is not None and tokenizer_dir is None and own <= manifest["files"].keys():
        return PreparedModel(folder, str(manifest["fingerprint"]), template, folder if own else None)
    # Only a conversion has checked, and where needed mended, the tokenizer beside the model.
    unchecked = tokenizer_dir or (folder if own else None)
    checked = None if unchecked is None else _checked_tokenizer(unchecked, config, cache=cache)
    return PreparedModel(folder, model_fingerprint(folder, tokenizer_dir=checked), template, checked)


def _checked_tokenizer(source: Path, config: CogVLMConfig, *, cache: Path) -> Path:
    """The cached copy of a tokenizer that fits this model."""
    identity = {
        "tokenizer": {file.name: file_sha256(file) for file in tokenizer_files(source)},
        "vocabulary": config.vocab_size,
        "special": [config.bos_token_id, config.eos_token_id, config.pad_token_id],
        "converter": _converter(),
    }

    def make(target: Path) -> None:
        with staged_directory(target, overwrite=False, marker="tokenizer_config.json") as folder:
            install_tokenizer(source, folder, config)

    return made_once(cache, "tokenizer", identity, make)


def _converted(
    sat_dir: Path,
    tokenizer_dir: Path | None,
    *,
    version: str | None,
    cache: Path,
    on_progress: Callable[[int, int], None] | None,
) -> Path:
    """The cached conversion."""
    files = find_sat_files(sat_dir)
    source = {file.relative_to(sat_dir).as_posix(): intact_sha256(file) for file in files.all}
    identity = {
        "source": source,
        "tokenizer": {file.name: file_sha256(file) for file in tokenizer_files(tokenizer_dir)},
        "version": version,
        "options": {"dtype": None, "inv_freq": "recompute", "merge_lora": True},
        "converter": _converter(),
    }

    def make(target: Path) -> None:
        convert(sat_dir, target, tokenizer=tokenizer_dir, version=version, on_progress=on_progress)
        manifest = read_manifest(target)
        if manifest is None or manifest["source"]["files"] != source:
            shutil.rmtree(target)  # it would lie under another checkpoint's key
            raise CheckpointError(
                f"{sat_dir}: changed while it was being read; start again when it is complete"
            )

    return made_once(cache, "model", identity, make)


def _converter() -> list[object]:
    """Whatever beside its input decides what a conversion, or a tokenizer's copy, is."""
    own = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        own.update(file.name.encode() + b"\0" + file.read_bytes())
    # transformers is asked what a tokenizer's ids are before it is mended, and its version is written down.
    libraries = [metadata.version(name) for name in ("transformers", "tokenizers")]
    return [cogbatch.__version__, NUMERICS_VERSION, *libraries, own.hexdigest(), code_sha256()]
