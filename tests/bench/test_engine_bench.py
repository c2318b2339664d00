"""The engine's benchmark: that it counts rightly, compares like with like, and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cogbatch import Engine, GenerationParams
from cogbatch.decoding import registry
from tests.bench import expanded
from tests.bench.cases import Case, expanded_bytes, expanded_prompts, serve
from tests.bench.ending import hazard
from tests.bench.peak import forget_peak, peak_anonymous_kb
from tests.bench.profiling import profile
from tests.bench.results import kv_ratio, rate, ratio, roofline
from tests.bench.roofline import Stage, Work, stages
from tests.bench.rounds import received, summary
from tests.bench.setting import TINY, Setting, bench_model
from tests.bench.stages import Watched
from tests.bench.table import BEGIN, END, write_between_markers
from tests.tiny import ByteTokenizer, tiny_model


@pytest.fixture(autouse=True)
def _own_strategies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases register a strategy; other tests must not see it."""
    monkeypatch.setattr(registry, "STRATEGIES", dict(registry.STRATEGIES))


# Every number below is worked out by hand for these sizes: 4 patches, 7 tokens up to eoi, heads of 2.
SMALL = Setting(
    hidden=4,
    heads=2,
    layers=1,
    inner=6,
    vocab=10,
    image_size=28,
    vision_hidden=2,
    vision_inner=3,
    vision_layers=1,
    vision_heads=1,
    prompt_tokens=(3,),
    new_tokens=4,
)
LAYER = 2 * (4 * 12 + 4 * 4 + 2 * 4 * 6 + 6 * 4)  # 272 operations a token: projection, dense, gate, up, down


def small_stages() -> dict[str, Stage]:
    return {stage.name: stage for stage in stages(Work(SMALL.config, (3,), k=2, new_tokens=4))}


def test_operations_of_prefill_are_counted_by_hand() -> None:
    found = small_stages()
    tower = 2 * 5 * (2 * 6 + 2 * 2 + 2 * 2 * 3) + 2 * (2 * 5 * 5 * 2)  # 5 tokens with cls; scores, context
    projection = 2 * 4 * (2 * 4 + 2 * 4 * 6 + 6 * 4)
    assert found["vision"].operations == 2 * 4 * 588 * 2 + tower + projection == 10_528
    assert found["image"].operations == 7 * LAYER + 2 * (2 * 2 * 7 * 7 * 2) == 2_688
    seen = 2 * (2 * 2 * 3 * 7 * 2) + 2 * (2 * 2 * 3 * 3 * 2)  # the image, and one another
    assert found["text: 3 tokens"].operations == 3 * LAYER + seen + 2 * 4 * 10 == 1_376


def test_operations_of_decoding_are_counted_by_hand() -> None:
    found = small_stages()
    assert found["decode: linear layers"].operations == 3 * 2 * LAYER  # the first token is the prefill's
    assert found["decode: attention over prefixes"].operations == 3 * 2 * (2 * 2 * 2 * 10 * 2)
    assert found["decode: attention over suffixes"].operations == 3 * 2 * (
        2 * 2 * 2 * 2 * 2
    )  # 1, 2 and 3 keys
    assert found["decode: head"].operations == 3 * 2 * 2 * 4 * 10


