"""The model on this node: where the driver has it, or a proven copy in this node's cache. Once per node.

A file counts as the driver's when its sha256 is the driver's. Whatever differs is never loaded: a fresh copy
is used instead, from the model's URL or from the driver, or the node refuses and says which file it is.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path

from cogbatch.batch.backend import WorkerPlan
from cogbatch.checkpoint.copies import Source, equal_copy
from cogbatch.checkpoint.folder import ProvenFolder, differing_files
from cogbatch.checkpoint.hashing import cache_root
from cogbatch.checkpoint.once import locked
from cogbatch.checkpoint.verify.threads import some
from cogbatch.errors import CheckpointError
from cogbatch.redact import without_secrets

_log = logging.getLogger(__name__)


def offer_weights(plan: WorkerPlan) -> AbstractContextManager[None]:
    """For the time of the block nodes that share nothing with the driver get the model from it."""
    from cogbatch.batch.sending import offered  # imports ray

    return offered(plan.model.folders, _offer(plan)) if plan.model.folders else nullcontext()


def ensure_weights(plan: WorkerPlan, *, on_progress: Callable[[], object] = lambda: None) -> tuple[Path, ...]:
    """Directories of this node that hold the plan's folders, proven: the model's, then the tokenizer's.

    Args:
        on_progress: called now and then while something moves, here or in another worker of this node.

    Raises:
        CheckpointError: a folder is not here, or not as it should be, and no copy is to be had.
    """
    return tuple(
        ensure_folder(folder, _sources(folder, plan, on_progress), on_wait=on_progress)
        for folder in plan.model.folders
    )


def ensure_folder(
    folder: ProvenFolder,
    sources: Sequence[Source],
    *,
    cache: Path | None = None,
    on_wait: Callable[[], object] | None = None,
) -> Path:
    """The folder's own path where that holds its files on this node, else an equal copy in the cache.

    One process of a node proves or copies at a time; the others find hashes that are remembered.

    Raises:
        CheckpointError: it differs here and no source gave an equal copy, in one line that names the files.
    """
    cache = cache_root() / "models" if cache is None else cache
    here = Path(folder.path)
    with ExitStack() as alone:
        with suppress(OSError):  # without a cache that can be written, every worker hashes for itself
            lock = cache / f"proof-{folder.key}-{platform.node()}.lock"
            alone.enter_context(locked(lock, on_wait=on_wait))
        ill = ""
        if here.is_dir():
            damage = differing_files(folder, here)
            if not damage:
                return here
            ill = f"{some(damage)} differ from the driver's"
        else:
            ill = "not on this node"
        try:
            copy = equal_copy(folder, sources, cache=cache, on_wait=on_wait)
        except CheckpointError as err:
            raise CheckpointError(f"{here}: {ill}, and there is no copy to use instead: {err}") from err
        _log.warning("%s: %s; this node uses its copy %s", here, ill, copy)
        return copy


def _sources(folder: ProvenFolder, plan: WorkerPlan, on_progress: Callable[[], object]) -> list[Source]:
    def push(into: Path) -> None:
        from cogbatch.batch.sending import receive  # imports ray

        receive(_offer(plan), folder, into, on_progress=on_progress)

    def pull(into: Path) -> None:
        from cogbatch.checkpoint.remote import fetch

        assert folder.origin is not None
        fetch(folder.origin, [file.name for file in folder.files], into, on_progress=on_progress)

    pushed = Source("the driver", push)
    return [pushed] if folder.origin is None else [Source(without_secrets(folder.origin), pull), pushed]


def _offer(plan: WorkerPlan) -> str:
    return f"weights of {plan.probe}"
