"""One local Ray for all tests of a session that need one, and small jobs over text prompts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fake_backend
import pytest
from fake_backend import MakeSpec

from cogbatch.batch.spec import JobSpec, parse_spec


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray with room for three workers; jobs of this process use it."""
    import ray

    ray.cloudpickle.register_pickle_by_value(fake_backend)  # workers cannot import from tests
    ray.init(
        address="local",
        num_cpus=5,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    """A job over one prompt per item; sections override the small defaults."""

    def make(prompts: Sequence[str], **sections: dict[str, Any]) -> JobSpec:
        data = tmp_path / "data.jsonl"
        lines = [json.dumps({"id": f"i{n}", "prompt": prompt}) for n, prompt in enumerate(prompts)]
        data.write_text("\n".join(lines) + "\n")
        tree: dict[str, dict[str, Any]] = {
            "model": {"checkpoint": "m"},
            "input": {
                "path": str(data),
                "id_column": "id",
                "image_column": None,
                "prompt_column": "prompt",
            },
            "generation": {"num_candidates": 2},
            "output": {"path": str(tmp_path / "run"), "shard_size": 4},
            "cluster": {"max_workers": 2},
        }
        for name, section in sections.items():
            tree[name] = {**tree.get(name, {}), **section}
        return parse_spec(tree)

    return make
