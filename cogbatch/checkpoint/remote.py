"""A model directory behind a URL that fsspec opens (s3://, gs://, file://): copied once into the cache.

Only what conversion or loading reads is copied: never optimizer states or older iterations.
"""

from __future__ import annotations

import fnmatch
import json
import posixpath
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec

from cogbatch.checkpoint.folder import ProvenFile, damaged_files, prove_folder
from cogbatch.checkpoint.hashing import cache_root, remember_sha256
from cogbatch.checkpoint.once import key_of, locked
from cogbatch.checkpoint.staging import remove_leftovers, staged_directory
from cogbatch.checkpoint.verify.threads import some
from cogbatch.errors import CheckpointError
from cogbatch.redact import without_secrets

SAT_CONFIG, LATEST = "model_config.json", "latest"
SAT_WEIGHTS = "mp_rank_*_model_states.pt"
MODEL_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py")
# What changes when a file does: S3, GCS, HTTP, then times.
_VERSION_KEYS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "modified", "created")


def is_url(source: str | Path) -> bool:
    """Whether source is a URL rather than a path or hub id."""
    return "://" in str(source)


def pulled_directory(url: str, *, patterns: Sequence[str] | None = None) -> Path:
    """The local copy of the directory behind url, pulled once for every state that it has there.

    A copy that was damaged since is pulled again.

    Args:
        patterns: names to copy; None takes what conversion or loading reads.

    Raises:
        CheckpointError: nothing there, cannot be opened or read, or damaged on the way.
    """
    fs, root = _opened(url)
    infos = _listed(fs, root, url)
    names = (
        _what_is_read(fs, root, url, infos)
        if patterns is None
        else {name for name in infos if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    )
    state = [[name, infos[name]["size"], _version(infos[name])] for name in sorted(names)]
    target = cache_root() / "models" / f"pulled-{key_of([without_secrets(url), state])}"
    with locked(target.with_name(f"{target.name}.lock")):
        if not _is_as_pulled(target):
            remove_leftovers(target, only_writer=True)
            shutil.rmtree(target, ignore_errors=True)
            _pull(url, names, target, size_bytes=sum(int(infos[name]["size"] or 0) for name in names))
    return target


def fetch(
    url: str, names: Iterable[str], into: Path, *, on_progress: Callable[[], object] = lambda: None
) -> None:
    """Copies files of the directory behind url into a local one.

    Raises:
        CheckpointError: one cannot be opened or read.
    """
    fs, root = _opened(url)
    told = fsspec.callbacks.Callback(hooks={"told": lambda *_, **__: on_progress()})
    for name in names:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        with _one_line(f"{without_secrets(url)}/{name}"):
            fs.get_file(posixpath.join(root, name), str(into / name), callback=told)
        on_progress()


def _pull(url: str, names: Iterable[str], target: Path, *, size_bytes: int) -> None:
    # Reading a manifest imports torch; a copy for nodes, which needs `fetch` alone, must not.
    from cogbatch.checkpoint.manifest import MANIFEST, check_files

    names = sorted(names)
    with staged_directory(target, overwrite=False, marker="config.json", size_bytes=size_bytes) as folder:
        fetch(url, names, folder)
        has_all = MANIFEST in names and any(name.endswith(".safetensors") for name in names)
        if has_all and (damage := check_files(folder)):
            where = without_secrets(url)
            raise CheckpointError(f"{where}: {some(damage)} differ from the manifest there; upload it again")
        proven = prove_folder(folder, names)
    _record(target).write_text(json.dumps([asdict(file) for file in proven.files]))
    for file in proven.files:
        remember_sha256(target / file.name, file.sha256)


def _is_as_pulled(target: Path) -> bool:
    try:
        files = [ProvenFile(**file) for file in json.loads(_record(target).read_text())]
    except (OSError, ValueError, TypeError):
        return False
    return not damaged_files(files, target)


def _record(target: Path) -> Path:
    """Beside the copy, not in it: sha256 of every file."""
    return target.with_name(f"{target.name}.json")


def _what_is_read(fs: Any, root: str, url: str, infos: Mapping[str, Any]) -> set[str]:
    """Names that conversion or loading reads."""
    if SAT_CONFIG not in infos:
        patterns = MODEL_PATTERNS
        return {n for n in infos if "/" not in n and any(fnmatch.fnmatchcase(n, p) for p in patterns)}
    iteration = "*"
    if LATEST in infos:
        with _one_line(f"{without_secrets(url)}/{LATEST}"):
            iteration = fs.cat_file(posixpath.join(root, LATEST)).decode("utf-8", "replace").strip()
    weights = {name for name in infos if fnmatch.fnmatchcase(name, f"{iteration}/{SAT_WEIGHTS}")}
    return weights | ({SAT_CONFIG, LATEST} & infos.keys())


def _opened(url: str) -> tuple[Any, str]:
    with _one_line(without_secrets(url)):
        fs, root = fsspec.core.url_to_fs(url)
    return fs, root.rstrip("/")


def _listed(fs: Any, root: str, url: str) -> dict[str, Any]:
    with _one_line(without_secrets(url)):
        fs.invalidate_cache()  # a long-lived process must see what is there now
        infos = {posixpath.relpath(name, root): info for name, info in fs.find(root, detail=True).items()}
    if not infos:
        raise CheckpointError(f"{without_secrets(url)}: nothing there; expected a model directory")
    return infos


def _version(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Turns whatever a file system raises (each has its own errors) into one line that names the place."""
    try:
        yield
    except CheckpointError:
        raise
    except ImportError as err:
        raise CheckpointError(f"{where}: {err}; install what opens such URLs, for s3:// s3fs") from err
    except Exception as err:
        reason = without_secrets(" ".join(str(err).split()))[:200]
        raise CheckpointError(f"{where}: cannot be read ({type(err).__name__}: {reason})") from err
