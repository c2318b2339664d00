"""Comparing two sides: the probes, the arithmetic of agreement, programs side by side, the source's bytes."""

import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cogbatch.checkpoint.manifest import read_manifest
from cogbatch.checkpoint.verify.against import check_source, require_sat
from cogbatch.checkpoint.verify.parity import compare
from cogbatch.checkpoint.verify.probes import make_probes
from cogbatch.checkpoint.verify.process import run_programs
from cogbatch.errors import CogbatchError
from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.decoder import image_positions, vision_spans
from tests.checkpoint.test_verify_directory import Converted


def config(**values: object) -> CogVLMConfig:
    vision = {"image_size": 28, "num_positions": 5}
    return CogVLMConfig(vocab_size=40, pad_token_id=3, vision_config=vision, **values)


def test_probes_are_prompts_with_their_masks_written_out() -> None:
    probe = make_probes(config())["image_short"]
    assert probe.input_ids[:7].tolist() == [1, 3, 3, 3, 3, 3, 3]
    assert probe.image_mask.tolist() == [False] + [True] * 6 + [False] * 6
    assert probe.expert_mask.tolist() == [False] + [True] * 5 + [False] * 7  # all but eoi
    assert probe.position_ids.tolist() == [0, 1, 2, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9]
    assert probe.pixel_values is not None
    assert probe.pixel_values.shape == (1, 3, 28, 28)


def test_probes_mean_to_our_model_what_they_say() -> None:
    for probe in make_probes(config()).values():
        types = probe.image_mask.long()[None]
        assert image_positions(types)[0].tolist() == probe.position_ids.tolist()
        assert [i for a, b in vision_spans(types) for i in range(a, b)] == probe.expert_mask.nonzero()[
            :, 0
        ].tolist()


def test_probes_are_the_same_every_time_and_hold_no_special_ids_in_their_text() -> None:
    first, second = make_probes(config(eos_token_id=[2, 7])), make_probes(config(eos_token_id=[2, 7]))
    for name, probe in first.items():
        text = probe.input_ids[1:][~probe.image_mask[1:]].tolist()
        assert not {1, 2, 3, 7} & set(text)
        assert max(text, default=0) < 40
        assert all(
            torch.equal(a, b) for a, b in zip(probe, second[name], strict=True) if isinstance(a, torch.Tensor)
        )


def test_at_most_256_places_of_a_long_prompt_are_kept_and_the_last_is_one() -> None:
    large = config()
    large.vision_config.image_size, large.vision_config.num_positions = 490, 1226
    probe = make_probes(large)["image_long"]
    assert len(probe.kept) == len(probe.kept.unique()) == 256
    assert int(probe.kept[-1]) == len(probe.input_ids) - 1 == 1225 + 2 + 96


def write(file: Path, **tensors: list[object]) -> Path:
    save_file({key.replace("__", "."): torch.tensor(value) for key, value in tensors.items()}, file)
    return file


def test_agreement_is_counted_by_probe_and_together(tmp_path: Path) -> None:
    ours = write(
        tmp_path / "ours",
        a__logits=[[1.0, 0.0], [0.0, 1.0]],
        a__greedy=[1, 1, 0],
        b__logits=[[0.0, 2.0]],
        b__greedy=[0, 1, 1],
    )
    theirs = write(
        tmp_path / "theirs",
        a__logits=[[1.0, 0.0], [1.5, 1.0]],
        a__next=[1, 0, 0],
        b__logits=[[0.0, 2.5]],
        b__next=[0, 1, 1],
    )
    found = compare(ours, theirs)
    assert list(found) == ["a", "b", "all"]
    a, b, together = found.values()
    assert (a.max_difference, a.mean_difference, a.top1, a.num_places) == (1.5, 1.5 / 4, 0.5, 2)
    assert (a.greedy, a.num_greedy) == (1, 3)  # the third token follows one on which they differ
    assert (b.max_difference, b.top1, b.greedy) == (0.5, 1.0, 3)
    assert (together.max_difference, together.mean_difference) == (1.5, pytest.approx(2.0 / 6))
    assert (together.top1, together.greedy, together.num_greedy) == (pytest.approx(2 / 3), 4, 6)


def test_a_nan_on_either_side_is_no_agreement(tmp_path: Path) -> None:
    well = write(tmp_path / "well", a__logits=[[1.0]], a__next=[0], b__logits=[[1.0]], b__next=[0])
    ill = write(tmp_path / "ill", a__logits=[[1.0]], a__next=[0], b__logits=[[float("nan")]], b__next=[0])
    for pair in ((well, ill), (ill, well)):
        assert not compare(*pair)["all"].max_difference <= 1e9


def program(text: str) -> list[str]:
    return [sys.executable, "-I", "-c", text]


def test_programs_run_at_the_same_time_and_end_well(tmp_path: Path) -> None:
    wait = "import os, sys, time\nopen(os.environ['MINE'], 'w').close()\n"
    wait += "while not os.path.exists(os.environ['OTHER']): time.sleep(0.01)"
    names = [str(tmp_path / "a"), str(tmp_path / "b")]
    environments = [{"MINE": names[i], "OTHER": names[1 - i]} for i in range(2)]
    assert run_programs([program(wait)] * 2, environments, logs=tmp_path) == ""


def test_a_failing_program_ends_the_others(tmp_path: Path) -> None:
    commands = [program("import time\ntime.sleep(600)"), program("import sys\nsys.exit('gone')")]
    assert run_programs(commands, [{}] * 2, logs=tmp_path, grace_s=0) == "gone"


def test_what_a_program_says_of_itself_comes_before_the_loss_of_its_neighbour(tmp_path: Path) -> None:
    lost = "import sys\nsys.exit('connection lost')"
    why = "import sys\nsys.stderr.write('Error: the file is short\\n')\nsys.exit('noise')"
    commands = [program(lost), program(why)]
    assert run_programs(commands, [{}] * 2, logs=tmp_path, grace_s=60) == "the file is short"


def test_a_killed_program_may_have_had_too_little_memory(tmp_path: Path) -> None:
    killed = "import os\nos.kill(os.getpid(), 9)"
    assert "enough memory" in run_programs([program(killed)], [{}], logs=tmp_path)


def test_the_source_is_compared_byte_for_byte(converted: Converted, golden: Path, tmp_path: Path) -> None:
    manifest = read_manifest(converted("tiny-a"))
    source = Path(shutil.copytree(golden / "tiny-a" / "ckpt", tmp_path / "sat"))
    assert check_source(source, manifest).status == "ok"
    (source / "latest").write_text("release")  # which was not read to be converted
    assert check_source(source, manifest).status == "ok"
    weights = source / "1" / "mp_rank_00_model_states.pt"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (source / "model_config.json").unlink()
    found = check_source(source, manifest)
    assert found.status == "FAILED"
    assert "model_config.json missing; 1/mp_rank_00_model_states.pt changed" in found.detail
    assert check_source(source, None).status == "skipped"


def test_without_the_extra_one_line_says_how_to_install_it() -> None:
    try:
        metadata.version("SwissArmyTransformer")
    except metadata.PackageNotFoundError:
        with pytest.raises(CogbatchError, match=r"pip install 'cogbatch\[sat\]'"):
            require_sat()
    else:
        require_sat()
