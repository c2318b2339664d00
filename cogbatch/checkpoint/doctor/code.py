"""The model's code files: absent, or written for an older transformers. Compared by bytes, never run."""

from __future__ import annotations

from importlib.metadata import version

from cogbatch.checkpoint.doctor.changes import Changes
from cogbatch.checkpoint.doctor.finding import Finding
from cogbatch.checkpoint.doctor.state import State
from cogbatch.checkpoint.doctor.weights import some
from cogbatch.checkpoint.layout import shipped_code, write_processor

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
    return Finding(
        "code",
        what,
        why,
        f"writes the code that cogbatch ships, for transformers {version('transformers').split('.')[0]}"
        + ("; what it replaces is kept as *.bak" if foreign else ""),
        (*files, *_PROCESSOR),
        lambda changes: _write(state, changes),
    )


def _write(state: State, changes: Changes) -> None:
    with changes.staging() as folder:
        for name, code in shipped_code().items():
            (folder / name).write_bytes(code)
            changes.put(folder / name)
        if state.config is not None:
            write_processor(folder, state.config)
            for name in _PROCESSOR:
                if not (state.folder / name).exists():
                    changes.put(folder / name)
