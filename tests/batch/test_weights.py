"""Laws of the model on every node: proven, pulled or pushed once, mended or refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cogbatch.batch.backend import JobPlan, ReadyModel, WorkerPlan, cogvlm_backend
from cogbatch.batch.weights import ensure_folder, ensure_weights
from cogbatch.checkpoint.copies import Source
from cogbatch.checkpoint.folder import ProvenFolder, differing_files, prove_folder
from cogbatch.dataset import InputOptions, open_dataset
from cogbatch.errors import CheckpointError
from cogbatch.types import GenerationParams

HERE = Path(__file__).parent
PROVING = """
import sys, pickle
from pathlib import Path
from cogbatch.batch.weights import ensure_folder
print("ready", flush=True)
sys.stdin.readline()
print(ensure_folder(pickle.loads(bytes.fromhex(sys.argv[1])), []))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COGBATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> ProvenFolder:
    """A directory as the driver proved it; its one large file is worth remembering."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "weights").write_bytes(bytes(range(256)) * 20_000)
    return prove_folder(path, ["config.json", "weights"], may_load=["model.safetensors"])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def copying(master: Path) -> Source:
    return Source("the driver", lambda into: shutil.copytree(master, into, dirs_exist_ok=True))


def plan_for(folder: ProvenFolder, tmp_path: Path) -> WorkerPlan:
    data = tmp_path / "data.jsonl"
    data.write_text('{"id": 1}\n')
    dataset = open_dataset(InputOptions(str(data), image_column=None, prompt="say"))
    return WorkerPlan(
        jobs=(JobPlan(str(tmp_path / "run"), dataset, "j", GenerationParams()),),
        model=ReadyModel(folder.path, "f", "base", "float32", folders=(folder,)),
        device="cpu",
        num_threads=1,
        stall_timeout_s=1.0,
        probe="p",
    )


def test_a_path_that_all_share_is_used_as_it_is(folder: ProvenFolder, cache: Path) -> None:
    assert ensure_folder(folder, []) == Path(folder.path)
    assert not [path for path in (cache / "models").iterdir() if path.is_dir()]


@pytest.mark.parametrize("ill", ["weights", "model.safetensors"])
def test_what_differs_is_never_loaded_but_refused_by_name(folder: ProvenFolder, ill: str) -> None:
    file = Path(folder.path) / ill
    flip(file) if file.exists() else file.write_bytes(b"weights that would be loaded instead")
    with pytest.raises(
        CheckpointError, match=rf"model: {ill} differ from the driver's, and there is no copy"
    ):
        ensure_folder(folder, [])


def test_what_differs_is_replaced_by_a_copy_and_left_alone(folder: ProvenFolder, tmp_path: Path) -> None:
    shutil.copytree(folder.path, tmp_path / "master")
    flip(Path(folder.path) / "weights")
    damaged = (Path(folder.path) / "weights").read_bytes()
    copy = ensure_folder(folder, [copying(tmp_path / "master")])
    assert differing_files(folder, copy) == []
    assert (Path(folder.path) / "weights").read_bytes() == damaged


def test_a_node_hashes_once_however_many_workers_it_has(folder: ProvenFolder, cache: Path) -> None:
    """The memory is forged under the second process: had it hashed for itself, it would be content."""
    code = [sys.executable, "-c", PROVING, __import__("pickle").dumps(folder).hex()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    (cache / "hashes.json").unlink()
    outcomes = []
    for _ in range(2):
        with subprocess.Popen(code, **pipes) as process:  # type: ignore[call-overload]
            out, err = process.communicate("go\n")
            outcomes.append(out.split("\n")[1] or err.strip().split("\n")[-1])
        memory = cache / "hashes.json"
        memory.write_text(memory.read_text().replace(folder.files[1].sha256, "forged"))
    assert outcomes[0] == folder.path
    assert "weights differ from the driver's" in outcomes[1]


def test_a_cache_that_cannot_be_written_costs_only_time(
    folder: ProvenFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COGBATCH_CACHE", str(tmp_path / "file"))
    assert ensure_folder(folder, []) == Path(folder.path)


def test_a_node_pulls_from_the_url_of_the_model(folder: ProvenFolder, tmp_path: Path, cache: Path) -> None:
    shutil.move(folder.path, tmp_path / "bucket")
    plan = plan_for(replace(folder, origin=f"file://{tmp_path}/bucket"), tmp_path)
    told: list[int] = []
    (copy,) = ensure_weights(plan, on_progress=lambda: told.append(1))
    assert copy.parent == cache / "models"
    assert differing_files(folder, copy) == []
    assert told


def test_a_worker_loads_nothing_that_is_not_proven(folder: ProvenFolder, tmp_path: Path) -> None:
    """config.json is no model's: were it read before the proof, another error would come."""
    flip(Path(folder.path) / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json differ from the driver's"):
        cogvlm_backend().open_engine(plan_for(folder, tmp_path), lambda _: None)


def run(program: str, home: Path) -> dict[str, object]:
    """What a program of this folder prints at last, in a process of its own."""
    path = os.pathsep.join([str(HERE), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, "COGBATCH_CACHE": str(home / "driver")}
    command = [sys.executable, str(HERE / program), str(home)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.ray
@pytest.mark.slow
def test_nodes_that_share_nothing_get_a_model_larger_than_their_object_store(tmp_path: Path) -> None:
    said = run("node_programs.py", tmp_path)
    assert "the driver does not offer it" in str(said["without an offer"])
    a, _, b, _ = said["paths"]  # type: ignore[misc]
    assert said["paths"] == [a, a, b, b]
    assert [Path(path).parent for path in (a, b)] == [tmp_path / name / "models" for name in "ab"]
    assert said["equal"] == [[], [], [], []]
    assert said["copies"] == {"a": 1, "b": 1}, "two workers of a node copied"
    assert said["dead"] == "died"
    assert said["left by the dead"] == []
    assert said["mended"] == [a, b]
    assert said["equal again"] == []
    assert said["copies again"] == {"a": 2, "b": 1}
    assert said["seen"] == str(tmp_path / "visible")
    assert said["instead"] == b
    refusal = str(said["refused"])
    assert refusal.startswith(f"refused: {tmp_path}/visible: weights-0 differ from the driver's")
    assert refusal.endswith("config.json damaged; from the driver: weights-0 arrived damaged")


@pytest.mark.slow
@pytest.mark.ray
def test_a_job_runs_on_nodes_that_share_only_the_run_directory(tmp_path: Path) -> None:
    said = run("real_nodes.py", tmp_path)
    assert (said["rows"], said["errors"]) == (32, 0)
    assert len(said["keys"]) == 2, "model and tokenizer"  # type: ignore[arg-type]
    assert said["copied"] == {"a": said["keys"], "b": said["keys"]}
