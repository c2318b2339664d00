"""Equal copies of a folder: what counts as equal, fetched once by several processes, whole or not at all."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cogbatch.checkpoint.copies import Source, equal_copy
from cogbatch.checkpoint.folder import ProvenFolder, differing_files, prove_folder
from cogbatch.errors import CheckpointError

PROGRAM = """
import os, shutil, sys, time
from pathlib import Path
from cogbatch.checkpoint.copies import Source, equal_copy
from cogbatch.checkpoint.folder import prove_folder
master, cache, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])

def fetch(into):
    with log.open("a") as file:
        file.write("fetched\\n")
    for path in sorted(master.iterdir()):
        shutil.copy(path, into)
        time.sleep(pause)

print(equal_copy(prove_folder(master, os.listdir(master)), [Source("master", fetch)], cache=cache))
"""


@pytest.fixture
def master(tmp_path: Path) -> Path:
    folder = tmp_path / "master"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_bytes(bytes(range(256)) * 20_000)  # large enough to be remembered
    return folder


@pytest.fixture
def expected(master: Path) -> ProvenFolder:
    return prove_folder(master, ["config.json", "weights"], may_load=["config.json", "added_tokens.json"])


def copying(master: Path) -> Source:
    return Source("master", lambda into: shutil.copytree(master, into, dirs_exist_ok=True))


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def start(master: Path, cache: Path, log: Path, *, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(master), str(cache), str(log), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_differs_is_missing_or_would_be_loaded_as_well_is_named(
    master: Path, expected: ProvenFolder
) -> None:
    assert differing_files(expected, master) == []
    (master / "harmless.txt").write_text("not loaded")
    assert differing_files(expected, master) == []
    flip(master / "weights")
    (master / "config.json").unlink()
    (master / "added_tokens.json").write_text("{}")
    assert differing_files(expected, master) == ["added_tokens.json", "config.json", "weights"]


def test_equal_files_are_one_model_wherever_they_lie(
    master: Path, expected: ProvenFolder, tmp_path: Path
) -> None:
    shutil.copytree(master, tmp_path / "other")
    other = prove_folder(tmp_path / "other", ["weights", "config.json"])
    assert other.key == expected.key
    flip(tmp_path / "other" / "weights")
    assert prove_folder(tmp_path / "other", ["weights", "config.json"]).key != expected.key


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", ""])
def test_a_manifest_cannot_name_files_elsewhere(master: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="which is no file of this directory"):
        prove_folder(master, [name], known={name: "0"})


def test_two_processes_fetch_once(master: Path, expected: ProvenFolder, tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = [start(master, tmp_path / "models", log, pause=0.2) for _ in range(2)]
    paths = {process.communicate()[0].strip() for process in running}
    assert paths == {str(tmp_path / "models" / f"weights-{expected.key}")}
    assert log.read_text() == "fetched\n"


def test_one_killed_in_the_middle_leaves_nothing_half(
    master: Path, expected: ProvenFolder, tmp_path: Path
) -> None:
    models, log = tmp_path / "models", tmp_path / "log"
    killed = start(master, models, log, pause=60)
    deadline = time.monotonic() + 60
    while not list(models.glob(".weights-*.partial-*/config.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (models / f"weights-{expected.key}").exists()
    copy = equal_copy(expected, [copying(master)], cache=models)
    assert differing_files(expected, copy) == []
    assert [path.name for path in models.iterdir() if path.is_dir()] == [copy.name]


def test_a_copy_is_hashed_when_it_is_made_and_then_remembered(
    master: Path, expected: ProvenFolder, tmp_path: Path, cache: Path
) -> None:
    """A forged memory shows that it is asked: by it the copy differs, and there is nobody to copy from."""
    copy = equal_copy(expected, [copying(master)], cache=tmp_path / "models")
    memory = cache / "hashes.json"
    memory.write_text(memory.read_text().replace(expected.files[1].sha256, "forged"))
    assert differing_files(expected, copy) == ["weights"]


def test_a_damaged_copy_is_replaced_once(master: Path, expected: ProvenFolder, tmp_path: Path) -> None:
    fetched: list[Path] = []

    def fetch(into: Path) -> None:
        fetched.append(into)
        shutil.copytree(master, into, dirs_exist_ok=True)

    copy = equal_copy(expected, [Source("master", fetch)], cache=tmp_path / "models")
    flip(copy / "weights")
    assert equal_copy(expected, [Source("master", fetch)], cache=tmp_path / "models") == copy
    assert differing_files(expected, copy) == []
    assert equal_copy(expected, [], cache=tmp_path / "models") == copy
    assert len(fetched) == 2


def test_where_the_first_source_fails_the_next_is_asked(
    master: Path, expected: ProvenFolder, tmp_path: Path
) -> None:
    def fail(_: Path) -> None:
        raise CheckpointError("no credentials")

    copy = equal_copy(expected, [Source("s3://b", fail), copying(master)], cache=tmp_path / "models")
    assert differing_files(expected, copy) == []


def test_what_arrives_damaged_twice_is_refused_by_name_and_leaves_nothing(
    master: Path, expected: ProvenFolder, tmp_path: Path
) -> None:
    flip(master / "weights")
    with pytest.raises(CheckpointError, match=r"^from master: weights arrived damaged$"):
        equal_copy(expected, [copying(master)], cache=tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [f"weights-{expected.key}.lock"]
    with pytest.raises(CheckpointError, match="nobody to copy it from"):
        equal_copy(expected, [], cache=tmp_path / "models")


def test_a_cache_that_cannot_be_written_is_one_line(
    master: Path, expected: ProvenFolder, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"not writable .*; set COGBATCH_CACHE to a directory with"):
        equal_copy(expected, [copying(master)], cache=tmp_path / "file")
