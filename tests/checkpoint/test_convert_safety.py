"""When a conversion goes wrong: nothing half-written, source untouched, and little memory always."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sat_builder import TINY, State, build, config_of, wrap

from cogbatch.checkpoint.convert import convert
from cogbatch.checkpoint.manifest import check_files
from cogbatch.checkpoint.names import tensor_names
from cogbatch.errors import CheckpointError

SatCopy = Callable[..., Path]
ROOT = Path(__file__).parents[2]


def anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def test_one_flipped_bit_in_a_tensor_is_found_and_nothing_is_left(sat_copy: SatCopy, tmp_path: Path) -> None:
    folder = sat_copy()
    file = folder / "1" / "mp_rank_00_model_states.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"mp_rank_00.*: damaged: record .*/data/\d+ is not what"):
        convert(folder, tmp_path / "made" / "out", version="base")
    assert not list(tmp_path.glob("made/*"))
    assert file.read_bytes() == data


def test_a_source_that_changes_meanwhile_is_refused(sat_copy: SatCopy, tmp_path: Path) -> None:
    folder = sat_copy()

    def touch(done: int, total: int) -> None:
        if done == total:
            (folder / "model_config.json").write_text("{}")

    with pytest.raises(CheckpointError, match=r"model_config\.json: changed while it was being converted"):
        convert(folder, tmp_path / "made" / "out", version="base", on_progress=touch)
    assert not list(tmp_path.glob("made/*"))


def test_a_model_larger_than_the_disk_is_refused_at_once(sat_copy: SatCopy, tmp_path: Path) -> None:
    # One stored number, expanded: a petabyte by its shape, and a few bytes in the file.
    rows = 2_000_000_000_000

    def grow(module: dict[str, Any]) -> None:
        for name in ("transformer.word_embeddings.weight", "mixins.lm.lm_head.weight"):
            module[name] = torch.zeros(1, 1).expand(rows, 64)

    def stop(*_: int) -> None:
        pytest.fail("it began to write")

    folder = sat_copy(config={"vocab_size": rows}, edit=grow)
    with pytest.raises(
        CheckpointError, match=r"1,024,00\d\.\d GB will be written, but .* GB free; make room"
    ):
        convert(folder, tmp_path / "made" / "out", version="base", on_progress=stop)
    assert not (tmp_path / "made").exists()


def test_a_killed_conversion_leaves_nothing_finished_and_the_next_one_works(
    golden: Path, tmp_path: Path
) -> None:
    program = (
        "import os, signal, sys\n"
        "from cogbatch.checkpoint.convert import convert\n"
        "kill = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if 2 * done > total else None\n"
        "convert(sys.argv[1], sys.argv[2], version='base', on_progress=kill)\n"
    )
    source, out = golden / "tiny-a" / "ckpt", tmp_path / "made" / "out"
    killed = subprocess.run([sys.executable, "-c", program, str(source), str(out)], check=False, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    (left,) = out.parent.iterdir()
    assert left.name.startswith(".out.partial-")
    assert not (left / "cogbatch_manifest.json").exists()
    convert(source, out, version="base")
    assert [folder.name for folder in out.parent.iterdir()] == ["out"]
    assert check_files(out) == []


def test_memory_is_that_of_a_few_pieces_whatever_is_merged(tmp_path: Path) -> None:
    wide = TINY | {"hidden_size": 512, "inner_hidden_size": 4096, "vocab_size": 32000}
    names = tensor_names(config_of(wide))
    by_name = {name.sat: name for name in names}

    def wrap_all(ranks: list[State]) -> None:
        for rank in ranks:
            for layer in range(2):
                for kind in ("query_key_value", "dense"):
                    wrap(
                        rank,
                        by_name[f"transformer.layers.{layer}.attention.{kind}.weight"],
                        lora_rank=8,
                        num_ranks=2,
                    )

    folder = build(tmp_path / "sat", wide, num_ranks=2, dtype=torch.bfloat16, edit=wrap_all)
    seen: list[int] = []
    before = anonymous_bytes()
    report = convert(
        folder,
        tmp_path / "out",
        version="base",
        dtype="float32",
        on_progress=lambda *_: seen.append(anonymous_bytes()),
    )
    # Held at a time: a few blocks of 4 MB, one layer's LoRA in float32, and 64 MB that malloc may keep.
    assert max(seen) - before < 120_000_000 < report.size_bytes / 2
