"""Models behind s3:// URLs, against a real HTTP server (moto's) in a process of its own on loopback."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cogbatch.checkpoint.directory import prepare_model
from cogbatch.checkpoint.folders import model_folders
from cogbatch.checkpoint.remote import fetch, pulled_directory
from cogbatch.errors import CheckpointError

Converted = Callable[[str], Path]
BUCKET = "models"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an empty object store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "moto does not start"
            assert process.poll() is None, "moto ended"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch, converted: Converted) -> str:
    """tiny-a with its manifest in a bucket."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    if not fs.exists(BUCKET):
        fs.mkdir(BUCKET)
        for path in sorted(converted("tiny-a").iterdir()):
            fs.put_file(str(path), f"{BUCKET}/tiny/{path.name}")
    return f"s3://{BUCKET}/tiny"


def test_a_model_on_s3_is_pulled_once_and_is_the_model(url: str, converted: Converted) -> None:
    first = prepare_model(url)
    assert first.fingerprint == prepare_model(converted("tiny-a")).fingerprint
    made = first.path.stat().st_ino
    assert prepare_model(url).path.stat().st_ino == made


def test_a_node_copies_what_the_driver_proved(url: str, tmp_path: Path) -> None:
    folder = model_folders(prepare_model(url))[0]
    assert folder.origin == url
    told: list[int] = []
    fetch(url, [file.name for file in folder.files], tmp_path / "node", on_progress=lambda: told.append(1))
    for file in folder.files:
        assert (tmp_path / "node" / file.name).stat().st_size == file.size_bytes
    assert len(told) >= len(folder.files)


def test_what_is_not_there_is_one_line(url: str) -> None:
    with pytest.raises(CheckpointError, match=r"^s3://models/nothing: "):
        pulled_directory(url.replace("tiny", "nothing"))
    with pytest.raises(CheckpointError, match=r"^s3://no-such-bucket/x: ") as caught:
        pulled_directory("s3://no-such-bucket/x")
    assert "hunter2" not in str(caught.value)
