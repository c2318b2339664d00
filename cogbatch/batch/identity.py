"""What makes a job this job: the identity that its fingerprint is made of. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cogbatch.batch.backend import ReadyModel
from cogbatch.batch.spec import JobSpec
from cogbatch.dataset.shards import Shard


def job_identity(
    spec: JobSpec,
    *,
    model: ReadyModel,
    dataset_fingerprint: str,
    shards: Sequence[Shard],
) -> dict[str, Any]:
    """Everything that candidates depend on. Not: where things lie, how many workers."""
    return {
        "model": {
            "fingerprint": model.fingerprint,
            "dtype": model.dtype,
            "quantization": asdict(model.quantization) if model.quantization else None,
            "template": model.template_version,
        },
        **identity_without_model(spec, dataset_fingerprint=dataset_fingerprint, shards=shards),
    }


def identity_without_model(
    spec: JobSpec, *, dataset_fingerprint: str, shards: Sequence[Shard]
) -> dict[str, Any]:
    """The part of the identity that is known before the model is prepared."""
    grid = [shard.to_json() for shard in shards]
    return {
        "input": {"fingerprint": dataset_fingerprint, **spec.input.identity()},
        "generation": asdict(spec.generation),
        "shards": {"count": len(grid), "sha256": fingerprint(grid)},
        "threads_per_worker": spec.cluster.cpus_per_worker,
    }


def fingerprint(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """sha256 (hex) of a JSON value, the same for any order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
