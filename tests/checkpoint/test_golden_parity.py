"""Converted golden checkpoints, loaded by plain transformers where cogbatch cannot be imported."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# The official numbers' own spread between two correct implementations is 3.6e-5 (golden/README.md).
TOLERANCE = 1e-4


# The slow ones are, tensor for tensor, what faster tests compare.
MERGED = [pytest.param(name, marks=pytest.mark.slow) for name in ("tiny-a-mp2", "tiny-a-lora")]


@pytest.mark.parametrize("name", ["tiny-a", "tiny-2", "tiny-a-ds", *MERGED])
def test_logits_and_greedy_tokens_are_those_of_sat(
    converted: Callable[[str], Path], golden: Path, tmp_path: Path, name: str
) -> None:
    program = Path(__file__).with_name("load_converted.py")
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [sys.executable, "-I", str(program), str(converted(name)), str(golden / name)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout.splitlines()[-1])
    assert measured["logit_errors"].keys() == {"chat", "vqa", "base", "chat2", "text"}
    assert max(measured["logit_errors"].values()) <= TOLERANCE, measured["logit_errors"]
    if name not in ("tiny-a-ds", "tiny-a-mp2"):  # which have no greedy tokens
        assert measured["same_greedy"] == dict.fromkeys(measured["logit_errors"], True)
    assert not measured["cogbatch_loaded"]
    complaints = ("newly initialized", "not used", "unexpected", "missing", "warning", "mismatch")
    assert [line for line in run.stderr.splitlines() if any(c in line.lower() for c in complaints)] == []
