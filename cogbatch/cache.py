"""Where this machine keeps what can be made again. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """$COGBATCH_CACHE, else ~/.cache/cogbatch: converted models, remembered hashes, logs of remote runs."""
    configured = os.environ.get("COGBATCH_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "cogbatch"
