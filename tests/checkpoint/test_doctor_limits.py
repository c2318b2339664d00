"""What doctor must not do: invent, run, lose, touch what is well; and what it says where it cannot mend."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cogbatch.checkpoint.convert import convert
from cogbatch.checkpoint.doctor.examine import Examination, examine
from cogbatch.checkpoint.layout import CODE_FILES
from cogbatch.checkpoint.manifest import MANIFEST
from cogbatch.cli import main
from cogbatch.errors import CheckpointError
from tests.checkpoint import ills
from tests.checkpoint.official import make_official, read_tensors, was_run, write_shards

Converted = Callable[[str], Path]
SatCopy = Callable[..., Path]


class Harmful:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


@pytest.fixture
def folder(converted: Converted, tmp_path: Path) -> Path:
    """A writable converted directory; that it has no tokenizer is its only ill."""
    return Path(shutil.copytree(converted("tiny-a"), tmp_path / "model"))


def names(found: Examination) -> list[str]:
    return [ill.ill for ill in found.ills if ill.ill != "tokenizer"]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


UNMENDABLE = (
    (ills.lose_a_tensor, "tensors", "1 tensor is missing .*layers.1.self_attn.language", "convert the check"),
    (ills.add_an_adapter, "unknown", "1 tensor has no place in CogVLM: base.lora_A", "merge adapters"),
    (ills.mix_models, "shapes", r"2.input_layernorm.weight is \[3\], expected \[64\]", "from one place"),
    (ills.lose_a_file, "index", "files that are not there: model-00002-of-00002.sa", "copy the weight"),
    (ills.truncate_a_file, "index", "model-00001-of-00002.safetensors is not readable", "copy the weight"),
    (ills.flip_a_byte, "manifest", "model-00001-of-00001.safetensors is not as", "copy the directory"),
    (ills.lose_weights, "weights", "no weights: neither model.safetensors", "copy the weight"),
    (ills.lose_config_and_manifest, "config", "there is no config", r"decide vision_config\.num_heads"),
    (ills.damage_manifest, "manifest", "cogbatch_manifest.json: damaged", "delete cogbatch_manif"),
)


@pytest.mark.parametrize(("build", "ill", "what", "advice"), UNMENDABLE)
def test_what_cannot_be_mended_is_said_and_left_alone(
    folder: Path, build: Callable[[Path], None], ill: str, what: str, advice: str
) -> None:
    build(folder)
    before = snapshot(folder)
    found = examine(folder, fix=True)
    assert names(found) == [ill]
    told = found.ills[0] if found.ills[0].ill == ill else found.ills[1]
    assert (told.can_mend, told.mended) == (False, False)
    assert re.search(what, told.what)
    assert re.search(advice, told.advice)
    assert snapshot(folder) == before


def test_examining_and_a_fix_of_the_healthy_change_nothing(folder: Path, tokenizer_dir: Path) -> None:
    examine(folder, fix=True, tokenizer=str(tokenizer_dir))
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    assert examine(folder).ills == ()
    again = examine(folder, fix=True, tokenizer=str(tokenizer_dir))
    assert (again.ills, again.kept) == ((), {})
    assert "was not installed" in again.notes[0]
    assert {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.iterdir()} == before


def test_a_pickle_that_holds_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    ills.lose_weights(folder)
    torch.save({"a": Harmful(tmp_path / "ran")}, folder / "pytorch_model.bin")
    for fix in (False, True):
        found = examine(folder, fix=fix)
        assert names(found) == ["weights"]
        assert "nothing of it was run" in found.ills[0].what
    assert not (tmp_path / "ran").exists()


def test_an_interrupted_conversion_of_a_pickle_leaves_all_as_it_was(folder: Path) -> None:
    ills.new_bin_beside_old_shards(folder)
    before = snapshot(folder)

    def interrupt(done: int, total: int) -> None:
        del done, total
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(folder, fix=True, on_progress=interrupt)
    assert snapshot(folder) == before


def test_a_fix_that_died_before_its_index_is_done_again_from_the_pickle(folder: Path) -> None:
    right = read_tensors(folder)
    ills.save_bin(right, folder / "pytorch_model.bin")
    ills.take_weights(folder)
    # Newer than the pickle, and not to be trusted.
    write_shards(folder, ills.other_values(right), num_shards=2)
    (folder / ills.INDEX).unlink()
    (folder / ".doctor-abandoned").mkdir()
    examine(folder, fix=True)
    mended = read_tensors(folder)
    assert all(torch.equal(mended[name], right[name]) for name in right)
    assert not (folder / ".doctor-abandoned").exists()


def test_originals_are_kept_under_a_name_of_their_own(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / "visual.py").write_text("first")
    assert examine(folder, fix=True).kept == {"visual.py": "visual.py.bak"}
    (folder / "visual.py").write_text("second")
    assert examine(folder, fix=True).kept == {"visual.py": "visual.py.bak2"}
    assert (folder / "visual.py.bak").read_text() == "first"
    assert (folder / "visual.py.bak2").read_text() == "second"


def test_a_weight_that_is_replaced_is_kept(folder: Path) -> None:
    ills.new_bin_beside_old_shards(folder)
    old = (folder / "model-00001-of-00002.safetensors").read_bytes()
    pickled = (folder / "pytorch_model.bin").read_bytes()
    examine(folder, fix=True)
    assert (folder / "model-00001-of-00002.safetensors.bak").read_bytes() == old
    assert (folder / "pytorch_model.bin.bak").read_bytes() == pickled


def test_no_rotary_table_is_added_for_layers_that_are_not_stored(folder: Path) -> None:
    right = (folder / "config.json").read_bytes()
    ills.change_config(folder, num_hidden_layers=5)
    before = snapshot(folder)
    assert names(examine(folder, fix=True)) == ["layers", "manifest"]
    assert snapshot(folder) == before
    (folder / "config.json").write_bytes(right)
    assert names(examine(folder)) == []


@pytest.mark.parametrize("field", ["num_hidden_layers", "num_vision_expert_layers", "vision_config"])
def test_a_billion_stated_layers_are_one_ill_and_not_a_billion_names(folder: Path, field: str) -> None:
    """Expanded into names, they would fill the memory."""
    billion = 1_000_000_000
    stated: Any = billion
    if field == "vision_config":
        tower = json.loads((folder / "config.json").read_text())[field]
        stated = tower | {"num_hidden_layers": billion}
    ills.change_config(folder, **{field: stated})
    (folder / MANIFEST).unlink()
    for fix in (False, True):
        found = examine(folder, fix=fix)
        assert names(found) == ["layers"]
        assert re.search(rf"{field}\S* is {billion} and \d+ are stored$", found.ills[0].what)


def test_links_into_a_cache_are_replaced_and_never_written_through(folder: Path, tmp_path: Path) -> None:
    """As the hub client lays out a snapshot."""
    ills.broken_rotary_tables(folder)
    (folder / "visual.py").write_text("old")
    (folder / MANIFEST).unlink()
    snapshot_dir = tmp_path / "snapshot"
    snapshot_dir.mkdir()
    for file in folder.iterdir():
        (snapshot_dir / file.name).symlink_to(Path("..") / "model" / file.name)
    before = snapshot(folder)
    examine(snapshot_dir, fix=True)
    assert names(examine(snapshot_dir)) == []
    assert snapshot(folder) == before
    assert (snapshot_dir / "visual.py.bak").read_text() == "old"


def test_an_epsilon_that_a_conversion_wrote_is_no_ill(sat_copy: SatCopy, tmp_path: Path) -> None:
    convert(sat_copy(config={"layernorm_epsilon": 1e-6}), tmp_path / "out", version="base")
    assert names(examine(tmp_path / "out")) == []
    (tmp_path / "out" / MANIFEST).unlink()
    assert names(examine(tmp_path / "out")) == ["rms_norm_eps"]


def test_a_rounded_rotary_table_is_no_ill(converted: Converted, tmp_path: Path) -> None:
    official = make_official(converted("tiny-a"), tmp_path / "official", dtype="bfloat16")
    assert names(examine(official)) == ["code"]


def test_the_same_weights_twice_are_no_ill(folder: Path) -> None:
    ills.save_bin(read_tensors(folder), folder / "pytorch_model.bin")
    assert names(examine(folder)) == []
    save_file(read_tensors(folder), folder / "model.safetensors", metadata={"format": "pt"})
    assert names(examine(folder)) == ["manifest"]
    (folder / MANIFEST).unlink()
    assert names(examine(folder)) == []


def test_a_broken_kept_table_is_mended_with_what_was_kept(golden: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(golden / "tiny-a-ds" / "ckpt", out, version="base", inv_freq="keep")
    before = snapshot(out)
    ills.broken_rotary_tables(out)
    assert names(examine(out)) == ["inv_freq"]
    # save_file of the builder orders tensors anew, so the manifest knows another file.
    (out / MANIFEST).unlink()
    examine(out, fix=True)
    assert read_tensors(out)["model.layers.0.self_attn.rotary_emb.inv_freq"][1] == 0.31640625
    assert before.keys() - snapshot(out).keys() == {MANIFEST}


def test_damage_is_not_signed_with_a_new_manifest(folder: Path, tokenizer_dir: Path) -> None:
    ills.flip_a_byte(folder)
    before = json.loads((folder / MANIFEST).read_text())
    found = examine(folder, fix=True, tokenizer=str(tokenizer_dir))
    assert {ill.ill: ill.mended for ill in found.ills} == {"tokenizer": True, "manifest": False}
    after = json.loads((folder / MANIFEST).read_text())
    assert after["files"].items() > before["files"].items()
    assert after["fingerprint"] == before["fingerprint"]


def test_what_is_no_cogvlm_directory_is_one_line(golden: Path, folder: Path, tmp_path: Path) -> None:
    other, agent = tmp_path / "other", tmp_path / "agent"
    other.mkdir()
    agent.mkdir()
    save_file({"a": torch.zeros(1)}, other / "model.safetensors")
    cross = {"model.layers.0.cross_attn.query.weight": torch.zeros(1)}
    save_file(cross, agent / "model.safetensors")
    for path, message in (
        (tmp_path / "nowhere", "no such directory"),
        (golden / "tiny-a" / "ckpt", "a SAT checkpoint; convert it with: cogbatch convert"),
        (other, "the weights are not CogVLM's"),
        (agent, "CogAgent weights .* only CogVLM v1 and v2"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            examine(path, fix=True)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="pass --fix too"):
        examine(folder, tokenizer="somewhere")


def test_two_doctors_do_not_work_on_one_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(CheckpointError, match="another cogbatch doctor is at work"):
        examine(folder, fix=True)
    os.close(descriptor)


def test_the_command_exits_1_until_all_is_well(
    converted: Converted, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official = make_official(converted("tiny-2"), tmp_path / "official")

    def call(*arguments: str) -> tuple[int, list[str]]:
        with pytest.raises(SystemExit) as caught:
            main(["doctor", str(official), *arguments])
        return int(caught.value.code or 0), capsys.readouterr().out.splitlines()

    code, lines = call()
    assert (code, lines[-1]) == (1, f"{official}: 3 of 3 ills left")
    assert [line.split(": ")[:2] for line in lines[:-1]] == [
        ["ill", "config"],
        ["ill", "code"],
        ["ill", "tokenizer"],
    ]
    code, lines = call("--fix", "--json")
    assert (code, lines[0][:15]) == (1, "mended: config:")
    result = json.loads(lines[-1])
    assert (result["is_well"], [ill["mended"] for ill in result["ills"]]) == (False, [True, True, False])
    code, lines = call("--fix", "--tokenizer", str(tokenizer_dir))
    assert (code, lines[-1]) == (0, f"{official}: no known ill")
    assert call() == (0, [f"{official}: no known ill"])
    assert not was_run(official)
    # Nothing of the old code lies where it could be imported; our code finds every value in config.json.
    assert {file.stem for file in official.glob("*.py")} == {Path(name).stem for name in CODE_FILES}
    assert (official / "util.py.bak").is_file()


@pytest.mark.parametrize("build", [ills.no_config, ills.class_epsilon, ills.changed_code, ills.no_index])
def test_what_is_mended_in_a_converted_directory_is_what_was_converted(
    folder: Path, build: Callable[[Path], None]
) -> None:
    before = snapshot(folder)
    build(folder)
    examine(folder, fix=True)
    after = snapshot(folder)
    assert {name: after[name] for name in before} == before
    assert all(name.endswith(".bak") for name in after.keys() - before.keys())
