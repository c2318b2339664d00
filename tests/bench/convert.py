"""Conversion of a checkpoint with 17B's proportions: time and peak memory. Not a test: machines are noisy.

Three sources of at least 3 GB in bf16 (one file, two ranks, LoRA of rank 10) are made in a temporary
directory, one after the other. Each is converted, copied and hashed (cp, then sha256sum, synced to disk), and
converted in the obvious way (load all, rename, save_file), each time in a process of its own. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.peak import anonymous_kb

VARIANTS = ("plain", "2 ranks", "LoRA")
LORA_RANK = 10
VOCAB, HIDDEN, INNER, EVA_HIDDEN, EVA_INNER = 32000, 4096, 11008, 1792, 15360
LAYERS, EVA_LAYERS = 2, 5
PROGRAM = ["-m", "tests.bench.convert"]
WAYS = ("convert", "copy and hash", "load all, save")


def main() -> None:
    """The table, or one measured piece of work (as the table starts it)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="default: all")
    parser.add_argument("--work", nargs=3, metavar=("WHAT", "SAT_DIR", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        what, sat_dir, out = options.work
        print(json.dumps(measured(WORK[what], Path(sat_dir), Path(out))))
        return
    results = [row for variant in options.variant or VARIANTS for row in bench(variant)]
    print(json.dumps(results))


def bench(variant: str) -> list[dict[str, object]]:
    """One row for each way to treat this source; printed as they come."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="bench-convert-") as folder:
        sat_dir, out = Path(folder) / "sat", Path(folder) / "out"
        spawn(variant, sat_dir, out, folder)
        size_gb = sum(file.stat().st_size for file in sat_dir.rglob("*.pt")) / 1e9
        for way in WAYS:
            found = spawn(way, sat_dir, out, folder)
            row = {"source": variant, "size_gb": round(size_gb, 2), "way": way, **found}
            if rows:
                row["convert_takes"] = round(float(str(rows[0]["seconds"])) / float(str(found["seconds"])), 2)
            rows.append(row)
            took = f"{found['seconds']:6.1f} s ({found['cpu_seconds']:5.1f} s of CPU)"
            peak = f"peak RssAnon {found['peak_anon_mb']:6,.0f} MB"
            print(f"{variant:8} {size_gb:.2f} GB  {way:14}  {took}  {peak}", flush=True)
            shutil.rmtree(out)
    return rows


def spawn(what: str, sat_dir: Path, out: Path, cache: str) -> dict[str, float]:
    """One piece of work in a process of its own; no hash is remembered from before."""
    command = [sys.executable, *PROGRAM, "--work", what, str(sat_dir), str(out)]
    os.sync()
    done = subprocess.run(
        command, env=os.environ | {"COGBATCH_CACHE": f"{cache}/{time.monotonic_ns()}"}, stdout=-1, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(work: Callable[[Path, Path], None], sat_dir: Path, out: Path) -> dict[str, float]:
    """Seconds by the clock and of CPU, without imports; the most anonymous memory, with them."""
    peak_kb, done = 0, threading.Event()

    def sample() -> None:
        nonlocal peak_kb
        while not done.wait(0.005):
            peak_kb = max(peak_kb, anonymous_kb())

    sampler = threading.Thread(target=sample)
    sampler.start()
    start, cpu_start = time.perf_counter(), time.process_time()
    work(sat_dir, out)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    done.set()
    sampler.join()
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_anon_mb": round(peak_kb / 1e3, 1),
    }


def converting(sat_dir: Path, out: Path) -> None:
    """What is measured."""
    convert(sat_dir, out, version="chat_old")


def copying(sat_dir: Path, out: Path) -> None:
    """cp and sha256sum of the same bytes."""
    out.mkdir()
    for file in sorted(sat_dir.rglob("*.pt")):
        copy = out / file.name
        shutil.copyfile(file, copy)
        with copy.open("rb") as stream:
            os.fsync(stream.fileno())
            hashlib.file_digest(stream, "sha256")


def naive(sat_dir: Path, out: Path) -> None:
    """All ranks in memory, then all merged tensors, then the safetensors library."""
    config, names = bench_config()
    ranks = [
        gather_lora(torch.load(file, weights_only=True)["module"], where=str(file))
        for file in sorted(sat_dir.rglob("*.pt"))
    ]
    state = {}
    for name in names:
        if name.hf is not None:
            pieces = [rank[name.sat] for rank in ranks]
            plain = [
                piece
                if isinstance(piece, torch.Tensor)
                else torch.cat([piece.merged(i) for i in range(len(piece.up))]).to(piece.weight.dtype)
                for piece in pieces
            ]
            state[name.hf] = merge(plain, name).contiguous()
    assert len(state) > config.num_hidden_layers
    out.mkdir()
    save_file(state, out / "model.safetensors")
    with (out / "model.safetensors").open("rb") as stream:
        os.fsync(stream.fileno())


def making(variant: str) -> Callable[[Path, Path], None]:
    """Writes a source. Values repeat: neither copying nor hashing can tell."""

    def make(sat_dir: Path, _: Path) -> None:
        config, names = bench_config()
        num_ranks = 2 if variant == "2 ranks" else 1
        noise = (0.02 * torch.randn(1 << 22)).bfloat16()
        ranks: list[dict[str, torch.Tensor]] = [{} for _ in range(num_ranks)]
        for name in names:
            size = math.prod(name.shape)
            whole = noise.repeat(size // noise.numel() + 1)[:size].view(name.shape)
            for state, piece in zip(ranks, split(whole, name, num_ranks), strict=True):
                is_wrapped = ".attention." in name.sat and name.sat.endswith("weight")
                if variant == "LoRA" and is_wrapped:
                    state |= wrapped(name, piece.clone(), noise)
                else:
                    state[name.sat] = piece.clone()
        folder = sat_dir / "1"
        folder.mkdir(parents=True)
        values = to_sat(config) | {"model_parallel_size": num_ranks}
        (sat_dir / "model_config.json").write_text(json.dumps(values))
        (sat_dir / "latest").write_text("1")
        for rank, state in enumerate(ranks):
            torch.save({"module": state}, folder / f"mp_rank_{rank:02}_model_states.pt")

    return make


def wrapped(name: TensorName, weight: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
    """What SAT's LoRA stores of a layer."""
    module = name.sat.removesuffix(".weight")
    state = {f"{module}.original.weight": weight}
    for i, rows in enumerate(name.sections if name.dim == 0 else name.shape[:1]):
        state[f"{module}.matrix_A.{i}"] = noise[: LORA_RANK * name.shape[1]].view(LORA_RANK, -1).clone()
        state[f"{module}.matrix_B.{i}"] = noise[: rows * LORA_RANK].view(rows, LORA_RANK).clone()
    return state


def bench_config() -> tuple[CogVLMConfig, tuple[TensorName, ...]]:
    """17B's widths, few layers."""
    config = CogVLMConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_attention_heads=32,
        num_multi_query_heads=32,
        num_hidden_layers=LAYERS,
        num_vision_expert_layers=LAYERS,
        intermediate_size=INNER,
        vision_config={
            "hidden_size": EVA_HIDDEN,
            "num_heads": 16,
            "num_hidden_layers": EVA_LAYERS,
            "intermediate_size": EVA_INNER,
        },
    )
    return config, tensor_names(config)


if __name__ == "__main__":
    # The memory of imports is that of what is imported: the table itself needs none.
    if "--work" in sys.argv:
        import math

        import torch
        from safetensors.torch import save_file

        from cogbatch.checkpoint.convert import convert
        from cogbatch.checkpoint.lora import gather_lora
        from cogbatch.checkpoint.names import TensorName, tensor_names
        from cogbatch.checkpoint.ranks import merge, split
        from cogbatch.checkpoint.sat_config import to_sat
        from cogbatch.model.configuration_cogvlm import CogVLMConfig

        WORK = {
            **{variant: making(variant) for variant in VARIANTS},
            "convert": converting,
            "copy and hash": copying,
            "load all, save": naive,
        }
    main()
