"""Weights in fewer bits: which, where it works, what it costs in bits and gives in bytes."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cogbatch import Engine, GenerationParams, GenerationRequest
from cogbatch.engine.loading import load_model
from cogbatch.engine.memory import weight_bytes
from cogbatch.engine.products import RowBlocks
from cogbatch.engine.quantization import CASES, Case, check_quantization, part_of, support_table
from cogbatch.engine.step import linears
from cogbatch.model.directory import DTYPES
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.types import Quantization, QuantizationType, QuantizedPart
from tests.tiny import ByteTokenizer, tiny_config, tiny_model

CPU = torch.device("cpu")
DOCS = Path(__file__).parents[2] / "docs" / "quantization.md"
ON_CPU = [case for case in CASES if case.device == "cpu"]
TYPES: tuple[QuantizationType, ...] = ("int8", "nf4")
PARTS: tuple[QuantizedPart, ...] = ("language", "vision", "vit")


def case_id(case: Case) -> str:
    return f"{case.type}-{case.dtype}"


@pytest.fixture(scope="module", params=[False, True], ids=["v1", "v2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model"), v2=request.param)


def saved(folder: Path, *, v2: bool = False) -> Path:
    """A tiny model all of whose widths are multiples of 32, and some not of 64."""
    tower = {**tiny_config(v2=v2).vision_config.to_dict(), "intermediate_size": 96}
    tiny_model(v2=v2, num_vision_expert_layers=1, vision_config=tower).save_pretrained(folder)
    return folder


def load(
    folder: Path, quantization: Quantization | QuantizationType | None, dtype: str = "float32"
) -> CogVLMForCausalLM:
    return load_model(folder, dtype=dtype, device=CPU, quantization=quantization)


def quantized_names(model: CogVLMForCausalLM) -> set[str]:
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if type(module).__module__.startswith("bitsandbytes")
    }


def held_bytes(model: CogVLMForCausalLM) -> int:
    """All that the weights are decoded from."""
    total = 0
    for weight in model.parameters():
        total += weight.numel() * weight.element_size()
        state: Any = getattr(weight, "quant_state", None)
        scales = [getattr(weight, "SCB", None)]
        if state is not None:
            scales = [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        total += sum(scale.numel() * scale.element_size() for scale in scales if scale is not None)
    return total


def candidates(model: CogVLMForCausalLM, *prompts: str) -> list[list[tuple[tuple[int, ...], float]]]:
    """Of each prompt, in their order."""
    requests = [GenerationRequest(prompt, None, prompt) for prompt in prompts]
    outputs = list(
        Engine(model, ByteTokenizer(), num_threads=1).generate(
            requests, GenerationParams(num_candidates=3, max_new_tokens=6)
        )
    )
    assert [output.error for output in outputs] == [None] * len(prompts)
    by_id = {output.id: output.candidates for output in outputs}
    return [[(tuple(one.token_ids), one.cumulative_logprob) for one in by_id[prompt]] for prompt in prompts]


def logits(model: CogVLMForCausalLM) -> torch.Tensor:
    """[S, V] over an image and a text."""
    config, generator = model.config, torch.Generator().manual_seed(0)
    size, image = config.vision_config.image_size, config.num_image_tokens
    types = torch.tensor([[0, *[1] * image, 0, 0, 0]])
    with torch.inference_mode():
        return model(
            torch.full_like(types, 7),
            token_type_ids=types,
            pixel_values=torch.randn(1, 3, size, size, generator=generator),
        ).logits[0]


def test_the_parts_are_all_matrices_of_repeated_layers_and_nothing_else() -> None:
    weights = dict(tiny_model(v2=True).named_parameters())
    counts = Counter(part_of(name) for name in weights)
    assert (counts["language"], counts["vision"], counts["vit"]) == (2 * 5, 2 * 5, 2 * 4)
    for name, weight in weights.items():
        assert (part_of(name) is not None) == (".layers." in name and weight.dim() == 2), name


@pytest.mark.parametrize("part", PARTS)
def test_only_the_chosen_parts_are_quantized(folder: Path, part: QuantizedPart) -> None:
    model = load(folder, Quantization("nf4", (part,)))
    full = load(folder, None)
    names = {name for name, _ in full.named_parameters()}
    assert quantized_names(model) == {name for name in names if part_of(name) == part}
    for name in names - quantized_names(model):
        assert torch.equal(model.get_parameter(name), full.get_parameter(name)), name


@pytest.mark.parametrize("case", ON_CPU, ids=case_id)
def test_every_case_of_the_table_answers_and_stays_near_the_full_model(folder: Path, case: Case) -> None:
    assert case.tested
    assert case.problem is None
    model = load(folder, case.type, case.dtype)
    assert model.dtype == DTYPES[case.dtype]
    assert len(quantized_names(model)) == 5 * 2 + 5 * 1 + 4 * 2
    full, generator = load(folder, None), torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for name in sorted(quantized_names(model)):
            layer = model.get_submodule(name.removesuffix(".weight"))
            rows = torch.randn(8, layer.in_features, generator=generator)
            expected = full.get_submodule(name.removesuffix(".weight"))(rows)
            found = layer(rows.to(DTYPES[case.dtype])).float()
            distance = ((found - expected).norm() / expected.norm()).item()
            # About 0.8 and 9 % for weights from a normal distribution.
            assert 0 < distance < {"int8": 0.02, "nf4": 0.13}[case.type], name
    assert logits(model).isfinite().all()
    assert len(candidates(model, "Hi")[0]) == 3


@pytest.mark.parametrize("case", ON_CPU, ids=case_id)
def test_an_items_candidates_do_not_depend_on_its_company(folder: Path, case: Case) -> None:
    model = load(folder, case.type, case.dtype)
    prompts = ("Hi", "What is in this image?", "Why")
    assert candidates(model, *prompts) == [candidates(model, prompt)[0] for prompt in prompts]


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_an_int8_row_has_the_same_bits_in_any_number_of_rows(folder: Path, dtype: str) -> None:
    layer = load(folder, "int8", dtype).model.layers[0].mlp.language_mlp.down_proj
    rows = torch.randn(33, layer.in_features, generator=torch.Generator().manual_seed(0)).to(DTYPES[dtype])
    rows[5] *= 100  # would be an outlier
    with torch.inference_mode():
        together = layer(rows)
        for start, end in ((0, 1), (1, 3), (3, 10), (10, 33)):
            assert torch.equal(layer(rows[start:end]), together[start:end])


@pytest.mark.parametrize("kind", TYPES)
def test_how_many_rows_go_together_is_measured_on_every_shape_and_in_the_models_dtype(
    folder: Path, kind: QuantizationType
) -> None:
    """Packed, a layer and its transpose have equal tensors."""
    seen = set()

    def note(layer: Any, rows: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        seen.add((layer.in_features, layer.out_features, rows[0].dtype))

    model = load(folder, kind)
    asked = linears(model)
    for layer in asked:
        layer.register_forward_hook(note)
    with torch.inference_mode():
        assert RowBlocks(asked, dtype=model.dtype).largest >= 8
    quantized = [layer for layer in asked if type(layer) is not nn.Linear]
    assert {shape[:2] for shape in seen} >= {(layer.in_features, layer.out_features) for layer in quantized}
    assert {shape[2] for shape in seen} == {torch.float32}


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_nf4_computes_in_the_dtype_that_was_asked_for(folder: Path, dtype: str) -> None:
    """Also where the CPU knows bfloat16, for which bitsandbytes would repack the weights."""
    import bitsandbytes

    layer: Any = load(folder, "nf4", dtype).model.layers[0].mlp.language_mlp.gate_proj
    weight = bitsandbytes.functional.dequantize_4bit(layer.weight, layer.weight.quant_state)
    assert weight.dtype == DTYPES[dtype]
    rows = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).to(DTYPES[dtype])
    with torch.inference_mode():
        assert torch.equal(layer(rows), nn.functional.linear(rows, weight))


def test_a_width_that_nf4_would_mix_up_is_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"^quantization nf4 of a layer with 48 inputs: expected a multiple of"
    ):
        load(tmp_path, "nf4")
    load(tmp_path, Quantization("nf4", ("language", "vision")))
    load(tmp_path, "int8")


@pytest.mark.parametrize("kind", TYPES)
def test_the_bytes_are_those_that_are_counted_beforehand(folder: Path, kind: QuantizationType) -> None:
    for parts in (PARTS, PARTS[:1], PARTS[1:]):
        model = load(folder, Quantization(kind, parts), "bfloat16")
        counted = weight_bytes(model.config, torch.bfloat16, quantization=Quantization(kind, parts))
        assert held_bytes(model) == counted
        assert counted < weight_bytes(model.config, torch.bfloat16)


def test_missing_unknown_and_misshapen_tensors_are_named_under_quantization_too(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from cogbatch.errors import CheckpointError

    tiny_model().save_pretrained(tmp_path)
    file, name = tmp_path / "model.safetensors", "model.layers.1.mlp.vision_mlp.up_proj.weight"
    weights = load_file(file)
    for changed, match in (
        (
            {key: value for key, value in weights.items() if key != name},
            rf"1 missing tensors: {re.escape(name)}",
        ),
        ({**weights, "lora": torch.ones(1)}, "1 unknown tensors: lora"),
        (
            {**weights, name: weights[name][1:].clone()},
            r"up_proj.* has shape \[95, 64\], .* asks for \[96, 64\]",
        ),
    ):
        save_file(changed, file, metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=match):
            load(tmp_path, "int8")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be loaded"):
        load(tmp_path, "int8")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case_id(case)}-{case.device}")
def test_what_the_table_calls_a_problem_is_refused_and_nothing_else(case: Case) -> None:
    quantization = Quantization(case.type)
    if case.problem is None:
        check_quantization(quantization, dtype=case.dtype, device=case.device)
        return
    with pytest.raises(ValueError, match=rf"^quantization {case.type} .*{re.escape(case.problem)}$"):
        check_quantization(quantization, dtype=case.dtype, device=case.device)


def test_a_dtype_that_is_not_known_yet_is_refused_only_where_no_dtype_works() -> None:
    check_quantization(Quantization("int8"), dtype=None, device="cuda")
    with pytest.raises(ValueError, match=r"int8 does not work on cuda before 7\.5: it needs a card of"):
        check_quantization(Quantization("int8"), dtype=None, device="cuda before 7.5")


def test_every_combination_is_in_the_table_once() -> None:
    cells = Counter((case.type, case.dtype, case.device) for case in CASES)
    devices = {case.device for case in CASES}
    assert cells == Counter((kind, dtype, device) for kind in TYPES for dtype in DTYPES for device in devices)
    with pytest.raises(ValueError, match="int8 with dtype 'float64': expected float32, float16, bfloat16"):
        check_quantization(Quantization("int8"), dtype="float64", device="cpu")


def test_a_missing_package_is_named_with_what_installs_it() -> None:
    with pytest.raises(
        ValueError, match=r"quantization nf4 needs absent: pip install 'cogbatch\[quantization\]'"
    ):
        check_quantization(Quantization("nf4"), dtype="float32", device="cpu", package="absent")


def test_the_documented_table_is_the_table() -> None:
    assert "\n".join(support_table()) in DOCS.read_text(encoding="utf-8")


def test_equal_settings_are_equal_and_wrong_ones_are_named() -> None:
    assert Quantization("nf4", ("vit", "language", "vit")) == Quantization("nf4", ("language", "vit"))
    assert Quantization("int8") == Quantization("int8", PARTS)
    for wrong, match in (
        ({"type": "int4"}, "quantization is 'int4': expected int8, nf4"),
        ({"type": "nf4", "parts": ()}, r"parts is \[\]: expected some of language, vision, vit"),
        ({"type": "nf4", "parts": ("lm_head",)}, r"parts is \['lm_head'\]: expected some of"),
    ):
        with pytest.raises(ValueError, match=match):
            Quantization(**wrong)


def test_an_engine_refuses_an_unknown_type(folder: Path) -> None:
    with pytest.raises(ValueError, match="quantization is 'int4': expected int8, nf4"):
        Engine.from_pretrained(folder, quantization="int4")  # type: ignore[arg-type]


def test_bitsandbytes_is_imported_only_where_it_is_needed_and_says_nothing(tmp_path: Path) -> None:
    """It would write a line for every product."""
    saved(tmp_path)
    program = f"""
import sys, warnings
import torch
from pathlib import Path
from cogbatch.engine.loading import load_model
warnings.simplefilter("error")
torch.inference_mode().__enter__()
for quantization in (None, "int8", "nf4"):
    model = load_model(
        Path({str(tmp_path)!r}), dtype="bfloat16", device=torch.device("cpu"), quantization=quantization
    )
    model(torch.tensor([[5, 6, 7]]))
    print("bitsandbytes" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\nTrue\nTrue\n", "")
