"""Work on many files at once, and their sha256s. Nothing is remembered between calls."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Results in the order of items. Hashing and reading tensors leave the interpreter to other threads."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))


def sha256(file: Path) -> str:
    """Of the bytes as they are now: a bit that fell over on disk changes neither size nor time."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def differences(folder: Path, expected: dict[str, str]) -> str:
    """Files of folder that are not as expected, name -> sha256; "" when all are."""
    missing = [name for name in expected if not (folder / name).is_file()]
    present = [name for name in expected if name not in missing]
    found = dict(zip(present, in_threads(lambda name: sha256(folder / name), present), strict=True))
    changed = [name for name in present if found[name] != expected[name]]
    ills = ((missing, "missing"), (changed, "changed"))
    return "; ".join(f"{some(names)} {ill}" for names, ill in ills if names)


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
