"""What the model's side can say of a job before it runs: sampled rows as prompts, and what fits where.

No weights are read and nothing is converted. Imports are inside the functions, as in backend.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cogbatch.batch.spec import ClusterSpec, JobSpec
from cogbatch.dataset.rows import Row
from cogbatch.types import GenerationRequest, RequestError

if TYPE_CHECKING:
    from cogbatch.engine.fit import Fit, Footprint

_THREADS = 4


@dataclass(frozen=True)
class Survey:
    """A model and a few rows of a job.

    Args:
        dtype, quantization: of the weights, in words. rows, new_tokens: of one item, at most.
        prompt_tokens: of each sampled row that became a prompt, its image included.
        errors: of those that did not. need: of an item with the longest of these prompts.
        here: this machine's device for one worker. cards: classes of accelerators.
    """

    dtype: str
    quantization: str | None
    rows: int
    new_tokens: int
    prompt_tokens: tuple[int, ...]
    errors: tuple[RequestError, ...]
    need: Footprint
    here: Fit
    cards: tuple[Fit, ...]

    def memory_json(self) -> dict[str, Any]:
        """What memory is needed and where it fits, as a plain dict."""
        return {
            "dtype": self.dtype,
            "quantization": self.quantization,
            **asdict(self.need),
            "item_bytes": self.need.item_bytes,
            "expanded_item_bytes": self.need.expanded_item_bytes,
            "here": asdict(self.here),
            "cards": [asdict(card) for card in self.cards],
        }


def survey(spec: JobSpec, rows: Sequence[Row]) -> Survey | None:
    """What can be said of CogVLM; None while a model on the hub has not been fetched.

    Args:
        rows: the sample; rows with an error of their own are passed over.

    Raises:
        CheckpointError: whatever is wrong with checkpoint or tokenizer, in one line.
    """
    import torch

    from cogbatch.checkpoint.geometry import read_geometry
    from cogbatch.engine.fit import fit_cards, footprint
    from cogbatch.engine.prompts import Task, prepare

    model = spec.model
    found = read_geometry(model.checkpoint, tokenizer=model.tokenizer, version=model.version)
    if found is None:
        return None

    def prepared(row: Row) -> Task | RequestError:
        return prepare(
            GenerationRequest(id=row.id, image=row.image, prompt=row.prompt),
            spec.generation,
            tokenizer=found.tokenizer,
            config=found.config,
            template_version=found.config.template_version,
            image_limits=spec.input.image_limits,
        )

    with ThreadPoolExecutor(_THREADS) as pool:
        outcomes = list(pool.map(prepared, [row for row in rows if row.error is None]))
    tasks = [outcome for outcome in outcomes if isinstance(outcome, Task)]
    lengths = [max(len(prompt.ids) for prompt in task.prompts) for task in tasks]
    texts = [
        length - (task.picture.num_tokens if task.picture else 0)
        for length, task in zip(lengths, tasks, strict=True)
    ]
    dtype = found.dtype if model.dtype == "auto" else model.dtype
    need = footprint(
        found.config,
        getattr(torch, dtype),
        spec.generation,
        quantization=model.quantization,
        text_tokens=max(texts, default=0),
        has_image=any(row.image is not None for row in rows),
    )
    return Survey(
        dtype=dtype,
        quantization=None if model.quantization is None else model.quantization.type,
        rows=need.rows,
        new_tokens=need.new_tokens,
        prompt_tokens=tuple(sum(len(prompt.ids) for prompt in task.prompts) for task in tasks),
        errors=tuple(outcome for outcome in outcomes if isinstance(outcome, RequestError)),
        need=need,
        here=_fit_here(need, spec.cluster),
        cards=fit_cards(need),
    )


def memory_share(cluster: ClusterSpec, *, on_cuda: bool, num_cpus: int) -> float:
    """The part of a device that one worker may fill, beside the others of its node.

    Args:
        on_cuda: workers run on cards, else on the node's CPU, of which there are num_cpus.
    """
    if on_cuda:
        return min(1.0, cluster.gpus_per_worker)
    return 1 / max(1, min(cluster.max_workers, num_cpus // cluster.cpus_per_worker))


def _fit_here(need: Footprint, cluster: ClusterSpec) -> Fit:
    """One worker of this job on this machine, beside those that would run here with it."""
    import torch

    from cogbatch.engine.fit import fit, gigabytes
    from cogbatch.engine.memory import device_memory

    on_cuda = bool(cluster.gpus_per_worker) and torch.cuda.is_available()
    device = torch.device("cuda" if on_cuda else "cpu")
    memory = device_memory(device)
    share = memory_share(cluster, on_cuda=on_cuda, num_cpus=os.cpu_count() or 1)
    name = f"{'GPU' if on_cuda else 'CPU'}, {gigabytes(memory.available_bytes)} free"
    shared = f", {1 / share:.0f} workers" if share < 1 else ""
    return fit(
        need,
        device=f"this machine ({name}{shared})",
        memory_bytes=memory.total_bytes,
        left_bytes=memory.left_bytes(share),
        device_type=device.type,
    )
