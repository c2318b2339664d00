"""The examination of one directory: every check in turn, each ill mended before the next check looks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cogbatch.checkpoint.doctor.changes import Changes
from cogbatch.checkpoint.doctor.code import find_foreign_code
from cogbatch.checkpoint.doctor.configuration import (
    find_contradicted_config,
    find_missing_auto_map,
    find_unusable_config,
    find_wrong_epsilon,
)
from cogbatch.checkpoint.doctor.finding import Finding
from cogbatch.checkpoint.doctor.origin import find_broken_promise, renew_manifest
from cogbatch.checkpoint.doctor.rotary import find_broken_rotary_tables, find_missing_rotary_tables
from cogbatch.checkpoint.doctor.state import State, read_state
from cogbatch.checkpoint.doctor.stray import find_stray_weights
from cogbatch.checkpoint.doctor.tensors import (
    find_misshapen_tensors,
    find_missing_layers,
    find_missing_tensors,
    find_unknown_tensors,
)
from cogbatch.checkpoint.doctor.tokenizer import find_missing_tokenizer
from cogbatch.errors import CheckpointError

# Weights come first: what they are decides everything after.
_CHECKS: tuple[Callable[[State], Finding | None], ...] = (
    find_stray_weights,
    find_missing_layers,
    find_missing_tensors,
    find_misshapen_tensors,
    find_unknown_tensors,
    find_unusable_config,
    find_contradicted_config,
    find_wrong_epsilon,
    find_missing_auto_map,
    find_foreign_code,
    find_broken_rotary_tables,
    find_missing_rotary_tables,
)


@dataclass(frozen=True)
class Ill:
    """A finding and what became of it. advice: what a fix does or did; of one it cannot mend, what to do."""

    ill: str
    what: str
    why: str
    advice: str
    can_mend: bool
    mended: bool


@dataclass(frozen=True)
class Examination:
    """ills: in the order in which they were found. kept: original file -> the name it was kept under.

    notes: one line each, for the user.
    """

    path: Path
    ills: tuple[Ill, ...]
    kept: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def is_well(self) -> bool:
        """No known ill, or none that is left."""
        return all(ill.mended for ill in self.ills)


def examine(
    model_dir: str | Path,
    *,
    fix: bool = False,
    tokenizer: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Examination:
    """The known ills of a Hugging Face model directory; with fix, mended where that is possible.

    Args:
        tokenizer: directory or hub id, installed where there is none.
        on_progress: of weights that are written anew: (bytes written, bytes in total).

    Raises:
        ValueError: a tokenizer without fix.
        CheckpointError: no such directory, not a CogVLM one, no room, or the tokenizer does not fit.
    """
    folder = Path(model_dir).expanduser()
    if tokenizer is not None and not fix:
        raise ValueError("a tokenizer is only installed by a fix: pass --fix too")
    if not fix:
        return Examination(folder, tuple(_told(one) for one in _findings(folder, None, tokenizer)), {})
    read_state(folder)
    with _alone(folder):
        changes = Changes(folder, on_progress=on_progress)
        changes.remove_leftovers()
        found = [_told(one) for one in _findings(folder, changes, tokenizer)]
        renew_manifest(changes, mended=sorted({one.ill for one in found if one.can_mend}))
        # What counts is what a second look sees, not what was meant.
        left = {one.ill: _told(one) for one in _findings(folder, None, tokenizer)}
    ills = [replace(one, mended=one.ill not in left) for one in found]
    ills += [one for one in left.values() if one.ill not in {other.ill for other in found}]
    notes = []
    if tokenizer is not None and "tokenizer" not in {one.ill for one in found}:
        notes.append(
            f"{tokenizer} was not installed: there is a tokenizer, whose files come first; move them away"
        )
    return Examination(folder, tuple(ills), changes.kept, tuple(notes))


def _findings(folder: Path, changes: Changes | None, tokenizer: str | None) -> list[Finding]:
    """What each check finds; with changes, each is mended at once, and the next check sees the result."""
    found: list[Finding] = []
    state = read_state(folder)

    def take(finding: Finding | None) -> None:
        nonlocal state
        if finding is None:
            return
        found.append(finding)
        if changes is not None and finding.mend is not None:
            finding.mend(changes)
            state = read_state(folder)

    for check in _CHECKS:
        take(check(state))
    take(find_missing_tokenizer(state, given=tokenizer))
    explained = {name for finding in found for name in finding.files}
    take(find_broken_promise(state, explained=explained if changes is None else explained | changes.written))
    return found


def _told(finding: Finding) -> Ill:
    return Ill(finding.ill, finding.what, finding.why, finding.advice, finding.mend is not None, False)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One doctor at a time; the lock dies with its process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as err:
        raise CheckpointError(f"{folder}: another cogbatch doctor is at work here; wait for it") from err
    finally:
        os.close(descriptor)
