from pathlib import Path

import numpy as np
import pytest
import torch

from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from jobs.demo.pool import Pool, build, pack, texts
from jobs.demo.shared_prefix import forward
from jobs.demo.train import Learner, Recipe, choose, configuration, rate, rounded


@pytest.fixture(scope="module")
def pool() -> Pool:
    return build(6, processes=0)


def test_the_model_fits_into_ten_megabytes() -> None:
    with torch.device("meta"):
        model = CogVLMForCausalLM(configuration())
    assert 2 * sum(parameter.numel() for parameter in model.parameters()) < 9_500_000


def test_a_pool_holds_every_text_once_and_the_labels_of_each_cell(pool: Pool) -> None:
    assert len(pool.starts) == 6 * len(texts(0)) + 1
    assert pool.starts[-1] == len(pool.ids)
    assert (pool.ids[pool.starts[1:] - 1] == 2).all()  # every answer ends
    assert set(pool.num_shapes) <= {1, 2, 3, 4}
    assert pool.cells[0, :, 3].tolist() == list(range(9))


def test_packed_rows_hold_whole_texts_with_weight_one_answer_each(pool: Pool) -> None:
    rows = pack(pool, [0, 3], width=60, rng=np.random.default_rng(0))
    for row in range(2):
        for segment in range(1, rows.segments[row].max() + 1):
            here = rows.segments[row] == segment
            assert rows.positions[row, here].tolist() == list(range(4, 4 + here.sum()))
            assert rows.weights[row, here].sum() == pytest.approx(1) or rows.weights[
                row, here
            ].sum() == pytest.approx(2)
            assert rows.targets[row, here][-1] == 2
    assert (rows.targets[rows.segments == -1] == -1).all()


def test_texts_that_share_an_image_get_the_logits_they_get_alone(pool: Pool) -> None:
    torch.manual_seed(0)
    model = CogVLMForCausalLM(configuration()).eval()
    rows = pack(pool, [1, 2], width=60, rng=np.random.default_rng(0))
    ids, segments, positions = (torch.from_numpy(a) for a in (rows.ids, rows.segments, rows.positions))
    pixels = torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        together = model.lm_head(
            forward(model, pixels=pixels, ids=ids, segments=segments, positions=positions).texts
        )
        for row in range(2):
            for segment in range(1, int(segments[row].max()) + 1):
                here = segments[row] == segment
                alone = model(
                    input_ids=torch.cat([torch.tensor([1] + [0] * 11), ids[row, here]])[None],
                    token_type_ids=torch.tensor([[0] + [1] * 11 + [0] * int(here.sum())]),
                    pixel_values=pixels[row : row + 1],
                ).logits[0, 12:]
                torch.testing.assert_close(together[row, here], alone, atol=1e-4, rtol=0)


def test_a_few_steps_lower_both_losses(pool: Pool) -> None:
    recipe = Recipe(rows=4, width=60, warm_up=1, steps=30, peak_rate=3e-3, alone=0, pairs=0)
    learner = Learner.new(recipe)
    seen = [learner.advance(pool, recipe, dtype=torch.float32) for _ in range(10)]
    assert seen[-1][0] < 0.8 * seen[0][0]
    assert seen[-1][1] < 0.9 * seen[0][1]


def test_a_resumed_run_ends_with_the_same_weights(pool: Pool, tmp_path: Path) -> None:
    recipe = Recipe(rows=2, width=60, steps=4)
    whole, begun, resumed = (Learner.new(recipe) for _ in range(3))
    for _ in range(4):
        whole.advance(pool, recipe, dtype=torch.float32)
    for _ in range(2):
        begun.advance(pool, recipe, dtype=torch.float32)
    begun.save(tmp_path / "state.pt", recipe)
    resumed.load(tmp_path / "state.pt", recipe)
    for _ in range(2):
        resumed.advance(pool, recipe, dtype=torch.float32)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    with pytest.raises(SystemExit, match="another recipe"):
        resumed.load(tmp_path / "state.pt", Recipe(rows=3))


def test_easy_scenes_come_first() -> None:
    recipe = Recipe(steps=100, rows=50, alone=0.1, pairs=0.2)
    num_shapes = np.array([1, 2, 3, 4] * 5)
    most = [
        num_shapes[choose(step, recipe, num_shapes, np.random.default_rng(0))].max() for step in (0, 10, 20)
    ]
    assert most == [1, 2, 4]


def test_a_saved_pool_is_the_same_pool(pool: Pool, tmp_path: Path) -> None:
    pool.save(tmp_path / "pool.npz")
    again = Pool.load(tmp_path / "pool.npz")
    assert np.array_equal(again.ids, pool.ids)
    assert np.array_equal(again.images, pool.images)


def test_the_rate_warms_up_and_falls_to_a_twentieth() -> None:
    recipe = Recipe(steps=1000, warm_up=100, peak_rate=1.0)
    assert rate(0, recipe) == pytest.approx(0.01)
    assert rate(100, recipe) == pytest.approx(1.0)
    assert rate(1000, recipe) == pytest.approx(0.05)


def test_shipped_weights_are_bf16() -> None:
    model = torch.nn.Linear(2, 2)
    assert {tensor.dtype for tensor in rounded(model).values()} == {torch.bfloat16}  # type: ignore[arg-type]
