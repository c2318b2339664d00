"""Which code transformers would run out of a model directory, and whether it is ours. Nothing is run here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cogbatch.checkpoint.layout import CODE_FILES, shipped_code
from cogbatch.checkpoint.verify.check import Check
from cogbatch.checkpoint.verify.threads import sha256, some

_AUTO_CLASSES = ("AutoConfig", "AutoModelForCausalLM")


def check_code(folder: Path, manifest: dict[str, Any] | None) -> tuple[Check, bool]:
    """Whether transformers would run, out of this directory, what this version ships and nothing else."""
    ours = shipped_code()
    foreign = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*.py")
        if ours.get(file.relative_to(folder).as_posix()) != file.read_bytes()
    )
    missing = [name for name in CODE_FILES if not (folder / name).is_file()]
    entries = _foreign_entries(folder)
    if not (foreign or missing or entries):
        return Check("code", "ok", f"{len(CODE_FILES)} files, those of this version"), True
    texts = [f"{some(foreign)} not of this version" if foreign else "", *entries]
    texts.append(f"{some(missing)} missing" if missing else "")
    detail = f"{'; '.join(filter(None, texts))}: not run, cogbatch's own classes instead"
    recorded = {} if manifest is None else manifest["files"]
    of_the_manifest = (
        foreign
        and not (missing or entries)
        and all(recorded.get(name) == sha256(folder / name) for name in foreign)
    )
    if manifest is None or of_the_manifest:
        return Check("code", "warning", detail), False
    return Check("code", "FAILED", f"{detail}; convert again"), False


def _foreign_entries(folder: Path) -> list[str]:
    """What config.json names as code that is not in CODE_FILES, another repository's for example."""
    try:
        auto_map = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map") or {}
        entries = {name: str(value) for name, value in auto_map.items()}
    except (OSError, ValueError, AttributeError):
        return ["config.json's auto_map is unreadable"]
    known = tuple(f"{Path(name).stem}." for name in CODE_FILES)
    lacking = [f"config.json's auto_map lacks {name}" for name in _AUTO_CLASSES if name not in entries]
    return lacking + [
        f"config.json's auto_map names {value}"
        for value in entries.values()
        if not value.startswith(known) or value.count(".") != 1
    ]
