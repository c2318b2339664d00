"""From nothing to the demo's SAT checkpoint: `python -m jobs.demo.train`, about an hour on two CPU cores.

The loop and the recipe; data is pool.py, the batched forward is shared_prefix.py. What makes it quick: a cell
of a scene is one patch; an answer's loss is averaged over its tokens; projected patches must also tell what
their cell holds (a head that is dropped at export); one shape first; several texts share an image.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's usual name

from cogbatch.model.configuration_cogvlm import CogVLMConfig
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.model.processing_cogvlm import IMAGE_MEAN, IMAGE_STD
from jobs.demo.pool import INPUT_SIZE, Pool, Rows, build, pack
from jobs.demo.scenes import COLOURS, PLACES, SHAPES, SIZES, TEXTURES
from jobs.demo.shared_prefix import forward
from jobs.demo.vocabulary import VOCABULARY

DIRECTORY = Path(__file__).parent / "checkpoint"
CELL_LABELS = (1 + len(SHAPES), 1 + len(COLOURS), 1 + len(SIZES), len(PLACES), len(TEXTURES))


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights.

    width: text tokens a row. peak_rate: learning rate after warm-up, then cosine to a twentieth.
    alone, pairs: shares of the steps at which scenes of one, and of at most two, shapes end.
    """

    num_scenes: int = 100_000
    steps: int = 5_000
    rows: int = 64
    width: int = 72
    peak_rate: float = 1.5e-3
    warm_up: int = 200
    weight_decay: float = 0.02
    alone: float = 0.04
    pairs: float = 0.08
    cell_weight: float = 1.0
    seed: int = 0


def configuration() -> CogVLMConfig:
    """A CogVLM v1 of 4.4 million parameters."""
    return CogVLMConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=512,
        initializer_range=0.05,
        template_version="base",
        vision_config={
            "hidden_size": 96,
            "num_heads": 4,
            "num_hidden_layers": 2,
            "intermediate_size": 256,
            "image_size": INPUT_SIZE,
            "num_positions": (INPUT_SIZE // 14) ** 2 + 1,
        },
    )


def rate(step: int, recipe: Recipe) -> float:
    """The learning rate at a step."""
    if step < recipe.warm_up:
        return recipe.peak_rate * (step + 1) / recipe.warm_up
    progress = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.peak_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def choose(step: int, recipe: Recipe, by_shapes: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The scenes of a step: [rows] indices; of one shape first, then of up to two, then of all."""
    progress = step / recipe.steps
    known = 1 if progress < recipe.alone else 2 if progress < recipe.pairs else len(by_shapes)
    return rng.choice(np.concatenate(by_shapes[:known]) if known < 4 else by_shapes[-1], recipe.rows)


def losses(
    model: CogVLMForCausalLM, cell_head: nn.Module, rows: Rows, *, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss per answer, loss per cell), both means."""
    pixels = (rows.images.astype(np.float32) / 255.0 - IMAGE_MEAN) / IMAGE_STD
    cells = torch.from_numpy(rows.cells.astype(np.int64))
    targets = torch.from_numpy(rows.targets)
    weights = torch.from_numpy(rows.weights)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        hidden = forward(
            model,
            pixels=torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
            ids=torch.from_numpy(rows.ids),
            segments=torch.from_numpy(rows.segments),
            positions=torch.from_numpy(rows.positions),
        )
        answering = targets >= 0
        logits = model.lm_head(hidden.texts[answering])
        seen = cell_head(hidden.patches)
    answer_loss = F.cross_entropy(logits.float(), targets[answering], reduction="none")
    answer_loss = (answer_loss * weights[answering]).sum() / weights.sum()
    cell_losses = [
        F.cross_entropy(part.float().flatten(0, 1), cells[:, :, index].flatten())
        for index, part in enumerate(seen.split(CELL_LABELS, dim=-1))
    ]
    return answer_loss, torch.stack(cell_losses).mean()


def rounded(model: CogVLMForCausalLM) -> dict[str, torch.Tensor]:
    """The state dict in bf16, as it is shipped."""
    return {name: tensor.detach().to(torch.bfloat16) for name, tensor in model.state_dict().items()}


def train(recipe: Recipe, *, work: Path, out: Path, threads: int, save_every: int = 500) -> None:
    """Trains, resuming from `work` when it holds an unfinished run of the same recipe; exports to `out`."""
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    pool = _pool(recipe, work / f"pool-{recipe.num_scenes}.npz", processes=threads)
    model = CogVLMForCausalLM(configuration())
    cell_head = nn.Linear(model.config.hidden_size, sum(CELL_LABELS))
    parameters = [*model.parameters(), *cell_head.parameters()]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.98), fused=True)
    counts = pool.num_shapes
    by_shapes = [*(np.flatnonzero(counts == number) for number in (1, 2, 3)), np.arange(len(counts))]
    state_file, log = work / "state.pt", work / "log.csv"
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["recipe"] != vars(recipe):
            raise SystemExit(f"{state_file} is of another recipe; remove it or choose another --work")
        model.load_state_dict(state["model"])
        cell_head.load_state_dict(state["cell_head"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    else:
        log.write_text("step,answer_loss,cell_loss,seconds\n")
    started, answer_mean, cell_mean = time.monotonic(), 0.0, 0.0
    for step in range(first, recipe.steps):
        rng = np.random.default_rng([recipe.seed, step])
        rows = pack(pool, choose(step, recipe, by_shapes, rng), width=recipe.width, rng=rng)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, recipe)
        answer_loss, cell_loss = losses(model, cell_head, rows, dtype=torch.bfloat16)
        optimizer.zero_grad()
        (answer_loss + recipe.cell_weight * cell_loss).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        answer_mean += answer_loss.item() / 50
        cell_mean += cell_loss.item() / 50
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - started
            print(
                f"step {step + 1}: answers {answer_mean:.4f}, cells {cell_mean:.4f}, {seconds:.0f} s",
                flush=True,
            )
            with log.open("a") as file:
                csv.writer(file).writerow(
                    [step + 1, f"{answer_mean:.4f}", f"{cell_mean:.4f}", round(seconds)]
                )
            answer_mean, cell_mean = 0.0, 0.0
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            state = {
                "recipe": vars(recipe),
                "step": step + 1,
                "model": model.state_dict(),
                "cell_head": cell_head.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            torch.save(state, state_file.with_suffix(".tmp"))
            state_file.with_suffix(".tmp").replace(state_file)
    export(model, out, log=log)


def export(model: CogVLMForCausalLM, out: Path, *, log: Path) -> None:
    """Writes the SAT checkpoint in bf16 and the log beside it."""
    from cogbatch.checkpoint.export import export_sat

    export_sat(rounded(model), out, config=model.config, overwrite=True)
    (out / "training_log.csv").write_text(log.read_text())


def _pool(recipe: Recipe, path: Path, *, processes: int) -> Pool:
    if not path.exists():
        print(f"drawing {recipe.num_scenes} scenes")
        build(recipe.num_scenes, processes=processes).save(path)
    return Pool.load(path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=DIRECTORY, help="SAT directory to write")
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="scenes, log, resumable state")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    train(Recipe(steps=given.steps), work=given.work, out=given.out, threads=given.threads)


if __name__ == "__main__":
    main()
