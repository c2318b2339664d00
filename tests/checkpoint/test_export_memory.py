"""A model of any size is exported in the memory of one tensor, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cogbatch.checkpoint.layout import write_config
from cogbatch.checkpoint.names import tensor_names
from cogbatch.checkpoint.safetensors_writer import TensorSpec, write_safetensors
from cogbatch.model.configuration_cogvlm import CogVLMConfig

EXPORT = """
import sys, threading
from pathlib import Path
from cogbatch.checkpoint.export import export_sat

def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])

before, done, peak = anonymous_bytes(), threading.Event(), 0

def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, anonymous_bytes())

watcher = threading.Thread(target=watch)
watcher.start()
export_sat(sys.argv[1], sys.argv[2], model_parallel_size=int(sys.argv[3]))
done.set()
watcher.join()
print(peak - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_anonymous_memory_is_that_of_the_largest_tensor(tmp_path: Path, ranks: int) -> None:
    config = CogVLMConfig(
        vocab_size=8000,
        hidden_size=512,
        intermediate_size=2752,
        num_hidden_layers=6,
        num_attention_heads=8,
        vision_config={"hidden_size": 64, "intermediate_size": 64, "num_heads": 2, "num_hidden_layers": 1},
    )
    names = [name for name in tensor_names(config) if name.hf is not None]
    specs = [TensorSpec(str(name.hf), torch.float32, name.shape) for name in names]
    shapes = {spec.name: spec.shape for spec in specs}
    model = tmp_path / "hf"
    model.mkdir()
    write_safetensors(model, specs, make=lambda name: torch.ones(shapes[name]), max_shard_bytes=100_000_000)
    write_config(model, config, dtype="float32")
    total, largest = (how(spec.size_bytes for spec in specs) for how in (sum, max))
    assert total > 10 * largest
    command = [sys.executable, "-c", EXPORT, str(model), str(tmp_path / "sat"), str(ranks)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < largest + (8 << 20)
