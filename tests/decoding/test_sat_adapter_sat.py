"""SwissArmyTransformer's own filling_sequence with our strategies: the candidates of the engine.

SAT runs in a process of its own, which is nearly all of the time that a test takes.
"""

import json
import os
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cogbatch import Candidate, Engine, GenerationParams, GenerationRequest
from cogbatch.checkpoint.convert import convert
from cogbatch.checkpoint.sat import find_sat_files
from cogbatch.checkpoint.verify.process import run_programs, with_cogbatch, write_request
from cogbatch.engine.loading import load_model
from cogbatch.engine.prompts import Task, prepare
from cogbatch.model.directory import load_tokenizer
from tests.tiny import ByteTokenizer

pytestmark = pytest.mark.sat

DEMO = Path(__file__).parents[2] / "jobs" / "demo"
GOLDEN = Path(__file__).parents[1] / "golden"

STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {"num_candidates": 1},
    "sample": {"temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.1},
    "arithmetic": {"temperature": 0.9},
    "stochastic-beam": {},
    "beam": {"beam_score": "sat"},
    "diverse-beam": {"num_beam_groups": 2, "diversity_penalty": 0.5},
    "branch": {"branch_length": 2, "temperature": 0.8},
}


@dataclass(frozen=True)
class Run:
    """values: of GenerationParams. batch_size: what SAT is told; it takes what the strategy needs."""

    request: GenerationRequest
    values: dict[str, Any]
    batch_size: int = 1
    streamed: bool = False

    @property
    def params(self) -> GenerationParams:
        return GenerationParams(**self.values)


def values_of(strategy: str, **changes: Any) -> dict[str, Any]:
    common = {"strategy": strategy, "num_candidates": 4, "max_new_tokens": 24, "seed": 5}
    return {**common, **STRATEGIES[strategy], **changes}


def fill_with_sat(
    source: Path, engine_dir: Path, runs: Sequence[Run], *, tokenizer: Path | None, out: Path
) -> list[list[list[Candidate]]]:
    """The candidates that each rank of SAT comes to, run by run."""
    files = find_sat_files(source)
    config = load_model(engine_dir, dtype="float32", device="cpu").config
    prompts: dict[str, torch.Tensor] = {}
    for run in runs:
        task = prepare(
            run.request,
            run.params,
            tokenizer=ByteTokenizer() if tokenizer is None else load_tokenizer(tokenizer),
            config=config,
            template_version=config.template_version,
        )
        assert isinstance(task, Task)
        prompts[f"{run.request.id}.ids"] = torch.tensor(task.prompts[0].ids)
        prompts[f"{run.request.id}.types"] = torch.tensor(task.prompts[0].token_types)
        if task.picture is not None:
            prompts[f"{run.request.id}.pixels"] = task.picture.pixels
    save_file(prompts, out / "prompts")
    end = config.eos_token_id
    request = {
        "config": str(files.config_file.resolve()),
        "weights": [str(file.resolve()) for file in files.weights],
        "prompts": str(out / "prompts"),
        "tokenizer": None if tokenizer is None else str(tokenizer),
        "end_tokens": end if isinstance(end, list) else [end],
        "runs": [(run.request.id, run.values, run.batch_size, run.streamed) for run in runs],
        "out": str(out / "candidates"),
    }
    command, environment = with_cogbatch(
        "tests.decoding.fill_with_sat", write_request(out / "fill.json", request)
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    ranks = [
        {
            **environment,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(len(files.weights)),
            "LOCAL_WORLD_SIZE": str(len(files.weights)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "CUDA_VISIBLE_DEVICES": "",
            "USE_XFORMERS": "",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }
        for rank in range(len(files.weights))
    ]
    assert run_programs([command] * len(ranks), ranks, logs=out) == ""
    results = (json.loads((out / f"candidates.{rank}").read_text()) for rank in range(len(ranks)))
    return [[[as_candidate(values) for values in run] for run in rank] for rank in results]


def as_candidate(values: dict[str, Any]) -> Candidate:
    return Candidate(**{**values, "token_ids": tuple(values["token_ids"]), "flags": tuple(values["flags"])})


def assert_same(found: Sequence[Candidate], expected: Sequence[Candidate]) -> None:
    """Texts, tokens, order and lanes; numbers as near as fp32 on two implementations comes."""
    numbers = ("cumulative_logprob", "weight", "score")
    for one, other in zip(found, expected, strict=True):
        for name in numbers:
            value, wanted = getattr(one, name), getattr(other, name)
            assert (value is None) == (wanted is None), name
            assert value is None or value == pytest.approx(wanted, abs=1e-4, rel=1e-4), name
        blank = dict.fromkeys(numbers, 0.0)
        assert replace(one, **blank) == replace(other, **blank)


def test_sat_fills_in_what_the_engine_generates_on_the_demo(tmp_path: Path) -> None:
    convert(DEMO / "checkpoint", tmp_path / "model", tokenizer=DEMO / "tokenizer")
    rows = pyarrow.parquet.read_table(DEMO / "data" / "scenes.parquet").slice(0, 2).to_pylist()
    requests = [
        GenerationRequest(id=row["id"], image=row["image"], prompt="Describe the image.") for row in rows
    ]
    runs = [Run(request, values_of(name)) for name in STRATEGIES for request in requests]
    pool = values_of("sample", num_candidates=3, pool_size=8, selector="dpp", quality="support")
    runs += [
        Run(requests[0], values_of("sample"), batch_size=7),
        Run(requests[0], values_of("stochastic-beam"), streamed=True),
        Run(requests[1], pool),
    ]
    (found,) = fill_with_sat(
        DEMO / "checkpoint", tmp_path / "model", runs, tokenizer=DEMO / "tokenizer", out=tmp_path
    )
    engine = Engine.from_pretrained(tmp_path / "model", dtype="float32", device="cpu", num_threads=1)
    for run, candidates in zip(runs, found, strict=True):
        (output,) = engine.generate([run.request], run.params)
        assert output.error is None
        assert_same(candidates, output.candidates)


@pytest.mark.parametrize("name", ["tiny-2", "tiny-a-mp2"])
def test_grouped_heads_and_model_parallel_ranks_change_nothing(tmp_path: Path, name: str) -> None:
    """Random weights, long answers; with an image and without. Every rank chooses the same by itself."""
    convert(GOLDEN / name / "ckpt", tmp_path / "model", version="chat_old")
    image = Image.frombytes("RGB", (56, 56), random.Random(0).randbytes(56 * 56 * 3))
    runs = [
        Run(GenerationRequest(id=f"{strategy}", image=picture, prompt="What?"), values_of(strategy))
        for strategy, picture in (("sample", image), ("stochastic-beam", None), ("beam", image))
    ]
    ranks = fill_with_sat(GOLDEN / name / "ckpt", tmp_path / "model", runs, tokenizer=None, out=tmp_path)
    assert len(ranks) == (2 if name == "tiny-a-mp2" else 1)
    model = load_model(tmp_path / "model", dtype="float32", device="cpu")
    engine = Engine(model, ByteTokenizer(), num_threads=1)
    for index, run in enumerate(runs):
        (output,) = engine.generate([run.request], run.params)
        assert output.error is None
        for found in ranks:
            assert_same(found[index], output.candidates)
