"""From nothing to the demo's SAT checkpoint: `python -m jobs.demo.train`, about an hour on two CPU cores.

The loop and the recipe; data is pool.py, the batched forward is shared_prefix.py. What makes it quick: a cell
of a scene is one patch; an answer's loss is averaged over its tokens; projected patches must also tell what
their cell holds (a head that is dropped at export); one shape first; several texts share an image.
On a busy machine set OMP_WAIT_POLICY=passive: threads that spin at barriers made steps ten times slower.
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
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's usual name

from cogbatch.checkpoint.export import export_sat
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
    steps: int = 4_500
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


def choose(
    step: int, recipe: Recipe, num_shapes: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """The scenes of a step, [rows] indices: of one shape first, then of up to two, then of any number."""
    progress = step / recipe.steps
    most = 1 if progress < recipe.alone else 2 if progress < recipe.pairs else num_shapes.max()
    return rng.choice(np.flatnonzero(num_shapes <= most), recipe.rows)


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


@dataclass
class Learner:
    """All that changes during training; `cell_head` is dropped at export."""

    model: CogVLMForCausalLM
    cell_head: nn.Linear
    optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def new(cls, recipe: Recipe) -> Learner:
        torch.manual_seed(recipe.seed)
        model = CogVLMForCausalLM(configuration())
        cell_head = nn.Linear(model.config.hidden_size, sum(CELL_LABELS))
        parameters = [*model.parameters(), *cell_head.parameters()]
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.98), fused=True)
        return cls(model, cell_head, optimizer)

    def advance(self, pool: Pool, recipe: Recipe, *, dtype: torch.dtype) -> tuple[float, float]:
        """One step; what it does depends on its number only. Returns the losses per answer and per cell."""
        rng = np.random.default_rng([recipe.seed, self.step])
        rows = pack(pool, choose(self.step, recipe, pool.num_shapes, rng), width=recipe.width, rng=rng)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.step, recipe)
        answer_loss, cell_loss = losses(self.model, self.cell_head, rows, dtype=dtype)
        self.optimizer.zero_grad()
        (answer_loss + recipe.cell_weight * cell_loss).backward()
        nn.utils.clip_grad_norm_([*self.model.parameters(), *self.cell_head.parameters()], 1.0)
        self.optimizer.step()
        self.step += 1
        return answer_loss.item(), cell_loss.item()

    def save(self, path: Path, recipe: Recipe) -> None:
        state = {
            "recipe": vars(recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "cell_head": self.cell_head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path, recipe: Recipe) -> None:
        """Raises SystemExit: the file is of another recipe."""
        state = torch.load(path, weights_only=True)
        if state["recipe"] != vars(recipe):
            raise SystemExit(f"{path} is of another recipe; remove it or choose another --work")
        self.model.load_state_dict(state["model"])
        self.cell_head.load_state_dict(state["cell_head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def train(recipe: Recipe, *, work: Path, out: Path, threads: int, save_every: int = 500) -> None:
    """Trains, resuming from `work` when it holds an unfinished run of the same recipe; exports to `out`."""
    torch.set_num_threads(threads)
    pool = _pool(recipe, work / f"pool-{recipe.num_scenes}.npz", processes=threads)
    learner = Learner.new(recipe)
    state, log = work / "state.pt", work / "log.csv"
    if state.exists():
        learner.load(state, recipe)
    else:
        log.write_text("step,answer_loss,cell_loss,seconds\n")
    started, recent = time.monotonic(), []
    while learner.step < recipe.steps:
        recent.append(learner.advance(pool, recipe, dtype=torch.bfloat16))
        if learner.step % 50 == 0:
            answer, cell = np.mean(recent, axis=0)
            seconds, recent = time.monotonic() - started, []
            print(f"step {learner.step}: answers {answer:.4f}, cells {cell:.4f}, {seconds:.0f} s", flush=True)
            with log.open("a") as file:
                csv.writer(file).writerow([learner.step, f"{answer:.4f}", f"{cell:.4f}", round(seconds)])
        if learner.step % save_every == 0 or learner.step == recipe.steps:
            learner.save(state, recipe)
    export(learner.model, out, log=log)


def export(model: CogVLMForCausalLM, out: Path, *, log: Path) -> None:
    """Writes the SAT checkpoint in bf16 and the log beside it."""
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
