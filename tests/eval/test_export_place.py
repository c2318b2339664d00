"""Where an export goes: never over what is not one, whole or not at all, and to object stores."""

from __future__ import annotations

import fsspec
import pyarrow.parquet as pq
import pytest
from small_run import MakeRun

from cogbatch.errors import EvaluationError
from cogbatch.eval.export import ExportOptions, export_runs
from tests.s3 import s3_server


def test_what_is_there_is_replaced_only_if_it_is_an_export(make_run: MakeRun) -> None:
    run = make_run([["a"]])
    out = run.parent / "out"
    first = export_runs([run], out, ExportOptions("llava"))
    with pytest.raises(EvaluationError, match="is not empty; use another path, or --overwrite"):
        export_runs([run], out, ExportOptions("llava"))
    export_runs([run], out, ExportOptions("webdataset"), overwrite=True)
    assert not (out / "train.json").exists()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(EvaluationError, match=r"holds what no export wrote \(notes\.txt\)"):
        export_runs([run], out, ExportOptions("llava"), overwrite=True)
    for folder in (run, run.parent / "data"):
        with pytest.raises(
            EvaluationError, match=r"no earlier export: it has no cogbatch_export\.json; nothing is"
        ):
            export_runs([run], folder, ExportOptions("llava"), overwrite=True)
    (run.parent / "file").write_text("")
    with pytest.raises(EvaluationError, match="is a file; expected a folder"):
        export_runs([run], run.parent / "file", ExportOptions("llava"))
    (run.parent / "link").symlink_to(out)
    with pytest.raises(EvaluationError, match="is a link; expected a folder"):
        export_runs([run], run.parent / "link", ExportOptions("llava"), overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert first.counts["items"] == 1


def test_what_came_to_lie_there_meanwhile_is_not_replaced(make_run: MakeRun) -> None:
    run = make_run([["a"], ["b"]])
    out = run.parent / "out"

    def come(done: int, total: int) -> None:
        if done == total:
            out.mkdir()
            (out / "mine.txt").write_text("mine")

    for overwrite in (False, True):
        with pytest.raises(EvaluationError, match=r"is not empty|is no earlier export"):
            export_runs([run], out, ExportOptions("llava"), overwrite=overwrite, on_progress=come)
        assert [path.name for path in out.iterdir()] == ["mine.txt"]
        assert not list(run.parent.glob("*.tmp")) + list(run.parent.glob(".*.tmp"))
        (out / "mine.txt").unlink()
        out.rmdir()


@pytest.mark.slow
def test_an_export_on_s3_is_read_from_there(make_run: MakeRun) -> None:
    run = make_run([["a"], ["b"]])
    with s3_server():
        for overwrite in (False, True):
            export_runs([run], "s3://bucket/data/out", ExportOptions("hf-dataset"), overwrite=overwrite)
        with fsspec.open("s3://bucket/data/out/data/train-00000.parquet") as file:
            assert pq.read_table(file)["text"].to_pylist() == ["a", "b"]
        assert len(fsspec.filesystem("s3").find("bucket/data")) == 3


def test_object_stores_take_what_is_read_from_there(make_run: MakeRun) -> None:
    run = make_run([["a"], ["b"]])
    fsspec.filesystem("memory").store.clear()
    done = export_runs([run], "memory://bucket/out", ExportOptions("hf-dataset"))
    names = [name.removeprefix("/bucket/out/") for name in fsspec.filesystem("memory").store]
    assert names == ["cogbatch_export.json", "data/train-00000.parquet", "README.md"]  # the card last
    assert str(done.out) == "memory://bucket/out"
    with pytest.raises(EvaluationError, match="is not empty"):
        export_runs([run], "memory://bucket/out", ExportOptions("hf-dataset"))
    export_runs([run], "memory://bucket/out", ExportOptions("webdataset"), overwrite=True)
    assert "/bucket/out/train-000000.tar" in fsspec.filesystem("memory").store
    assert "/bucket/out/data/train-00000.parquet" not in fsspec.filesystem("memory").store
    with pytest.raises(
        EvaluationError, match="this format is read from local files; export to a local folder"
    ):
        export_runs([run], "memory://bucket/other", ExportOptions("llava"))
    with pytest.raises(EvaluationError, match="an address with a secret"):
        export_runs([run], "s3://key:secret@bucket/out", ExportOptions("hf-dataset"))
