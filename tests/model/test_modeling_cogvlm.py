"""Laws of the model itself; parity with SAT is in tests/checkpoint."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cogbatch.model.decoder import image_positions, route, vision_spans
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from tests.tiny import tiny_model

NEW = 10
PROMPTS = {"image": 7, "text": 12, "long": 19, "bare": 0}  # name -> text tokens; "text" has no image


@pytest.fixture(scope="module", params=["v1", "v2"])
def model(request: pytest.FixtureRequest) -> CogVLMForCausalLM:
    return tiny_model(v2=request.param == "v2")


def prompt(model: CogVLMForCausalLM, name: str) -> dict[str, torch.Tensor]:
    """One row of model inputs; pixel_values only where the prompt shows an image."""
    generator = torch.Generator().manual_seed(len(name))
    image = 0 if name == "text" else model.config.num_image_tokens
    text = torch.randint(3, 300, (PROMPTS[name],), generator=generator).tolist()
    row = {
        "input_ids": torch.tensor([[1, *[0] * image, *text]]),
        "token_type_ids": torch.tensor([[0, *[1] * image, *[0] * len(text)]]),
    }
    if image:
        row["pixel_values"] = torch.randn(1, 3, 56, 56, generator=generator)
    return row


def greedy_without_cache(model: CogVLMForCausalLM, row: dict[str, torch.Tensor]) -> list[int]:
    """The reference that no cache and no generate code can spoil: a full forward per token."""
    ids, types = row["input_ids"], row["token_type_ids"]
    for _ in range(NEW):
        with torch.no_grad():
            logits = model(
                ids, token_type_ids=types, pixel_values=row.get("pixel_values"), use_cache=False
            ).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
        types = torch.nn.functional.pad(types, (0, 1))
    return ids[0, -NEW:].tolist()


def padded(rows: list[dict[str, torch.Tensor]], side: str) -> dict[str, torch.Tensor]:
    longest = max(row["input_ids"].shape[1] for row in rows)

    def pad(values: torch.Tensor) -> torch.Tensor:
        missing = longest - values.shape[1]
        return torch.nn.functional.pad(values, (missing, 0) if side == "left" else (0, missing))

    return {
        "input_ids": torch.cat([pad(row["input_ids"]) for row in rows]),
        "token_type_ids": torch.cat([pad(row["token_type_ids"]) for row in rows]),
        "attention_mask": torch.cat([pad(torch.ones_like(row["input_ids"])) for row in rows]),
        "pixel_values": torch.cat([row["pixel_values"] for row in rows if "pixel_values" in row]),
    }


def generate(model: CogVLMForCausalLM, inputs: dict[str, torch.Tensor], **options: object) -> list[list[int]]:
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, **options}
    sequences = model.generate(**inputs, **options)
    return sequences[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("name", list(PROMPTS))
def test_generate_equals_a_loop_without_cache(model: CogVLMForCausalLM, name: str) -> None:
    row = prompt(model, name)
    assert generate(model, row)[0] == greedy_without_cache(model, row)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batch_generates_what_each_row_does_alone(
    model: CogVLMForCausalLM, side: str, use_cache: bool
) -> None:
    rows = [prompt(model, name) for name in PROMPTS]
    together = generate(model, padded(rows, side), use_cache=use_cache)
    assert together == [greedy_without_cache(model, row) for row in rows]


@pytest.mark.parametrize("side", ["left", "right"])
def test_beams_of_a_padded_batch_equal_beams_of_each_row(model: CogVLMForCausalLM, side: str) -> None:
    rows = [prompt(model, name) for name in PROMPTS]
    options = {"num_beams": 3, "num_return_sequences": 2}
    together = generate(model, padded(rows, side), **options)
    alone = [beam for row in rows for beam in generate(model, row, **options)]
    assert together == alone
    assert together[0] != together[1]


def test_return_sequences_encode_each_image_once(model: CogVLMForCausalLM) -> None:
    calls = []
    hook = model.model.vision.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(0)
    options = {"do_sample": True, "num_return_sequences": 4, "top_k": 0}
    samples = generate(model, padded([prompt(model, "image"), prompt(model, "long")], "left"), **options)
    hook.remove()
    assert len(calls) == 1
    assert len(samples) == 8
    assert len({tuple(sample) for sample in samples}) > 4


def test_padding_is_inferred_without_hiding_the_image(model: CogVLMForCausalLM) -> None:
    rows = [prompt(model, "image"), prompt(model, "long")]
    inputs = padded(rows, "left")
    del inputs["attention_mask"]  # placeholders of image tokens carry the pad id
    assert generate(model, inputs) == [greedy_without_cache(model, row) for row in rows]


def test_official_image_lists_equal_pixel_values(model: CogVLMForCausalLM) -> None:
    rows = [prompt(model, "image"), prompt(model, "text")]
    inputs = padded(rows, "left")
    pixels = inputs.pop("pixel_values")
    listed = generate(model, {**inputs, "images": [[pixels[0]], []]})  # type: ignore[dict-item]
    assert listed == [greedy_without_cache(model, row) for row in rows]


def test_image_tokens_without_image_are_an_error(model: CogVLMForCausalLM) -> None:
    row = prompt(model, "image")
    twice = torch.cat([row["pixel_values"]] * 2)
    with pytest.raises(ValueError, match=r"2 image\(s\)"):
        model(row["input_ids"], token_type_ids=row["token_type_ids"], pixel_values=twice)


def test_eager_attention_equals_sdpa(model: CogVLMForCausalLM) -> None:
    inputs = padded([prompt(model, "image"), prompt(model, "text")], "left")
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        fast = model(**inputs).logits[real]
        model.set_attn_implementation("eager")
        plain = model(**inputs).logits[real]
        model.set_attn_implementation("sdpa")
    torch.testing.assert_close(fast, plain, atol=1e-4, rtol=0)


def test_vision_expert_sees_boi_and_patches_but_not_eoi() -> None:
    types = torch.tensor([[0, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])
    assert vision_spans(types) == [(1, 4), (6, 8)]
    assert vision_spans(torch.zeros(2, 3, dtype=torch.long)) == []


def test_patches_share_a_position_and_padding_does_not_advance() -> None:
    types = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 0, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1]])
    assert image_positions(types, mask).tolist() == [[0, 0, 0, 1, 2, 2, 3, 4, 5]]
    assert image_positions(types[:, 2:]).tolist() == [[0, 1, 2, 2, 3, 4, 5]]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 70)), max_size=3), st.integers(0, 3))
def test_route_equals_a_boolean_mask(runs: list[tuple[int, int]], tail: int) -> None:
    spans, length = [], 0
    for gap, size in runs:
        start = length + gap + (1 if spans else 0)  # spans never touch: eoi lies between
        spans.append((start, start + size))
        length = start + size
    length += tail
    if length == 0:
        return
    hidden = torch.arange(float(length)).view(1, length, 1)
    mask = torch.zeros(1, length, 1, dtype=torch.bool)
    for start, end in spans:
        mask[:, start:end] = True
    routed = route(hidden, spans, Scale(2), Scale(-3))
    assert routed.equal(torch.where(mask, -3 * hidden, 2 * hidden))


class Scale(torch.nn.Module):
    """Multiplies; stands in for an expert."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.factor
