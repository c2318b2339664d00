"""From what a job names to a model directory: converted once, checked, fingerprinted."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor

from cogbatch.checkpoint.directory import check_sat_config, classify, prepare_model
from cogbatch.checkpoint.manifest import check_files, model_fingerprint
from cogbatch.errors import CheckpointError
from cogbatch.model.directory import load_tokenizer

SatCopy = Callable[..., Path]
Converted = Callable[[str], Path]


@pytest.fixture
def model_dir(converted: Converted, tmp_path: Path) -> Path:
    """A writable model directory without tokenizer."""
    return Path(shutil.copytree(converted("tiny-a"), tmp_path / "model"))


def change_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_kinds_are_told_apart(golden: Path, model_dir: Path, tmp_path: Path) -> None:
    assert classify(golden / "tiny-a" / "ckpt") == "sat"
    assert classify(model_dir) == "hf"
    with pytest.raises(CheckpointError, match=r"neither a SAT checkpoint .* nor .*, found "):
        classify(golden)
    with pytest.raises(CheckpointError, match="iteration folder"):
        classify(golden / "tiny-a" / "ckpt" / "1")
    with pytest.raises(CheckpointError, match="no such directory"):
        classify(tmp_path / "nothing")


@pytest.mark.parametrize("model_class", ["CogVLMVideoModel", "CogAgentModel"])
def test_an_unsupported_class_is_named_before_anything_else(sat_copy: SatCopy, model_class: str) -> None:
    folder = sat_copy(config={"model_class": model_class, "text_processor_version": None})
    (folder / "1" / "mp_rank_00_model_states.pt").write_bytes(b"never read")
    for check in (check_sat_config, prepare_model):
        with pytest.raises(CheckpointError, match=f"model_class '{model_class}'.* is not supported"):
            check(folder)


def test_a_sat_directory_is_checked_without_its_weights(sat_copy: SatCopy) -> None:
    folder = sat_copy(config={"text_processor_version": None})
    weights = folder / "1" / "mp_rank_00_model_states.pt"
    weights.write_bytes(b"never read")
    check_sat_config(folder, version="base")
    with pytest.raises(CheckpointError, match="no text_processor_version; pass --version"):
        check_sat_config(folder)
    with pytest.raises(ValueError, match="unknown version 'poem'"):
        check_sat_config(folder, version="poem")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"no mp_rank_00_model_states\.pt"):
        check_sat_config(folder, version="base")


def test_sat_is_converted_once_into_the_cache(golden: Path, cache: Path) -> None:
    calls: list[int] = []

    def prepare(version: str) -> Path:
        source = golden / "tiny-a" / "ckpt"
        return prepare_model(source, version=version, on_progress=lambda done, _: calls.append(done)).path

    first = prepare("base")
    converted_at = len(calls)
    assert first.parent == cache / "models"
    assert converted_at > 0
    assert prepare("base") == first
    assert len(calls) == converted_at
    assert prepare("vqa") != first


def test_two_at_once_convert_once(golden: Path) -> None:
    finished: list[int] = []
    paths: list[Path] = []

    def prepare() -> None:
        model = prepare_model(
            golden / "tiny-2" / "ckpt",
            version="base",
            on_progress=lambda done, total: finished.append(1) if done == total else None,
        )
        paths.append(model.path)

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert finished == [1]


def test_other_weights_are_another_model(golden: Path, sat_copy: SatCopy) -> None:
    changed = sat_copy(edit=lambda module: module["mixins.eva.boi"].add_(1))
    a = prepare_model(golden / "tiny-a" / "ckpt", version="base")
    b = prepare_model(changed, version="base")
    assert a.path != b.path
    assert a.fingerprint != b.fingerprint


def test_ranks_and_unmerged_lora_are_prepared_like_any_checkpoint(golden: Path) -> None:
    plain = prepare_model(golden / "tiny-a" / "ckpt", version="base")
    ranks = prepare_model(golden / "tiny-a-mp2" / "ckpt", version="base")
    lora = prepare_model(golden / "tiny-a-lora" / "ckpt", version="base")
    assert ranks.path != plain.path
    assert ranks.fingerprint == plain.fingerprint != lora.fingerprint


def test_another_latest_iteration_is_another_conversion(sat_copy: SatCopy) -> None:
    folder = sat_copy()
    first = prepare_model(folder, version="base")
    shutil.copytree(folder / "1", folder / "2")
    assert prepare_model(folder, version="base") == first
    (folder / "latest").write_text("2")
    assert prepare_model(folder, version="base").path != first.path


def test_what_a_killed_conversion_left_in_the_cache_is_cleared(golden: Path, cache: Path) -> None:
    target = prepare_model(golden / "tiny-a" / "ckpt", version="base").path
    left = target.with_name(f".{target.name}.partial-0123456789ab")
    target.rename(left)
    assert prepare_model(golden / "tiny-a" / "ckpt", version="base").path == target
    assert sorted(entry.name for entry in (cache / "models").iterdir()) == [
        target.name,
        f"{target.name}.lock",
    ]


def test_template_of_a_model_directory_can_be_overridden(model_dir: Path) -> None:
    assert prepare_model(model_dir).template_version == "chat"
    assert prepare_model(model_dir, version="chat").template_version == "inst"
    with pytest.raises(ValueError, match="unknown version"):
        prepare_model(model_dir, version="inst")


def test_given_tokenizer_serves_a_directory_that_has_none(model_dir: Path, tokenizer_dir: Path) -> None:
    bare = prepare_model(model_dir)
    assert not bare.has_tokenizer
    served = prepare_model(model_dir, tokenizer=tokenizer_dir)
    assert served.path == model_dir
    assert served.tokenizer_path is not None
    # As it lies, transformers would read it other than sentencepiece does: what is served is a mended copy.
    reference = SentencePieceProcessor(model_file=str(tokenizer_dir / "tokenizer.model"))
    tokenizer = load_tokenizer(served.tokenizer_path, shown_as="served")
    assert tokenizer.encode(" [INST] what", add_special_tokens=False) == reference.encode(" [INST] what")
    assert prepare_model(model_dir, tokenizer=tokenizer_dir) == served
    assert served.fingerprint not in (bare.fingerprint, "")


def test_damaged_files_are_named(model_dir: Path) -> None:
    assert check_files(model_dir) == []
    weights = model_dir / "model-00001-of-00001.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (model_dir / "visual.py").unlink()
    assert sorted(check_files(model_dir)) == ["model-00001-of-00001.safetensors", "visual.py"]
    with pytest.raises(CheckpointError, match="differ from the manifest"):
        prepare_model(model_dir)


def test_fingerprint_without_a_manifest_is_that_of_the_manifest(model_dir: Path) -> None:
    with_manifest = prepare_model(model_dir).fingerprint
    (model_dir / "cogbatch_manifest.json").unlink()
    assert prepare_model(model_dir).fingerprint == with_manifest


def test_fingerprint_ignores_layout_rotary_buffers_and_harmless_values(model_dir: Path) -> None:
    before = model_fingerprint(model_dir)
    tensors = load_file(model_dir / "model-00001-of-00001.safetensors")
    (model_dir / "model-00001-of-00001.safetensors").unlink()
    (model_dir / "model.safetensors.index.json").unlink()
    save_file({n: t for n, t in tensors.items() if "inv_freq" not in n}, model_dir / "model.safetensors")
    change_config(model_dir, transformers_version="4.0.0", use_cache=False, _name_or_path="elsewhere")
    (model_dir / "visual.py").write_text("# another comment")
    assert model_fingerprint(model_dir) == before


@pytest.mark.parametrize("change", ["weight", "dtype", "config", "vision", "tokenizer"])
def test_fingerprint_changes_with_whatever_changes_results(model_dir: Path, change: str) -> None:
    before = model_fingerprint(model_dir)
    file = model_dir / "model-00001-of-00001.safetensors"
    tensors = load_file(file)
    if change == "weight":
        tensors["model.norm.weight"][0] += 1
    elif change == "dtype":
        tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.bfloat16)
    elif change == "config":
        change_config(model_dir, rms_norm_eps=1e-6)
    elif change == "vision":
        vision = json.loads((model_dir / "config.json").read_text())["vision_config"]
        change_config(model_dir, vision_config=vision | {"layer_norm_eps": 1e-5})
    else:
        (model_dir / "added_tokens.json").write_text("{}")
    save_file(tensors, file)
    assert model_fingerprint(model_dir) != before


def test_large_files_are_hashed_once_until_they_change(tmp_path: Path, cache: Path) -> None:
    from cogbatch.checkpoint.hashing import file_sha256

    file = tmp_path / "large"
    file.write_bytes(b"a" * 5_000_000)
    first = file_sha256(file)
    memory = cache / "hashes.json"
    # What is remembered is used: a forged entry comes back, until the file itself changes.
    memory.write_text(memory.read_text().replace(first, "remembered"))
    assert file_sha256(file) == "remembered"
    file.write_bytes(b"b" * 5_000_001)
    assert file_sha256(file) not in (first, "remembered")


def test_hub_ids_offline_and_mistyped_paths_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    for name in ("jobs/typo", "/no/such/place", "plain"):
        with pytest.raises(CheckpointError, match="no such directory; check the path"):
            prepare_model(name)


def test_a_tokenizer_added_later_counts_and_is_checked(model_dir: Path, tokenizer_dir: Path) -> None:
    without = prepare_model(model_dir)
    for file in tokenizer_dir.iterdir():
        shutil.copy(file, model_dir)
    added = prepare_model(model_dir)
    assert not without.has_tokenizer
    assert added.has_tokenizer
    assert added.fingerprint != without.fingerprint
