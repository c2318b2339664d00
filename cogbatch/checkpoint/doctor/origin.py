"""cogbatch_manifest.json of a converted directory: damage that it proves, and keeping it true after a fix."""

from __future__ import annotations

import json
from collections.abc import Collection

from cogbatch.checkpoint.doctor.changes import Changes
from cogbatch.checkpoint.doctor.finding import Finding
from cogbatch.checkpoint.doctor.state import State
from cogbatch.checkpoint.doctor.weights import some
from cogbatch.checkpoint.hashing import file_sha256
from cogbatch.checkpoint.manifest import MANIFEST, check_files, model_fingerprint, read_manifest
from cogbatch.errors import CheckpointError


def find_broken_promise(state: State, *, explained: Collection[str]) -> Finding | None:
    """Files that are not what was converted. explained: those that other findings are about."""
    try:
        changed = [name for name in check_files(state.folder) if name not in explained]
    except CheckpointError as err:
        return Finding(
            "manifest",
            str(err).removeprefix(f"{state.folder}/"),
            "cogbatch refuses the directory",
            f"delete {MANIFEST} to use the directory as one of unknown origin, or convert again",
        )
    if not changed:
        return None
    return Finding(
        "manifest",
        f"{some(changed)} {'is' if len(changed) == 1 else 'are'} not as {MANIFEST} says",
        "cogbatch refuses a directory that is not what was converted",
        f"copy the directory again, or convert again; if the change is meant, delete {MANIFEST}",
    )


def renew_manifest(changes: Changes, *, mended: Collection[str]) -> None:
    """Writes the manifest anew over the files that changed; others keep the sha256 of their conversion."""
    folder = changes.folder
    try:
        manifest = read_manifest(folder)
    except CheckpointError:
        return  # told as a finding of its own
    if manifest is None:
        return
    files = {name: digest for name, digest in manifest["files"].items() if name not in changes.kept}
    files |= {name: file_sha256(folder / name) for name in changes.written if (folder / name).is_file()}
    if files == manifest["files"]:
        return
    manifest["files"] = dict(sorted(files.items()))
    manifest["notes"] = [*manifest.get("notes", []), f"cogbatch doctor mended: {', '.join(mended)}"]
    intact = all((folder / n).is_file() and file_sha256(folder / n) == digest for n, digest in files.items())
    if intact:
        manifest["fingerprint"] = model_fingerprint(folder)
    changes.write(MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
