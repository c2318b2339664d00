"""A local directory, or a local copy of one behind a URL or on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cogbatch.checkpoint.remote import is_url, pulled_directory
from cogbatch.errors import CheckpointError


def local_directory(source: str | Path, *, allow_patterns: Sequence[str] | None = None) -> Path:
    """The directory `source`, or its local copy when it is a URL, or a hub id ("owner/name") and no path.

    Args:
        allow_patterns: which files to fetch; None fetches all.

    Raises:
        CheckpointError: no such directory, and not on the hub or the hub cannot be reached.
    """
    if is_url(source):
        return pulled_directory(str(source), patterns=allow_patterns)
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{source}: expected a directory, found a file")
    # A path whose parent exists is a mistyped path: nobody's files are looked up elsewhere.
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(source)) or path.parent.exists():
        raise CheckpointError(
            f"{source}: no such directory; check the path, or give a hub id such as owner/name"
        )
    # Costs a second, and most runs never come here.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=list(allow_patterns or "*")))
    except (
        Exception
    ) as err:  # offline, unknown, gated: the hub client has many errors, each with its own base
        reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise CheckpointError(
            f"{source}: no such directory, and not to be had from the Hugging Face hub ({reason}); "
            "give a local directory, or go online"
        ) from err