def test_bytes_of_decoding_are_counted_by_hand() -> None:
    found = small_stages()
    in_and_out = 2 * (16 + 8 + 10 + 10 + 10)
    assert found["decode: linear layers"].bytes == 3 * 4 * (LAYER // 2 + in_and_out)
    # Keys and queries, then values and contexts: 2 heads of 2, 10 keys, 2 rows.
    assert found["decode: attention over prefixes"].bytes == 3 * 4 * 2 * (2 * 2 * (10 + 2))
    assert found["decode: attention over suffixes"].bytes == 3 * 4 * 2 * (4 * 2 * (2 + 1))
    assert found["choosing"].bytes == 4 * 4 * (4 * 2 * 10)


def test_prefix_keys_are_read_once_however_many_rows() -> None:
    few, many = (Work(TINY.config, (5,), k=k, new_tokens=4) for k in (1, 16))
    name = "decode: attention over prefixes"
    few_bytes, many_bytes = (next(s for s in stages(w) if s.name == name).bytes for w in (few, many))
    assert many_bytes < 16 * few_bytes / 2


def test_a_long_prompt_in_blocks_reads_each_key_once() -> None:
    """300 tokens see at least half of all pairs, and hardly more than the blocks on the diagonal."""
    image = Setting(**{**SMALL.__dict__, "image_size": 14 * 17})
    tokens = 1 + image.config.num_image_tokens
    assert tokens == 292
    stage = next(s for s in stages(Work(image.config, (3,), k=2, new_tokens=4)) if s.name == "image")
    pairs = (stage.operations - tokens * LAYER) / (2 * 2 * 2 * 2)
    assert tokens * (tokens + 1) / 2 <= pairs <= tokens * (tokens + 128) / 2 + 128**2
    attention = [product for product in stage.products if product.batch]
    assert sum(product.numbers for product in attention) == 2 * 2 * 2 * (2 * tokens)


def test_vision_is_what_torch_counts() -> None:
    model = bench_model(TINY)
    pixels = torch.zeros(1, 3, TINY.image_size, TINY.image_size)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model.get_image_features(pixels)
    vision = next(
        stage for stage in stages(Work(TINY.config, (3,), k=1, new_tokens=2)) if stage.name == "vision"
    )
    assert vision.operations == counter.get_total_flops()


def test_the_ideal_is_the_longer_of_products_and_bytes() -> None:
    stage = small_stages()["choosing"]
    assert stage.ideal_s(2.0, copy_bytes_per_s=stage.bytes) == 2.0
    assert stage.ideal_s(0.5, copy_bytes_per_s=stage.bytes) == 1.0


def test_the_fraction_is_ideal_over_all_of_the_time() -> None:
    names = [stage.name for stage in stages(Work(TINY.config, (3, 5), 2, TINY.new_tokens))]
    products = {"products_s": dict.fromkeys(names, 1.0), "copy_bytes_per_s": 1e15}
    times = {"vision": 2.0, "image": 2.0, "text": 2.0, "decode": 8.0}
    engine = {"stages": times, "seconds": 20.0}
    found = roofline(TINY, Case("products", 2, 2), engine, products)
    # vision, image, two texts, four parts of decoding, choosing: a second each.
    assert found.fraction == pytest.approx(9 / 20)
    assert {line.name: line.measured_s for line in found.lines} == {**times, "choosing": 6.0}
    assert [line.ideal_s for line in found.inside] == [1.0] * 4


def test_an_expanded_cache_chooses_what_the_engine_chooses() -> None:
    model = tiny_model()  # its weights are large enough for a key more or less to matter
    prompts = expanded_prompts(TINY, 3)
    assert len({prompt.ids.shape[1] for prompt in prompts}) == 3
    tokens, _ = expanded.generate(
        model, prompts, num_rows=2, new_tokens=12, choose=lambda logits: logits.argmax(-1)
    )
    params = GenerationParams(strategy="greedy", ignore_eos=True, max_new_tokens=12)
    outputs = {o.id: o for o in Engine(model, ByteTokenizer()).generate(TINY.requests(3), params)}
    for item in range(3):
        expected = list(outputs[str(item)].candidates[0].token_ids)
        assert tokens[2 * item : 2 * item + 2].tolist() == [expected, expected]


def test_bytes_of_an_expanded_cache_are_known_beforehand() -> None:
    prompts = expanded_prompts(TINY, 3)
    _, size_bytes = expanded.generate(bench_model(TINY), prompts, num_rows=2, new_tokens=TINY.new_tokens)
    assert size_bytes == expanded_bytes(TINY, Case("expanded", 2, 3))


def test_items_of_the_cases_have_the_lengths_that_are_counted() -> None:
    engine = Engine(bench_model(TINY), ByteTokenizer())
    outputs = engine.generate(TINY.requests(2), GenerationParams(max_new_tokens=1))
    lengths = {output.id: output.num_prompt_tokens for output in outputs}
    work = Work(TINY.config, (3, 5), 1, 1)
    assert lengths == {str(i): work.image_tokens + n for i, n in enumerate(work.text_tokens)}


def test_stages_by_the_clock_add_up_to_less_than_all() -> None:
    engine = Engine(bench_model(TINY), ByteTokenizer())
    watched = Watched(engine)
    (output,) = engine.generate(TINY.requests(1), GenerationParams(max_new_tokens=3, ignore_eos=True))
    assert min(watched.seconds.values()) > 0
    assert sum(watched.seconds.values()) < output.seconds
    token = 2 * TINY.layers * TINY.hidden * 4  # keys and values of one, bytes
    assert watched.kv_bytes >= (output.num_prompt_tokens + 2) * token


@pytest.mark.parametrize("new_tokens", [4, 64])
def test_rows_have_half_of_their_tokens_on_average(new_tokens: int) -> None:
    end = hazard(new_tokens)
    lengths = [step * end * (1 - end) ** (step - 1) for step in range(1, new_tokens)]
    assert sum(lengths) + new_tokens * (1 - end) ** (new_tokens - 1) == pytest.approx(new_tokens / 2)


def test_rates_and_ratios() -> None:
    ours, theirs = Case("engine", 32), Case("expanded", 32)
    results = {
        ours: {"tokens": 100, "seconds": 2.0, "kv_bytes": 10},
        theirs: {"tokens": 100, "seconds": 5.0, "kv_bytes": 80},
    }
    assert rate(results[ours]) == 50
    assert ratio(results, ours, theirs) == 2.5
    assert ratio(results, ours, Case("calls", 32)) is None
    assert kv_ratio(results, 32) == 8


class FakeConnection:
    """Answers with what it was given, and keeps what it is told."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.sent: list[Any] = []

    def recv(self) -> object:
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)

    def send(self, told: object) -> None:
        self.sent.append(told)


def test_a_case_runs_as_often_as_it_is_told_to() -> None:
    connection = FakeConnection(0, 1, None)
    case = Case("expanded", 2)
    serve(connection, TINY, case, torch.get_num_threads())
    ready, *found = connection.sent
    assert ready == {"method": "expanded", "k": 2, "items": 1, "shared": False}
    assert [run["tokens"] for run in found] == [2 * TINY.new_tokens] * 2
    assert all(run["first_token_s"] < run["seconds"] for run in found)


def test_a_case_that_fails_says_so_to_the_one_who_waits() -> None:
    connection = FakeConnection()
    serve(connection, TINY, Case("mistyped", 2), torch.get_num_threads())
    assert connection.sent == ["mistyped k=2 items=1: KeyError: 'mistyped'"]
    with pytest.raises(SystemExit, match="KeyError: 'mistyped'"):
        received(FakeConnection(*connection.sent))
    with pytest.raises(SystemExit, match="did memory run out"):
        received(FakeConnection())


def test_medians_count_and_peaks_are_the_highest() -> None:
    runs = [{"seconds": s, "peak_mb": m, "stages": {"text": s}} for s, m in ((1, 5), (9, 7), (2, 6))]
    assert summary(runs) == {"seconds": 2, "peak_mb": 7, "stages": {"text": 2}}


def test_a_peak_is_remembered_until_it_is_forgotten() -> None:
    forget_peak()
    before = peak_anonymous_kb()
    torch.ones(25_000_000)  # 100 MB
    assert 80_000 < peak_anonymous_kb() - before < 130_000
    forget_peak()
    assert peak_anonymous_kb() - before < 20_000


def test_only_what_is_between_the_markers_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    write_between_markers(page, "new")
    assert page.read_text() == f"above\n{BEGIN}\nnew\n{END}\nbelow\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match=r"page\.md has no lines"):
        write_between_markers(page, "new")


@pytest.mark.slow
def test_it_runs_and_writes_its_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.engine", "--tiny", "--threads", "1", "--write", str(page)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cases"]["engine k=8 items=4"]["tokens"] == 4 * 8 * TINY.new_tokens
    ending = found["cases"]["ending k=8 items=4"]["tokens"]
    assert 0 < ending < found["cases"]["stream k=8 items=4"]["tokens"] == 5 * 8 * TINY.new_tokens
    assert 0 < found["roofline"]["k=8 items=4"] < 1
    tables = page.read_text().removeprefix(f"{BEGIN}\n").removesuffix(f"\n{END}\n")
    assert "**tokens/s**" in tables
    assert done.stdout.startswith(tables)


def test_a_profile_lists_operators_by_stage() -> None:
    found = profile(TINY, Case("engine", 2), threads=torch.get_num_threads()).splitlines()
    stages_listed = {line.split()[0] for line in found[1:] if not line.startswith(" ")}
    assert stages_listed == {"vision", "image", "text", "decode", "choosing"}
    assert any("scaled_dot_product" in line for line in found)
