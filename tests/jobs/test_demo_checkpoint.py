"""The checkpoint in the repository: its format, and that it looks at the image."""

import json
import random
from pathlib import Path

import pytest
import torch

from cogbatch.checkpoint.export import to_sat_state
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from jobs.demo.evaluate import Asked, answer_all, load, pictures
from jobs.demo.grammar import ask_each
from jobs.demo.scenes import scene
from jobs.demo.train import DIRECTORY
from jobs.demo.vocabulary import VOCABULARY

RANK = DIRECTORY / "1" / "mp_rank_00_model_states.pt"


def test_the_checkpoint_is_what_sat_writes_in_bf16_and_below_ten_megabytes() -> None:
    assert (DIRECTORY / "latest").read_text() == "1"
    assert RANK.stat().st_size <= 10_000_000
    file = torch.load(RANK, weights_only=True)
    assert list(file) == ["module"]
    assert {tensor.dtype for tensor in file["module"].values()} == {torch.bfloat16}
    config = json.loads((DIRECTORY / "model_config.json").read_text())
    assert config["model_class"] == "CogVLMModel"
    assert config["vocab_size"] == VOCABULARY
    assert config["text_processor_version"] == "base"


def test_the_checkpoint_has_the_tensors_of_train(tmp_path: Path) -> None:
    seer = load(DIRECTORY, cache=tmp_path)
    assert isinstance(seer.model, CogVLMForCausalLM)
    stored = torch.load(RANK, weights_only=True)["module"]
    back = to_sat_state(seer.model.state_dict(), seer.model.config)
    assert list(stored) == list(back)
    assert all(torch.equal(stored[name].float(), back[name]) for name in stored if "inv_freq" not in name)


@pytest.mark.slow
def test_short_answers_need_the_image(tmp_path: Path) -> None:
    """About 400 questions; the bar is far below what the README says, so chance does not matter."""
    seer = load(DIRECTORY, cache=tmp_path)
    scenes = [scene(500_000 + index) for index in range(40)]
    rng = random.Random(0)
    asked = [Asked(index, question) for index, one in enumerate(scenes) for question in ask_each(one, rng)]
    right = {
        condition: sum(answer_all(seer, pictures(scenes, condition, image_size=42), asked)) / len(asked)
        for condition in ("image", "blanked", "swapped")
    }
    assert right["image"] >= 0.6
    assert right["blanked"] <= 0.5
    assert right["swapped"] <= 0.5
