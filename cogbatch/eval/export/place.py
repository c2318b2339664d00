"""Where an export appears: as a whole, or not at all. Replaces nothing but an earlier export."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cogbatch.dataset.atomic import TEMPORARY_SUFFIX, read_json
from cogbatch.dataset.object_path import ObjectPath, Place, names_in, place_of
from cogbatch.errors import EvaluationError
from cogbatch.redact import lacks_secrets, without_secrets

MARKER = "cogbatch_export.json"  # what an export is known by; "names" lists what lies beside it
CARD = "README.md"
MANY_FILES = (
    1000  # for which the whole machine is synchronised: one fsync each would take hours for a million
)


def check_place(out: str | Place, *, overwrite: bool, may_be_remote: bool) -> Place:
    """The place, where an export may appear.

    Raises EvaluationError: something is there already and may not go, or an address that cannot be used.
    """
    if lacks_secrets(without_secrets(str(out))):
        raise EvaluationError(f"{out}: an address with a secret; leave credentials to the environment")
    place = place_of(out)
    if isinstance(place, ObjectPath) and not may_be_remote:
        raise EvaluationError(
            f"{place}: this format is read from local files; export to a local folder and copy that, or use"
            " hf-dataset, dpo, webdataset or openai-chat"
        )
    if isinstance(place, Path) and place.is_symlink():
        raise EvaluationError(f"{place} is a link; expected a folder or a new path")
    if isinstance(place, Path) and place.exists() and not place.is_dir():
        raise EvaluationError(f"{place} is a file; expected a folder or a new path")
    names = names_in(place)
    if names and not overwrite:
        raise EvaluationError(f"{place} is not empty; use another path, or --overwrite to replace an export")
    if names:
        _check_is_export(place, names)
    return place


def _check_is_export(place: Place, names: list[str]) -> None:
    try:
        known = {MARKER, *read_json(place / MARKER)["names"]}
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise EvaluationError(
            f"{place} is no earlier export: it has no {MARKER}; nothing is deleted, use another path"
        ) from err
    if foreign := sorted(set(names) - known):
        raise EvaluationError(
            f"{place} holds what no export wrote ({', '.join(foreign[:5])}); move it, or use another path"
        )


@contextmanager
def appearing(place: Place, *, overwrite: bool) -> Iterator[Path]:
    """A new local folder that becomes the place once the block ends without an error.

    What may have come to lie there in the meantime is looked at again: EvaluationError as of check_place.

    On disk by renaming, the old folder deleted afterwards; on an object store file by file, the card last.
    A killed process leaves a hidden folder *.tmp and the old state.
    """
    mark = uuid.uuid4().hex
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = place.with_name(f".{place.name}.{mark}{TEMPORARY_SUFFIX}")
        folder.mkdir()
    else:
        folder = Path(tempfile.mkdtemp(prefix="cogbatch-export-"))
    try:
        yield folder
        check_place(place, overwrite=overwrite, may_be_remote=True)
        _finish(folder, place, mark)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finish(folder: Path, place: Place, mark: str) -> None:
    if isinstance(place, ObjectPath):
        _upload(folder, place)
        return
    _flush(folder)
    if not place.exists():
        folder.rename(place)
        return
    old = place.with_name(f".{place.name}.{mark}.old{TEMPORARY_SUFFIX}")
    place.rename(old)
    try:
        folder.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old)


def _flush(folder: Path) -> None:
    """Everything in the folder survives a power cut once it has appeared."""
    paths = [folder, *folder.rglob("*")]
    if len(paths) > MANY_FILES:
        os.sync()
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _upload(folder: Path, place: ObjectPath) -> None:
    place.remove_tree()
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    for name in sorted(files, key=lambda file: file.name == CARD):
        place.upload(folder / name, name.as_posix())
