"""The known ills, each built, named, mended, and then loaded by plain transformers with the right logits."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from cogbatch.checkpoint.convert import convert
from cogbatch.checkpoint.doctor.examine import Examination, examine
from cogbatch.checkpoint.manifest import check_files, model_fingerprint, read_manifest
from cogbatch.model.configuration_cogvlm import CogVLMConfig, CogVLMVisionConfig
from tests.checkpoint import ills
from tests.checkpoint.official import make_official, read_tensors, was_run

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class Case:
    """base: a golden checkpoint; -official: in the layout of the official repositories, else converted.

    also: other ills that come with it. keeps_manifest: False where the weights are not what was converted.
    """

    build: Callable[[Path], None]
    ill: str
    base: str = "tiny-a"
    also: tuple[str, ...] = ()
    keeps_manifest: bool = True

    @property
    def name(self) -> str:
        return f"{self.base}-{self.build.__name__}"


def nothing(folder: Path) -> None:
    """Official code is itself the ill."""


CASES = (
    Case(ills.no_config, "config"),
    Case(ills.empty_config, "config", "tiny-2"),
    Case(ills.only_heads, "config", "tiny-a-official"),
    Case(ills.only_heads, "config", "tiny-2-official"),
    Case(ills.config_of_llama, "config"),
    Case(ills.wrong_vocabulary, "config"),
    Case(ills.nothing_explicit, "config", "tiny-2"),
    Case(ills.class_epsilon, "rms_norm_eps"),
    Case(ills.no_epsilon, "rms_norm_eps", "tiny-a-official"),
    Case(ills.no_auto_map, "auto_map"),
    Case(ills.auto_map_of_the_hub, "auto_map", "tiny-a-official"),
    Case(ills.no_code, "code"),
    Case(ills.changed_code, "code"),
    Case(nothing, "code", "tiny-a-official"),
    Case(nothing, "code", "tiny-2-official"),
    Case(ills.new_bin_beside_old_shards, "weights", also=("inv_freq",), keeps_manifest=False),
    Case(ills.bin_beside_an_index_alone, "weights", "tiny-a-official", also=("inv_freq",)),
    Case(ills.bin_alone, "weights", "tiny-2", also=("inv_freq",), keeps_manifest=False),
    Case(ills.bins_with_index, "weights", "tiny-a-official"),
    Case(ills.old_bin_beside_new_shards, "weights"),
    Case(ills.old_single_file, "weights", "tiny-a-official"),
    Case(ills.index_of_other_files, "index"),
    Case(ills.index_without_tensors, "index", "tiny-a-official"),
    Case(ills.index_without_metadata, "index"),
    Case(ills.no_index, "index"),
    Case(ills.no_rotary_tables, "inv_freq", keeps_manifest=False),
    Case(ills.no_rotary_table_in_one_file, "inv_freq", "tiny-2-official"),
    Case(ills.broken_rotary_tables, "inv_freq", "tiny-a-official"),
    Case(ills.no_tokenizer, "tokenizer"),
)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@dataclass(frozen=True)
class Patient:
    """One case before the fix, during it, and after."""

    folder: Path
    tensors: dict[str, torch.Tensor]
    before: Examination
    fixed: Examination
    after: Examination
    loaded: dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, sentencepiece_model: bytes) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.model").write_bytes(sentencepiece_model)
    return folder


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> dict[str, Path]:
    """base -> a directory that only official code can make ill; read only."""
    root = tmp_path_factory.mktemp("healthy")
    for name in ("tiny-a", "tiny-2"):
        source = GOLDEN / name / "ckpt"
        convert(source, root / name, version="chat_old", tokenizer=tokenizer, max_shard_size="300KB")
        official = make_official(root / name, root / f"{name}-official")
        for file in (root / name).glob("tokenizer*"):
            shutil.copy(file, official)
    return {folder.name: folder for folder in root.iterdir()}


@pytest.fixture(scope="module")
def patients(
    tmp_path_factory: pytest.TempPathFactory, healthy: dict[str, Path], tokenizer: Path
) -> dict[str, Patient]:
    """Every case, built, examined, mended, examined again; then all loaded in one process."""
    root = tmp_path_factory.mktemp("patients")
    examined = []
    for case in CASES:
        folder = root / case.name
        shutil.copytree(healthy[case.base], folder)
        case.build(folder)
        before = examine(folder)
        given = str(tokenizer) if case.ill == "tokenizer" else None
        fixed = examine(folder, fix=True, tokenizer=given)
        examined.append((case, folder, before, fixed, examine(folder)))
    asked = [(str(root / case.name), str(GOLDEN / case.base.removesuffix("-official"))) for case in CASES]
    program = Path(__file__).with_name("load_mended.py")
    done = subprocess.run(
        [sys.executable, "-I", str(program)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hf"), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "newly initialized" not in done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    return {
        case.name: Patient(folder, read_tensors(folder), before, fixed, after, loaded[str(folder)])
        for case, folder, before, fixed, after in examined
    }


def test_a_healthy_converted_directory_has_no_known_ill(healthy: dict[str, Path]) -> None:
    for name in ("tiny-a", "tiny-2"):
        assert examine(healthy[name]).ills == ()


def test_the_only_ill_of_an_official_directory_is_its_code(healthy: dict[str, Path]) -> None:
    assert [ill.ill for ill in examine(healthy["tiny-a-official"]).ills] == ["code"]
    # v2 leaves to its code what ours must know.
    assert [ill.ill for ill in examine(healthy["tiny-2-official"]).ills] == ["config", "code"]


@each_case
def test_every_ill_is_named_with_what_to_do(case: Case, patients: dict[str, Patient]) -> None:
    found = {ill.ill: ill for ill in patients[case.name].before.ills}
    assert case.ill in found
    assert not patients[case.name].before.is_well
    assert all(ill.what and ill.why and ill.advice and not ill.mended for ill in found.values())
    official = {"tiny-a-official": ("code",), "tiny-2-official": ("config", "code")}
    assert found.keys() == {case.ill, *case.also, *official.get(case.base, ())}


@each_case
def test_every_ill_is_mended_and_stays_so(case: Case, patients: dict[str, Patient]) -> None:
    patient = patients[case.name]
    assert case.ill in {ill.ill for ill in patient.fixed.ills if ill.mended}
    assert patient.fixed.is_well
    assert patient.after.ills == ()


@each_case
def test_a_mended_directory_loads_with_plain_transformers(case: Case, patients: dict[str, Patient]) -> None:
    loaded = patients[case.name].loaded
    assert loaded["logit_error"] < 1e-4
    assert (loaded["missing"], loaded["unexpected"]) == ([], [])


@each_case
def test_a_mended_config_is_explicit(case: Case, patients: dict[str, Patient]) -> None:
    stated = json.loads((patients[case.name].folder / "config.json").read_text())
    assert stated.keys() >= CogVLMConfig.__annotations__.keys()
    assert stated["vision_config"].keys() >= CogVLMVisionConfig.__annotations__.keys()


@each_case
def test_tensors_keep_their_values(
    case: Case, patients: dict[str, Patient], healthy: dict[str, Path]
) -> None:
    expected, found = read_tensors(healthy[case.base]), patients[case.name].tensors
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype


@pytest.mark.usefixtures("patients")
def test_no_code_of_a_directory_is_run(healthy: dict[str, Path]) -> None:
    assert not any(was_run(folder) for folder in healthy.values())
    code = healthy["tiny-a-official"] / "modeling_cogvlm.py"
    with pytest.raises(ImportError):
        runpy.run_path(str(code))
    assert was_run(healthy["tiny-a-official"])


@each_case
def test_a_manifest_stays_true_or_is_set_aside(case: Case, patients: dict[str, Patient]) -> None:
    folder = patients[case.name].folder
    manifest = read_manifest(folder)
    if case.base.endswith("official"):
        assert manifest is None
        return
    assert (manifest is not None) == case.keeps_manifest
    assert check_files(folder) == []
    if manifest is not None:
        assert manifest["fingerprint"] == model_fingerprint(folder)
