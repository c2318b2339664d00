"""Model directories behind URLs: copied once for each state, proven, and nothing that is not read."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cogbatch.checkpoint.directory import prepare_model
from cogbatch.checkpoint.folders import model_folders
from cogbatch.checkpoint.remote import pulled_directory
from cogbatch.errors import CheckpointError

SatCopy = Callable[..., Path]
Converted = Callable[[str], Path]


@pytest.fixture
def model_dir(converted: Converted, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted("tiny-a"), tmp_path / "bucket" / "model"))


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_model_behind_a_url_is_the_model(model_dir: Path, cache: Path) -> None:
    local, remote = prepare_model(model_dir), prepare_model(f"file://{model_dir}")
    assert remote.fingerprint == local.fingerprint
    assert remote.path.parent == cache / "models"
    assert remote.origin == f"file://{model_dir}"
    assert model_folders(remote)[0].key == model_folders(local)[0].key


def test_it_is_pulled_once_until_it_changes_there(model_dir: Path) -> None:
    url = f"file://{model_dir}"
    first = pulled_directory(url)
    inode = first.stat().st_ino
    assert pulled_directory(url).stat().st_ino == inode
    (model_dir / "generation_config.json").write_text('{"top_k": 1}')
    (model_dir / "cogbatch_manifest.json").unlink()
    second = pulled_directory(url)
    assert second != first
    assert (second / "generation_config.json").read_text() == '{"top_k": 1}'


def test_a_pulled_copy_that_was_damaged_since_is_pulled_again(model_dir: Path) -> None:
    (model_dir / "cogbatch_manifest.json").unlink()  # what was pulled is known without one
    copy = pulled_directory(f"file://{model_dir}")
    weights = copy / "model-00001-of-00001.safetensors"
    flip(weights)
    assert pulled_directory(f"file://{model_dir}") == copy
    assert weights.read_bytes() == (model_dir / weights.name).read_bytes()


def test_what_differs_from_the_manifest_there_is_named_and_not_kept(model_dir: Path, cache: Path) -> None:
    flip(model_dir / "model-00001-of-00001.safetensors")
    with pytest.raises(CheckpointError, match=r"model-00001-of-00001\.safetensors differ from the manifest"):
        pulled_directory(f"file://{model_dir}")
    assert not [path for path in (cache / "models").iterdir() if path.is_dir()]


def test_of_a_sat_directory_the_iteration_is_pulled_and_nothing_else(sat_copy: SatCopy) -> None:
    folder = sat_copy()
    (folder / "1" / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"large")
    shutil.copytree(folder / "1", folder / "2")
    (folder / "training.log").write_text("long")
    (folder / "latest").write_text("1")
    copy = pulled_directory(f"file://{folder}")
    found = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    assert found == ["1/mp_rank_00_model_states.pt", "latest", "model_config.json"]
    remote, local = prepare_model(f"file://{folder}", version="base"), prepare_model(folder, version="base")
    assert remote == local  # one conversion, and no URL of what was converted


def test_nothing_there_and_unknown_schemes_are_one_line_without_secrets(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: nothing there; expected a model directory"):
        pulled_directory(f"file://{tmp_path}/nowhere")
    with pytest.raises(CheckpointError, match=r"^teleport://\*\*\*@host/model: cannot be read") as caught:
        pulled_directory("teleport://me:hunter2@host/model")
    assert "hunter2" not in str(caught.value)


def test_two_processes_convert_once(golden: Path, cache: Path) -> None:
    """Both ask before one is done; whoever converts says how far it is."""
    program = """
import sys
from cogbatch.checkpoint.directory import prepare_model
print("ready", flush=True)
sys.stdin.readline()
said = []
model = prepare_model(sys.argv[1], version="base", on_progress=lambda done, total: said.append(done))
print(model.path, bool(said))
"""
    command = [sys.executable, "-c", program, str(golden / "tiny-a" / "ckpt")]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = [process.communicate()[0].split() for process in running]
    assert outcomes[0][0] == outcomes[1][0]
    assert sorted(outcome[1] for outcome in outcomes) == ["False", "True"]
    assert len([path for path in (cache / "models").iterdir() if path.is_dir()]) == 1
