"""A small run, written as a job writes it: job.json from an opened dataset, parts from its rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from cogbatch.dataset import InputOptions, RunDirectory, open_dataset
from cogbatch.dataset.parts import write_part
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.dataset.shards import grid_to_json
from cogbatch.types import Candidate, RequestError, RequestOutput

MODEL = "m" * 64
Outputs = Sequence[Sequence[str | Candidate] | RequestError]
MakeRun = Callable[..., Path]


def candidate(index: int, text: str, *, logprob: float = -2.0, num_tokens: int = 4) -> Candidate:
    """A candidate of which only a few things matter."""
    return Candidate(index, text, (7,) * num_tokens, logprob, num_tokens, "stop", lane=index)


def output(texts: Sequence[str | Candidate] | RequestError, seconds: float = 0.0) -> RequestOutput:
    if isinstance(texts, RequestError):
        return RequestOutput("", error=texts, seconds=seconds)
    return RequestOutput(
        "",
        tuple(candidate(index, text) if isinstance(text, str) else text for index, text in enumerate(texts)),
        seconds=seconds,
    )


def write_run(
    folder: Path,
    outputs: Outputs,
    *,
    ids: Sequence[str] | None = None,
    name: str = "small",
    shard_size: int = 2,
    done: int | None = None,
    models: Sequence[str] | None = None,
    carried: Mapping[str, Sequence[object]] | None = None,
    generation: Mapping[str, object] | None = None,
    written_s: Sequence[float] | None = None,
    images: Sequence[bytes | str | None] | None = None,
    prompts: Sequence[str] | None = None,
    seconds: Sequence[float] | None = None,
) -> Path:
    """The path of a run over images 0.png, 1.png ... (2, 4, 6 ... pixels wide), one item per output.

    Args:
        ids: of the items. done: how many shards have a part. models: the model fingerprint of each shard.
        carried: columns with a value for each item. generation: of the spec, over what it has.
        written_s: when each part was written.
        images: file content, or the value of the image column, of each item; None for text only.
        seconds: of each item.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    rows = []
    for number in range(len(outputs)):
        image: object = f"{number}.png"
        if images is None:
            Image.new("RGB", (2 * number + 2, 3), (200, 0, 0)).save(data / f"{number}.png")
        elif isinstance(content := images[number], bytes):
            (data / f"{number}.png").write_bytes(content)
        else:
            image = content
        rows.append(
            {
                "id": ids[number] if ids else f"item-{number}",
                "image": image,
                "prompt": prompts[number] if prompts else f"What is {number}?",
                **{column: values[number] for column, values in (carried or {}).items()},
            }
        )
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = InputOptions(
        str(data / "rows.jsonl"), id_column="id", prompt_column="prompt", columns=tuple(carried or ())
    )
    dataset = open_dataset(options)
    shards = dataset.shards(shard_size)
    run = RunDirectory(folder / "run")
    with run.lock():
        run.start(
            {
                "job_fingerprint": "j",
                "model_fingerprint": MODEL,
                "dataset_fingerprint": dataset.fingerprint,
                "spec": {
                    "name": name,
                    "model": {"checkpoint": "models/tiny"},
                    "input": asdict(options),
                    "generation": {"num_candidates": 2, "temperature": 0.8, **(generation or {})},
                },
                "started": "2026-11-23T04:00:00+00:00",
                "files": [file.path for file in dataset.files],
                "shards": grid_to_json(shards),
            }
        )
    for shard in shards[:done]:
        model = models[shard.index] if models else MODEL
        records = [
            record(
                row,
                output(outputs[row.input_row], seconds[row.input_row] if seconds else 0.0),
                model_fingerprint=model,
                job_fingerprint="j",
            )
            for row in dataset.read(shard)
        ]
        now_s = written_s[shard.index] if written_s else None
        table = rows_to_table(records, carried=dataset.carried)
        write_part(run.parts, shard.part_name, table, now_s=now_s)
    return run.path
