"""The model's code files: absent, or written for an older transformers. Compared by bytes, never run."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from cogbatch.checkpoint.doctor.changes import Changes
from cogbatch.checkpoint.doctor.configuration import write_complete_config
from cogbatch.checkpoint.doctor.finding import Finding
from cogbatch.checkpoint.doctor.state import CONFIG, State
from cogbatch.checkpoint.doctor.weights import some
from cogbatch.checkpoint.layout import shipped_code, write_processor

_IMPORT = re.compile(r"^\s*from \.(\w+) import", flags=re.MULTILINE)
_PROCESSOR = ("preprocessor_config.json", "processor_config.json")


def find_foreign_code(state: State) -> Finding | None:
    """Code files that this version ships, or that a conversion wrote, are well; all others are not."""
    shipped = shipped_code()
    absent = [name for name in shipped if not (state.folder / name).is_file()]
    foreign = [
        name
        for name, code in shipped.items()
        if name not in absent and (state.folder / name).read_bytes() != code and not state.is_vouched(name)
    ]
    if not absent and not foreign:
        return None
    files = (*absent, *foreign)
    if foreign:
        what = f"{some(foreign)} {'is' if len(foreign) == 1 else 'are'} not the code that cogbatch ships"
        why = (
            "CogVLM's official code is for transformers up to 4.41 and fails with "
            f"{version('transformers')}; cogbatch itself runs no code from a directory"
        )
    else:
        what = f"there {'is' if len(absent) == 1 else 'are'} no {some(absent)}"
        why = "plain transformers cannot load the model: it does not know CogVLM by itself"
    imported = _imports(state, foreign)
    is_silent = state.config is not None and "model_type" not in state.values
    return Finding(
        "code",
        what,
        why,
        f"writes the code that cogbatch ships, for transformers {version('transformers').split('.')[0]}"
        + (f", and every value that other code has by default into {CONFIG}" if is_silent else "")
        + ("; what it replaces is kept as *.bak" if foreign else ""),
        (*files, *imported, *_PROCESSOR, *((CONFIG,) if is_silent else ())),
        lambda changes: _write(state, changes, obsolete=imported, complete_config=is_silent),
    )


def _imports(state: State, names: list[str]) -> list[str]:
    """Files that only the code to replace imports, read from its text: official repositories have util.py."""
    found = {module for name in names for module in _IMPORT.findall(_text(state.folder / name))}
    files = sorted(f"{module}.py" for module in found)
    return [name for name in files if name not in shipped_code() and (state.folder / name).is_file()]


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _write(state: State, changes: Changes, *, obsolete: list[str], complete_config: bool) -> None:
    if complete_config:
        write_complete_config(state, changes)
    for name in obsolete:
        changes.set_aside(name)
    with changes.staging() as folder:
        for name, code in shipped_code().items():
            (folder / name).write_bytes(code)
            changes.put(folder / name)
        if state.config is not None:
            write_processor(folder, state.config)
            for name in _PROCESSOR:
                if not (state.folder / name).exists():
                    changes.put(folder / name)
