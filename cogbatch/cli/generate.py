"""cogbatch generate: one prompt about one image, on the terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.options import Debug, Json, Tokenizer, Version, percent, show
from cogbatch.errors import CogbatchError
from cogbatch.types import Dtype, GenerationParams, GenerationRequest

DEFAULTS = GenerationParams()


@app.command(no_args_is_help=True)
def generate(
    model: Annotated[str, typer.Argument(help="Model directory, SAT checkpoint (converted once) or hub id.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Question or instruction, without template.")],
    image: Annotated[
        str | None, typer.Option("--image", "-i", help="Path or URL. [default: none, text only]")
    ] = None,
    num_candidates: Annotated[
        int, typer.Option("--num-candidates", "-n", "--num-return-sequences", help="How many answers.")
    ] = DEFAULTS.num_candidates,
    strategy: Annotated[str, typer.Option(help="sample or greedy.")] = DEFAULTS.strategy,
    temperature: Annotated[float, typer.Option(help="Above 0.")] = DEFAULTS.temperature,
    top_p: Annotated[float, typer.Option(help="In (0, 1]; 1 keeps all.")] = DEFAULTS.top_p,
    top_k: Annotated[int, typer.Option(help="0 keeps all.")] = DEFAULTS.top_k,
    min_p: Annotated[float, typer.Option(help="In [0, 1]; 0 keeps all.")] = DEFAULTS.min_p,
    repetition_penalty: Annotated[float, typer.Option(help="1 is none.")] = DEFAULTS.repetition_penalty,
    max_new_tokens: Annotated[int, typer.Option(help="End token included.")] = DEFAULTS.max_new_tokens,
    min_new_tokens: Annotated[int, typer.Option(help="No end token before.")] = DEFAULTS.min_new_tokens,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Always max_new_tokens.")] = False,
    seed: Annotated[int, typer.Option(help="Fixes every random number.")] = DEFAULTS.seed,
    deterministic: Annotated[
        bool, typer.Option(help="Same candidates whatever else runs.")
    ] = DEFAULTS.deterministic,
    tokenizer: Tokenizer = None,
    version: Version = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Of the weights. [default: the model's own]")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Answer one prompt about one image, k times.

    \b
    cogbatch generate models/chat -i cat.jpg -p "Describe the image." -n 8 --temperature 0.9
    cogbatch generate jobs/demo/checkpoint --tokenizer jobs/demo/tokenizer -i scene.png -p "How many shapes?"
    """
    del debug
    params = GenerationParams(
        num_candidates=num_candidates,
        strategy=strategy,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        ignore_eos=ignore_eos,
        seed=seed,
        deterministic=deterministic,
    )
    from cogbatch.checkpoint.directory import prepare_model
    from cogbatch.engine.engine import Engine

    ready = prepare_model(model, tokenizer=tokenizer, version=version, on_progress=percent("converting"))
    engine = Engine.from_pretrained(
        ready.path,
        dtype=dtype or "auto",
        device=device,
        tokenizer=ready.tokenizer_path,
        template_version=ready.template_version,
    )
    (output,) = engine.generate([GenerationRequest(id=image or prompt, image=image, prompt=prompt)], params)
    if output.error is not None:
        raise CogbatchError(f"{output.error.stage}: {output.error.message}")
    lines = [
        f"[{candidate.index}] {candidate.cumulative_logprob:8.2f}  {candidate.text}"
        for candidate in output.candidates
    ]
    show(lines, {"candidates": [asdict(candidate) for candidate in output.candidates]}, as_json=as_json)
