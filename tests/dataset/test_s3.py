"""Input and run directories on s3://, against a server of moto's on loopback."""

from __future__ import annotations

import io
import pickle
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cogbatch.dataset import RunDirectory, open_dataset
from cogbatch.dataset.object_path import ObjectPath
from cogbatch.dataset.options import InputOptions
from cogbatch.dataset.parts import is_complete, list_parts, read_part, write_part
from cogbatch.dataset.rows import Row
from cogbatch.dataset.schema import record, rows_to_table
from cogbatch.dataset.shards import Shard
from cogbatch.errors import DatasetError, RunDirectoryError
from cogbatch.images import load_image
from cogbatch.types import RequestOutput
from tests.dataset.inputs import KINDS, Item, every_row, folder_of, item_of, opened
from tests.s3 import s3_server

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of botocore
JOB = {"job_fingerprint": "j1", "identity": {"generation": {"seed": 0}}}
SHARDS = (Shard(0, 0, 0, 3), Shard(1, 0, 3, 2))


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture
def folder() -> str:
    return f"s3://bucket/{uuid.uuid4().hex}"


@pytest.fixture
def run(folder: str) -> RunDirectory:
    run = RunDirectory(folder)
    run.start(JOB)
    return run


def test_without_credentials_that_is_said_with_where_they_go(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    told = r"NoCredentialsError: .*; set them in the environment of this machine \(docs/storage.md\)"
    try:
        with pytest.raises(RunDirectoryError, match=rf"run/job.json cannot be read: {told}$"):
            RunDirectory(f"{folder}/run").check()
        with pytest.raises(DatasetError, match=rf"cannot be listed: s3: {told}$"):
            open_dataset(InputOptions(f"{folder}/*.parquet", prompt="say"))
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), colour).save(buffer, "PNG")
    return buffer.getvalue()


def put(url: str, data: bytes) -> None:
    ObjectPath(url).write_bytes(data)


def rows_of(options: InputOptions, *, shard_size: int = 2) -> list[Row]:
    dataset = open_dataset(options)
    return [row for shard in dataset.shards(shard_size) for row in dataset.read(shard)]


def table(shard: Shard, job: str = "j1") -> pa.Table:
    rows = [Row("a.parquet", shard.first_row + n, f"i{n}") for n in range(shard.num_rows)]
    return rows_to_table(
        [record(row, RequestOutput(row.id), model_fingerprint="m", job_fingerprint=job) for row in rows]
    )


def parquet_of(images: Sequence[str | None]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array(images, pa.string())}), sink)
    return sink.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_reads_as_from_disk_also_after_a_journey(folder: str, kind: str) -> None:
    files = [[Item(f"{n}/{row}", b"%d" % row * 50, f"what is {row}?") for row in range(40)] for n in range(2)]
    for name, data in folder_of(kind, files, group=15).items():
        put(f"{folder}/{name}", data)
    dataset = pickle.loads(pickle.dumps(opened(folder, kind)))
    assert [item_of(row) for row in every_row(dataset, 7)] == [item for items in files for item in items]


def test_images_are_keys_under_the_inputs_own_folder(folder: str) -> None:
    put(f"{folder}/images/red.png", png("red"))
    put("s3://bucket/elsewhere.png", png("blue"))
    values = ["images/red.png", f"{folder}/images/red.png", None]
    values += ["../elsewhere.png", "images/none.png", "gs://b/x"]
    put(f"{folder}/data.parquet", parquet_of(values))
    rows = rows_of(InputOptions(f"{folder}/data.parquet", prompt="?"))
    for row in rows[:2]:
        assert isinstance(row.image, bytes)
        assert load_image(row.image).getpixel((0, 0)) == (255, 0, 0)
    assert [row.image_ref for row in rows] == values
    messages = [row.error and row.error.message for row in rows]
    assert messages[:3] == [None, None, None]
    expected = ("leaves the image root", "no such file", "scheme 'gs'")
    for message, reason in zip(messages[3:], expected, strict=True):
        assert reason in str(message)


def test_a_folder_of_images_and_a_glob_are_listed(folder: str) -> None:
    for name, colour in (("b.png", "blue"), ("a.png", "red"), ("_no.png", "red")):
        put(f"{folder}/set/{name}", png(colour))
    rows = rows_of(InputOptions(f"{folder}/set", prompt="?"))
    assert [(row.id, row.image) for row in rows] == [("a.png", png("red")), ("b.png", png("blue"))]
    for number in range(3):
        put(f"{folder}/parts/{number}.parquet", parquet_of([None]))
    assert len(rows_of(InputOptions(f"{folder}/parts/*.parquet", prompt="?"))) == 3


def test_the_fingerprint_follows_the_content(folder: str) -> None:
    url = f"{folder}/data.parquet"
    prints = []
    for values in (["a.png"], ["b.png"], ["a.png"]):
        put(url, parquet_of(values))
        fsspec.filesystem("s3").invalidate_cache()
        prints.append(open_dataset(InputOptions(url, prompt="?")).fingerprint)
    assert prints[0] != prints[1]


