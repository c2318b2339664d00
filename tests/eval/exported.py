"""What tests of export share: images, candidates, one call, and what came out."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cogbatch.eval.export import Exported, ExportOptions, export_runs
from cogbatch.types import Candidate


def noise(seed: int, *, size: tuple[int, int] = (24, 18)) -> Image.Image:
    """An image like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def said(index: int, text: str, **fields: Any) -> Candidate:
    """A candidate with some fields."""
    values: dict[str, Any] = {"cumulative_logprob": -2.0, "num_tokens": 4, "finish_reason": "stop"}
    return Candidate(index, text, (7,), **{**values, **fields})


def export(run: Path | list[Path], form: str, **options: Any) -> Exported:
    """Exports to `out` beside the run, in its place if there is one already."""
    runs = run if isinstance(run, list) else [run]
    return export_runs(runs, runs[0].parent / "out", ExportOptions(format=form, **options), overwrite=True)  # type: ignore[arg-type]


def records(done: Exported, split: str = "train") -> list[Any]:
    """Of a JSON format."""
    folder = Path(str(done.out))
    if (folder / f"{split}.json").exists():
        return list(json.loads((folder / f"{split}.json").read_text()))
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().split("\n") if line]


def texts(done: Exported, split: str = "train") -> list[str]:
    """What LLaVA records teach."""
    return [record["conversations"][1]["value"] for record in records(done, split)]


def loaded(done: Exported, cache: Path) -> Mapping[str, Any]:
    """What datasets.load_dataset makes of the folder, offline."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = pytest.importorskip("datasets")
        datasets.disable_progress_bars()
        return dict(datasets.load_dataset(str(done.out), cache_dir=str(cache)))
