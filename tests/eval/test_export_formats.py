"""Every format is what its consumer reads: loaded by it where it is installed, else by its schema."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from exported import encoded, export, loaded, noise, records
from PIL import Image
from small_run import MakeRun

from cogbatch.eval.export import Exported

HOSTILE = ["../../x", "a\nb\u2028c", "🦊 红猫", '"}, {"', "x" * 5000]


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    """Two prompts of one image, another image, and a text-only item; ids, prompts and texts of all kinds."""
    return make_run(
        [["a fox", "two\nlines"], ["红色的猫在左边。"], ["<b>&amp; 🦊"], ["words only"]],
        ids=[HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[4]],
        prompts=["What?", "看图说话。", HOSTILE[3], "Say something."],
        images=[encoded(noise(1)), encoded(noise(1)), encoded(noise(2), "JPEG"), None],
    )


def files(done: Exported) -> list[str]:
    folder = Path(str(done.out))
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_llava_is_an_array_of_id_image_and_two_turns(run: Path) -> None:
    done = export(run, "llava", select="all")
    found = records(done)
    assert [record["id"] for record in found] == ["0-0-0-0", "0-0-0-1", "0-0-1-0", "0-0-2-0", "0-0-3-0"]
    assert [set(record) for record in found[:4]] == [{"id", "image", "conversations"}] * 4
    assert found[1]["conversations"] == [
        {"from": "human", "value": "<image>\nWhat?"},
        {"from": "gpt", "value": "two\nlines"},
    ]
    assert set(found[4]) == {"id", "conversations"}
    assert found[4]["conversations"][0]["value"] == "Say something."
    folder = Path(str(done.out))
    assert found[0]["image"] == found[2]["image"]
    assert (folder / found[0]["image"]).read_bytes() == encoded(noise(1))
    assert (folder / found[3]["image"]).suffix == ".jpg"
    assert len(list((folder / "images").rglob("*.*"))) == 2


def test_sharegpt_has_one_image_token_a_path_and_its_own_description(run: Path, tmp_path: Path) -> None:
    done = export(run, "sharegpt")
    info = json.loads((Path(str(done.out)) / "dataset_info.json").read_text())
    columns = {"messages": "conversations", "images": "images"}
    assert info == {"train": {"file_name": "train.jsonl", "formatting": "sharegpt", "columns": columns}}
    for record in records(done):
        human, gpt = record["conversations"]
        assert (human["from"], gpt["from"]) == ("human", "gpt")
        assert human["value"].count("<image>") == len(record["images"])
    assert [len(row["images"]) for row in loaded(done, tmp_path / "cache")["train"]] == [1, 1, 1, 0]


def test_openai_chat_holds_messages_and_data_urls(run: Path) -> None:
    done = export(run, "openai-chat")
    found = records(done)
    assert [list(record) for record in found] == [["messages"]] * 4
    user, assistant = found[0]["messages"]
    assert assistant == {"role": "assistant", "content": "a fox"}
    assert user["role"] == "user"
    text, image = user["content"]
    assert text == {"type": "text", "text": "What?"}
    head, data = image["image_url"]["url"].split(",")
    assert (image["type"], head) == ("image_url", "data:image/png;base64")
    assert base64.b64decode(data) == encoded(noise(1))
    assert found[2]["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert found[3]["messages"][0] == {"role": "user", "content": "Say something."}


def test_openai_chat_takes_rgb_only_and_nothing_over_10_mb(make_run: MakeRun) -> None:
    grey, large = (
        encoded(noise(1).convert("L"), "JPEG"),
        encoded(noise(2, size=(2000, 1700)), compress_level=0),
    )
    assert len(large) > 10_000_000
    run = make_run([["a"], ["b"]], images=[grey, large])
    done = export(run, "openai-chat")
    (record,) = records(done)
    url = record["messages"][0]["content"][1]["image_url"]["url"]
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert (image.format, image.mode) == ("PNG", "RGB")
    assert done.counts["dropped"]["with an image over 10 MB"] == 1


def test_hf_dataset_loads_with_images_as_images(run: Path, tmp_path: Path) -> None:
    done = export(run, "hf-dataset", select="all")
    train = loaded(done, tmp_path / "cache")["train"]
    assert type(train.features["image"]).__name__ == "Image"
    assert train["text"][:] == ["a fox", "two\nlines", "红色的猫在左边。", "<b>&amp; 🦊", "words only"]
    assert train[0]["image"].tobytes() == noise(1).tobytes()
    assert train[4]["image"] is None
    assert train[3]["source_id"] == "🦊 红猫"
    assert train[0]["messages"] == [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a fox"}]},
    ]
    assert train[0]["logprob_per_token"] == -0.5
    assert [part["type"] for part in train[4]["messages"][0]["content"]] == ["text"]


def test_dpo_has_the_columns_that_trl_documents(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run([["good", "bad"]], carried={"points": [[2.5, 1.0]]}, images=[encoded(noise(1))])
    train = loaded(export(run, "dpo", score="points"), tmp_path / "cache")["train"]
    assert train.num_rows == 1
    (row,) = train
    assert {"images", "prompt", "chosen", "rejected"} <= set(row)
    assert [part["type"] for part in row["prompt"][0]["content"]] == ["image", "text"]
    assert row["prompt"][0]["role"] == "user"
    assert row["chosen"] == [{"role": "assistant", "content": [{"type": "text", "text": "good"}]}]
    assert row["rejected"] == [{"role": "assistant", "content": [{"type": "text", "text": "bad"}]}]
    assert [image.tobytes() for image in row["images"]] == [noise(1).tobytes()]
    assert (row["score_chosen"], row["score_rejected"]) == (2.5, 1.0)


def test_webdataset_groups_image_json_and_text_under_keys_of_ours(run: Path) -> None:
    done = export(run, "webdataset", select="all")
    folder = Path(str(done.out))
    with tarfile.open(folder / "train-000000.tar") as tar:
        names = tar.getnames()
    assert names[:3] == ["0-0-0-0.png", "0-0-0-0.json", "0-0-0-0.txt"]
    assert all(set(name) <= set("0123456789-.abcdefghijklmnopqrstuvwxyz") for name in names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it leaves its files open
        import webdataset

        samples = list(
            webdataset.WebDataset(
                str(folder / "train-000000.tar"), shardshuffle=False, empty_check=False
            ).decode("pil")
        )
    assert [sample["txt"] for sample in samples][2:] == ["红色的猫在左边。", "<b>&amp; 🦊", "words only"]
    assert samples[0]["png"].tobytes() == noise(1).tobytes()
    assert "jpg" in samples[3]
    assert samples[0]["json"]["source_id"] == "../../x"
    assert samples[0]["json"]["prompt"] == "What?"


def test_tar_and_parquet_files_stay_within_their_bound(make_run: MakeRun, tmp_path: Path) -> None:
    count = 12
    run = make_run([[f"text {n}"] for n in range(count)], images=[encoded(noise(n)) for n in range(count)])
    image_bytes = len(encoded(noise(0)))
    tars = export(run, "webdataset", shard_bytes=4 * (image_bytes + 4000))
    assert sum(name.endswith(".tar") for name in files(tars)) > 2
    assert all(path.stat().st_size < 6 * (image_bytes + 8000) for path in Path(str(tars.out)).glob("*.tar"))
    assert loaded(tars, tmp_path / "tars")["train"].num_rows == count
    parquet = export(run, "hf-dataset", shard_bytes=4 * image_bytes)
    assert sum(name.endswith(".parquet") for name in files(parquet)) == 3
    assert loaded(parquet, tmp_path / "parquet")["train"].num_rows == count


def test_coco_has_integer_ids_sizes_and_an_annotation_a_caption(run: Path) -> None:
    done = export(run, "coco-captions", select="all")
    found = json.loads((Path(str(done.out)) / "annotations" / "captions_train.json").read_text())
    assert set(found) == {"info", "licenses", "images", "annotations"}
    assert [set(image) for image in found["images"]] == [{"id", "file_name", "width", "height"}] * 2
    assert [(image["id"], image["width"], image["height"]) for image in found["images"]] == [
        (1, 24, 18),
        (2, 24, 18),
    ]
    assert [(note["id"], note["image_id"], note["caption"]) for note in found["annotations"]] == [
        (1, 1, "a fox"),
        (2, 1, "two\nlines"),
        (3, 1, "红色的猫在左边。"),
        (4, 2, "<b>&amp; 🦊"),
    ]
    for image in found["images"]:
        with Image.open(Path(str(done.out)) / "images" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
    assert done.counts["dropped"] == {"without an image": 1}
    assert (found["info"]["year"], found["info"]["date_created"]) == (2026, "2026/11/23")


def test_coco_counts_ids_through_both_splits(make_run: MakeRun) -> None:
    run = make_run([["a"]] * 20, images=[encoded(noise(n)) for n in range(20)])
    folder = Path(str(export(run, "coco-captions", validation=0.5).out)) / "annotations"
    sides = [json.loads((folder / f"captions_{split}.json").read_text()) for split in ("train", "validation")]
    for key in ("images", "annotations"):
        ids = [entry["id"] for side in sides for entry in side[key]]
        assert sorted(ids) == list(range(1, 21))


def test_image_tokens_of_the_data_are_not_image_tokens_of_ours(make_run: MakeRun) -> None:
    run = make_run(
        [["fine", "see <image> here"], ["a", "<video>"]],
        prompts=["<image>\nWhat<im<ima<video>ge>age>?", "Is <audio> here?"],
        images=[encoded(noise(1)), None],
    )
    for form in ("llava", "sharegpt"):
        done = export(run, form, select="all")
        asked = [record["conversations"][0]["value"] for record in records(done)]
        assert asked == ["<image>\nWhat?", "Is  here?"]
        assert done.counts["dropped"] == {"with an image token in its text": 2}
    kept: Any = records(export(run, "openai-chat", select="all"))
    assert [record["messages"][1]["content"] for record in kept] == [
        "fine",
        "see <image> here",
        "a",
        "<video>",
    ]


@pytest.mark.parametrize("form", ["llava", "sharegpt", "openai-chat", "hf-dataset", "webdataset"])
def test_every_loadable_format_loads_with_both_splits(make_run: MakeRun, tmp_path: Path, form: str) -> None:
    count = 24
    run = make_run(
        [[f"a {n}", f"b {n}"] for n in range(count)], images=[encoded(noise(n)) for n in range(count)]
    )
    done = export(run, form, select="all", validation=0.3)
    found = loaded(done, tmp_path / "cache")
    assert {split: data.num_rows for split, data in found.items()} == done.counts["examples"]
    assert sum(data.num_rows for data in found.values()) == 2 * count
    assert set(found) == {"train", "validation"}


def test_prompts_and_ids_of_5_mb_are_exported_whole(make_run: MakeRun, tmp_path: Path) -> None:
    long = "word 字 " * 700_000
    run = make_run([["a"], ["b"]], ids=[long, "b"], prompts=[long, "?"], images=[encoded(noise(1)), None])
    for form in ("llava", "hf-dataset"):
        row = loaded(export(run, form), tmp_path / form)["train"][0]
        if form == "llava":
            assert row["conversations"][0]["value"] == f"<image>\n{long.strip()}"
        else:
            assert (row["source_id"], row["messages"][0]["content"][1]["text"]) == (long, long)


@pytest.mark.slow
def test_a_candidate_of_5_mb_is_exported_whole(make_run: MakeRun, tmp_path: Path) -> None:
    """Slow for its diversity figures only."""
    long = "word 字 " * 700_000
    run = make_run([[long], ["short"]], images=[encoded(noise(1)), encoded(noise(2))])
    done = export(run, "hf-dataset", dedupe="near")
    assert loaded(done, tmp_path / "cache")["train"]["text"][:] == [long, "short"]


def test_parquet_says_its_features_itself(run: Path) -> None:
    done = export(run, "hf-dataset")
    (path,) = (Path(str(done.out)) / "data").iterdir()
    schema = pq.read_schema(path)
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    assert features["image"] == {"_type": "Image"}


@pytest.mark.parametrize("form", ["hf-dataset", "llava"])
def test_another_export_of_that_name_is_loaded_anew(make_run: MakeRun, tmp_path: Path, form: str) -> None:
    run = make_run([["a cat", "a dog"], ["x y", "z w"]])
    assert loaded(export(run, form, select="all"), tmp_path / "cache")["train"].num_rows == 4
    assert loaded(export(run, form), tmp_path / "cache")["train"].num_rows == 2