def test_what_cannot_be_reached_is_one_line(folder: str) -> None:
    for url in (f"{folder}/none.parquet", "s3://no-such-bucket/data.parquet"):
        with pytest.raises(DatasetError, match="nothing there"):
            open_dataset(InputOptions(url, prompt="?"))
    nowhere = RunDirectory("s3://no-such-bucket/run")
    with pytest.raises(RunDirectoryError, match=r"bucket/run cannot be locked: .*bucket"), nowhere.lock():
        pass


def test_a_part_is_one_put_and_is_read_back(run: RunDirectory) -> None:
    assert run.missing(SHARDS) == SHARDS
    footer = write_part(run.parts, "part-0-0-3.parquet", table(SHARDS[0]))
    assert list_parts(str(run.path)) == ("part-0-0-3.parquet",)
    assert run.missing(SHARDS) == SHARDS[1:]
    assert run.footers() == (footer,)
    assert read_part(run.parts, footer.name).equals(table(SHARDS[0]))
    assert read_part(run.parts, footer.name, ["error"]).column_names == ["error"]
    etag = fsspec.filesystem("s3").info(str(run.parts / footer.name), refresh=True)["ETag"]
    assert "-" not in etag  # of several parts otherwise


def test_a_part_that_another_machine_replaced_is_seen_as_it_is_now(run: RunDirectory) -> None:
    name = SHARDS[0].part_name
    write_part(run.parts, name, table(SHARDS[0]))
    assert [footer.retry for footer in run.footers()] == [""]
    elsewhere = fsspec.filesystem("s3", skip_instance_cache=True)  # knows nothing of our listings
    sink = io.BytesIO()
    write_part("memory://part", name, table(SHARDS[0]), retry="round")
    sink.write(ObjectPath(f"memory://part/{name}").read_bytes())
    elsewhere.pipe_file(str(run.parts / name), sink.getvalue())
    assert [footer.retry for footer in run.footers()] == ["round"]
    elsewhere.pipe_file(str(run.parts / name), sink.getvalue()[:-100])
    assert run.missing(SHARDS) == SHARDS
    elsewhere.rm_file(str(run.parts / name))
    assert run.missing(SHARDS) == SHARDS
    assert not is_complete(run.parts / name, 3)


def test_a_run_is_resumed_and_another_job_refused(folder: str) -> None:
    assert RunDirectory(folder).start(JOB) == JOB
    again = RunDirectory(folder)
    assert again.start(JOB) == JOB
    other = {"job_fingerprint": "j2", "identity": {"generation": {"seed": 1}}}
    with pytest.raises(RunDirectoryError, match=r"belongs to another job: generation\.seed: 0 -> 1"):
        again.start(other)
    put(f"{folder}-foreign/photo.jpg", b"x")
    with pytest.raises(RunDirectoryError, match=r"holds something else than a run \(photo.jpg\)"):
        RunDirectory(f"{folder}-foreign").check()
    again.finish({"rows": 1})
    assert (again.path / "summary.json").exists()
    assert not (again.path / "report.html").exists()


def test_staged_items_become_a_part_and_are_gone(run: RunDirectory) -> None:
    shard = SHARDS[1]
    for item in shard.split():
        assert run.commit_staged(shard, job_fingerprint="j1") is None
        write_part(run.staging(shard), item.part_name, table(item))
    footer = run.commit_staged(shard, job_fingerprint="j1")
    assert footer is not None
    assert footer.num_rows == 2
    assert run.missing(SHARDS) == SHARDS[:1]
    assert ObjectPath(f"{run.path}/staging").names() == []


def test_a_probe_is_read_back(run: RunDirectory) -> None:
    run.write_probe("token", "host-1")
    assert run.read_probe("host-1") == "token"
    assert run.read_probe("host-2") is None
    run.start(JOB)
    assert run.read_probe("host-1") is None
    with pytest.raises(RunDirectoryError, match="no-such-bucket/run"):
        RunDirectory("s3://no-such-bucket/run").write_probe("token", "host-1")


def test_the_store_gives_the_lock_to_one_of_many(folder: str) -> None:
    objects = [ObjectPath(f"{folder}/lock/00000001")] * 8
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda place: place.create(b"me"), objects)) == 1
    said: list[str] = []
    with RunDirectory(f"{folder}/run").lock(said.append) as guard:
        guard()
        assert said == []  # no word of an advisory lock: the store keeps to the condition
    with RunDirectory(f"{folder}/run").lock(said.append):
        assert said == []


def test_logs_stay_on_this_machine(run: RunDirectory, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COGBATCH_CACHE", str(tmp_path))
    assert run.logs.is_relative_to(tmp_path / "logs")
    assert run.logs != RunDirectory(f"{run.path}x").logs
