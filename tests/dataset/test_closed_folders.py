"""Folders that this user may not enter: said by name, before anything is read or written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# As root every folder is open, until the rights that make it so are given up.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []


def _may_give_up_rights() -> bool:
    if not shutil.which("setpriv"):
        return False
    return subprocess.run([*WITHOUT_RIGHTS, "true"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    bool(WITHOUT_RIGHTS) and not _may_give_up_rights(), reason="root here cannot give up its rights"
)
SAID = """
import json, sys
from cogbatch.dataset import RunDirectory
from cogbatch.dataset.options import InputOptions
from cogbatch.dataset.dataset import open_dataset
for kind, path in json.loads(sys.argv[1]):
    try:
        RunDirectory(path).check() if kind == "run" else open_dataset(InputOptions(path=path, prompt="say"))
        print("fine")
    except Exception as err:
        print(f"{type(err).__name__}: {err}")
"""


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder with an image and a folder with two more, which is closed."""
    inner = tmp_path / "photos" / "closed"
    (inner / "more").mkdir(parents=True)
    for place in (inner.parent / "a.jpg", inner / "b.jpg", inner / "more" / "c.jpg"):
        place.touch()
    inner.chmod(0)
    yield inner
    inner.chmod(0o700)


def test_a_closed_folder_is_named_and_never_passed_over(closed: Path) -> None:
    photos = closed.parent
    asked = [
        *[("input", f"{photos}"), ("input", f"{closed}"), ("input", f"{closed}/more")],
        *[("input", f"{closed}/*.jpg"), ("input", f"{photos}/*.jpg"), ("input", f"{photos}/no/*.jpg")],
        *[("input", f"{photos}/*/*.jpg"), ("input", f"{photos.parent}/*/**/*.jpg")],
        *[("run", f"{closed}"), ("run", f"{photos}/a.jpg/run"), ("run", f"{photos.parent}/new/run")],
    ]
    command = [*WITHOUT_RIGHTS, sys.executable, "-c", SAID, json.dumps(asked)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    refused = f"{closed} may not be read by this user; allow it, or use another path"
    assert said == [
        f"DatasetError: input '{photos}': {refused}",
        f"DatasetError: input '{closed}': {refused}",
        f"DatasetError: input '{closed}/more': cannot be listed:"
        f" [Errno 13] Permission denied: '{closed}/more'",
        f"DatasetError: input '{closed}/*.jpg': {refused}",
        "fine",
        f"DatasetError: input '{photos}/no/*.jpg': no file matches; expected files of"
        " parquet, jsonl, csv, webdataset, huggingface, or for images their folder",
        f"DatasetError: input '{photos}/*/*.jpg': {refused}",
        f"DatasetError: input '{photos.parent}/*/**/*.jpg': {refused}",
        f"RunDirectoryError: {closed} cannot be written: this user may not write in {closed};"
        " change that, or use another output path",
        f"RunDirectoryError: {photos}/a.jpg/run cannot be made: {photos}/a.jpg is a file;"
        " use another output path",
        "fine",
    ]


def test_a_closed_sweep_hides_no_other_run(closed: Path) -> None:
    folder = closed.parent
    (folder / "sweep").mkdir()
    (folder / "sweep" / "sweep.json").write_text("{}")
    (folder / "sweep" / "points").symlink_to(closed)
    (folder / "run").mkdir()
    (folder / "run" / "job.json").write_text("{}")
    command = [sys.executable, "-c", "from cogbatch.cli import main; main()", "list", str(folder)]
    done = subprocess.run([*WITHOUT_RIGHTS, *command], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    found = [line.split("  ")[0] for line in lines]
    assert found == [f"{folder}/{name}" for name in ("closed", "run", "sweep")]
    assert "unreadable: " in lines[2]
    assert "Permission denied" in lines[2]


def test_an_error_of_the_system_says_where_and_what_to_do(closed: Path) -> None:
    command = [sys.executable, "-c", "from cogbatch.cli import main; main()", "list", str(closed)]
    done = subprocess.run([*WITHOUT_RIGHTS, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: {closed}: Permission denied; allow this user to read and write there, or use another path\n"
    )
