"""One decode step: what a compiler and a device see of it."""

from collections.abc import Callable

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from cogbatch.engine.cache import ItemCache
from cogbatch.engine.runner import Runner
from cogbatch.engine.step import Step
from tests.tiny import tiny_model

Stepping = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], list[torch.Tensor]]


def begun(runner: Runner, rows: int) -> ItemCache:
    """An image, a prompt of three tokens and one token of its own per row."""
    image = runner.prefill_image(1, torch.randn(3, 56, 56, generator=torch.Generator().manual_seed(rows)))
    ids, types = [1, *[0] * image.length, 5, 6], [0, *[1] * (image.length - 1), 0, 0, 0]
    cache = ItemCache(runner.geometry, runner.prefill_text(ids, types, behind=image), max_new_tokens=8)
    cache.move_rows([0] * rows)
    runner.decode([7] * rows, [cache], deterministic=True)
    return cache


@pytest.fixture(params=[(False, True), (True, True), (True, False)], ids=["v1", "v2", "v2-not-deterministic"])
def step(request: pytest.FixtureRequest) -> tuple[Stepping, tuple[torch.Tensor, ...]]:
    v2, deterministic = request.param
    runner = Runner(tiny_model(v2=v2))
    caches = [begun(runner, rows) for rows in (3, 2, 6)]
    whole = Step(caches, runner._blocks if deterministic else None)
    rows = whole.num_rows + whole.padding
    assert rows == (16 if deterministic else 11)

    def run(tokens: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> list[torch.Tensor]:
        return whole.run(runner.model, tokens, cos, sin)

    positions = torch.full((rows,), 9)
    return run, (positions, runner._cos[positions], runner._sin[positions])


@torch.no_grad()
def test_the_compiler_finds_no_graph_break(step: tuple[Stepping, tuple[torch.Tensor, ...]]) -> None:
    run, inputs = step
    found = torch._dynamo.explain(run)(*inputs)  # type: ignore[no-untyped-call] # torch's own
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons
    compiled = torch.compile(run, backend="eager", fullgraph=True)
    assert all(torch.equal(one, other) for one, other in zip(compiled(*inputs), run(*inputs), strict=True))


@torch.no_grad()
def test_nothing_is_read_from_the_device(step: tuple[Stepping, tuple[torch.Tensor, ...]]) -> None:
    """A fake tensor has no values: an operation that asks for one fails."""
    run, inputs = step
    with FakeTensorMode(allow_non_fake_inputs=True):
        logprobs = run(*inputs)
        with pytest.raises(DataDependentOutputException):
            logprobs[0].argmax().item()
    assert [len(own) for own in logprobs] == [3, 2, 6]
