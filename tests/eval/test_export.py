"""One export as a whole: everything counted once, nothing left half done, the same run the same bytes."""

from __future__ import annotations

import hashlib
import http.server
import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from exported import encoded, export, noise, records, said, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import MakeRun, write_run

from cogbatch.errors import EvaluationError, RunDirectoryError
from cogbatch.eval.export import Exported
from cogbatch.types import RequestError

GONE = RequestError("image", "ImageError", "gone")


def tree(done: Exported) -> dict[str, str]:
    folder = Path(str(done.out))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check_counts(counts: dict[str, Any], *, per_example: int = 1) -> None:
    """Every item has one outcome; every candidate was exported or dropped once."""
    assert sum(counts["outcomes"].values()) == counts["items"]
    exported = sum(counts["examples"].values()) * per_example
    assert sum(counts["dropped"].values()) + exported == counts["candidates"]


def test_every_item_and_candidate_is_counted_once(make_run: MakeRun) -> None:
    run = make_run(
        [["a", "b"], GONE, ["a", "b"], [said(0, "", flags=())], ["c"], ["d"]],
        prompts=["?"] * 6,
        images=[encoded(noise(1)), None, encoded(noise(1)), None, b"no image", "../../etc/passwd"],
    )
    done = export(run, "llava", select="all")
    check_counts(done.counts)
    assert done.counts["outcomes"] == {
        "exported": 1,
        "error rows": 2,
        "only duplicates, or what the format cannot hold": 1,
        "no candidate left": 1,
        "image missing or damaged": 1,
    }
    assert done.counts["dropped"] == {
        "the same image, prompt and text": 2,
        "without text": 1,
        "image missing or damaged": 1,
    }
    assert any("1 items left out, their image is missing or damaged" in note for note in done.notes)


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(["a", "b c", "b d", "", "猫"]), max_size=4), st.integers(0, 3)),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["all", "best", "distinct"]),
    st.sampled_from(["none", "pairs", "texts", "near"]),
)
@settings(max_examples=10, deadline=None)
def test_counts_add_up_and_kept_texts_are_no_duplicates(
    items: list[tuple[list[str], int]], select: Any, dedupe: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(
            Path(folder),
            [item for item, _ in items],
            prompts=["?"] * len(items),
            images=[encoded(noise(image)) if image else None for _, image in items],
        )
        if not any(text for item, _ in items for text in item):
            with pytest.raises(EvaluationError, match="nothing to export"):
                export(run, "llava", select=select, dedupe=dedupe)
            return
        done = export(run, "llava", select=select, dedupe=dedupe, validation=0.4)
        check_counts(done.counts)
        found = [record for split in done.counts["examples"] for record in records(done, split)]
    keys = [
        (record.get("image") if dedupe == "pairs" else "", record["conversations"][1]["value"])
        for record in found
    ]
    assert dedupe == "none" or len(keys) == len(set(keys))


def test_duplicates_by_pairs_texts_and_near(make_run: MakeRun) -> None:
    long = "a large red circle is on the left and a small blue square is on the right of it"
    run = make_run(
        [["yes", long], ["Yes.", long + " now"], ["yes"], ["yes"]],
        prompts=["A?", "A?", "B?", "A?"],
        images=[encoded(noise(1)), encoded(noise(2)), encoded(noise(1)), encoded(noise(1), "BMP")],
    )
    found = {
        dedupe: texts(export(run, "llava", select="all", dedupe=dedupe))
        for dedupe in ("none", "pairs", "texts", "near")
    }
    assert found["none"] == ["yes", long, "Yes.", long + " now", "yes", "yes"]
    assert found["pairs"] == ["yes", long, "Yes.", long + " now", "yes"]
    assert found["texts"] == ["yes", long, long + " now"]
    assert found["near"] == ["yes", long]


def test_captions_of_one_image_are_equal_whatever_was_asked(make_run: MakeRun) -> None:
    run = make_run([["a fox"], ["a fox"]], images=[encoded(noise(1))] * 2)
    assert len(texts(export(run, "llava"))) == 2
    done = export(run, "coco-captions")
    assert done.counts["examples"] == {"train": 1}
    assert done.counts["dropped"] == {"the same image and text": 1}


def test_the_same_run_gives_the_same_bytes_whatever_the_size_of_parts(tmp_path: Path) -> None:
    outputs = [[f"text {n}", f"other {n % 3}"] for n in range(9)]
    images = [encoded(noise(n % 5)) for n in range(9)]
    for form in ("llava", "webdataset", "hf-dataset"):
        trees = []
        for size in (1, 9):
            run = write_run(tmp_path / f"{form}{size}", outputs, images=images, shard_size=size)
            done = export(run, form, select="all", dedupe="near", validation=0.3)
            trees.append({name: mark for name, mark in tree(done).items() if name != "README.md"})
        assert trees[0] == trees[1]
        assert tree(done) == tree(export(run, form, select="all", dedupe="near", validation=0.3))


def test_several_runs_become_one_export(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", [["a"], ["b"]], name="first")
    two = write_run(tmp_path / "two", [["a"], ["c"]], name="second")
    done = export([one, two], "llava", dedupe="texts")
    assert [record["id"] for record in records(done)] == ["0-0-0-0", "0-0-1-0", "1-0-1-0"]
    check_counts(done.counts)
    card = (Path(str(done.out)) / "README.md").read_text()
    assert "# first, second" in card
    assert card.count("job_fingerprint: j") == 2


def test_an_unfinished_run_is_refused_unless_partial(make_run: MakeRun) -> None:
    run = make_run([["a"]] * 4, done=1)
    with pytest.raises(EvaluationError, match="has 2 of 4 rows; run its job to the end, or export"):
        export(run, "llava")
    assert len(records(export(run, "llava", partial=True))) == 2
    with pytest.raises(RunDirectoryError, match=r"data has no job\.json"):
        export(run.parent / "data", "llava")
    with pytest.raises(RunDirectoryError, match=r"dmo: no such folder; expected a run directory"):
        export(run.parent / "dmo", "llava")


def test_an_input_that_changed_gives_no_wrong_images(make_run: MakeRun) -> None:
    run = make_run([["a"], ["b"], ["c"]])
    rows = run.parent / "data" / "rows.jsonl"
    rows.write_text(rows.read_text().replace("item-1", "item-X"))
    done = export(run, "llava")
    assert texts(done) == ["a", "c"]
    assert any("another size or time than when the job ran" in note for note in done.notes)
    assert done.counts["outcomes"] == {"exported": 2, "input row changed or gone": 1}
    assert done.counts["dropped"] == {"input row changed or gone": 1}
    said = "1 items left out, their input row changed or is gone: the input has another id there now (1)"
    assert said in done.notes
    rows.unlink()
    with pytest.raises(Exception, match=r"rows\.jsonl"):
        export(run, "llava")
    assert texts(done) == ["a", "c"]  # a failed export leaves the old one


def test_nothing_left_is_an_error_with_reasons_and_leaves_nothing(make_run: MakeRun) -> None:
    run = make_run([[said(0, "on and on", finish_reason="length")], GONE])
    with pytest.raises(
        EvaluationError, match=r"nothing to export from 2 items: .*1 cut off by max_new_tokens"
    ):
        export(run, "hf-dataset")
    assert sorted(path.name for path in run.parent.iterdir()) == ["data", "run"]


def test_a_text_only_input_needs_no_image_column(make_run: MakeRun) -> None:
    done = export(make_run([["a"], ["b"]], images=[None, None]), "sharegpt")
    assert [record["images"] for record in records(done)] == [[], []]


def test_signed_addresses_never_leave_and_plain_ones_only_when_asked(make_run: MakeRun) -> None:
    with serving(encoded(noise(1))) as address:
        signed = f"{address}/b.png?X-Amz-Signature=abc"
        run = make_run([["a"], ["b"]], images=[f"{address}/a.png", signed])
        job = json.loads((run / "job.json").read_text())
        job["spec"]["input"]["allow_private_addresses"] = True
        (run / "job.json").write_text(json.dumps(job))
        plain = export(run, "openai-chat")
        urls = [record["messages"][0]["content"][1]["image_url"]["url"] for record in records(plain)]
        assert [url[:22] for url in urls] == ["data:image/png;base64,"] * 2
        done = export(run, "openai-chat", image_urls=True)
        urls = [record["messages"][0]["content"][1]["image_url"]["url"] for record in records(done)]
        assert urls[0] == f"{address}/a.png"
        assert urls[1][:22] == "data:image/png;base64,"
    for path in Path(str(done.out)).rglob("*.*"):
        assert "abc" not in path.read_text()


@contextmanager
def serving(data: bytes) -> Iterator[str]:
    """The address of a server on loopback that answers everything with these bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def test_the_marker_counts_and_names_what_was_written(make_run: MakeRun) -> None:
    done = export(make_run([["a"], ["b"]]), "sharegpt", validation=0.0)
    folder = Path(str(done.out))
    marker = json.loads((folder / "cogbatch_export.json").read_text())
    assert marker["names"] == sorted(path.name for path in folder.iterdir())
    assert marker["examples"] == {"train": 2}
    assert marker["settings"]["select"] == "best"
