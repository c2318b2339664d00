"""cogbatch generate: one prompt about one image, on the terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cogbatch.cli.app import app
from cogbatch.cli.options import Debug, Json, Picture, Tokenizer, Version, percent
from cogbatch.cli.options import show as put
from cogbatch.errors import CogbatchError
from cogbatch.types import (
    Dtype,
    GenerationParams,
    GenerationRequest,
    Quantization,
    QuantizationType,
    RequestOutput,
)

if TYPE_CHECKING:
    from rich.console import RenderableType


def _text(name: str, help_text: str) -> str:
    """help_text with the default, which is not typer's: only what was given may override a preset."""
    return f"{help_text} [default: {getattr(GenerationParams(), name)}]"


@app.command(no_args_is_help=True)
def generate(
    model: Annotated[str, typer.Argument(help="Model directory, SAT checkpoint (converted once) or hub id.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Question or instruction, without template.")],
    image: Annotated[
        str | None, typer.Option("--image", "-i", help="Path or URL. [default: none, text only]")
    ] = None,
    num_candidates: Annotated[
        int | None,
        typer.Option(
            "--num-candidates",
            "-n",
            "--num-return-sequences",
            help=_text("num_candidates", "How many answers."),
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings for a use, as in docs/strategies.md. [default: none]")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help=_text("strategy", "As in docs/strategies.md."))] = None,
    selector: Annotated[
        str | None, typer.Option(help="Chooses the answers out of a pool. [default: none]")
    ] = None,
    pool_size: Annotated[
        int | None, typer.Option(help="Drawn for the selector. [default: 4 times the answers]")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help=_text("temperature", "Above 0."))] = None,
    top_p: Annotated[float | None, typer.Option(help=_text("top_p", "In (0, 1]; 1 keeps all."))] = None,
    top_k: Annotated[int | None, typer.Option(help=_text("top_k", "0 keeps all."))] = None,
    min_p: Annotated[float | None, typer.Option(help=_text("min_p", "In [0, 1]; 0 keeps all."))] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help=_text("repetition_penalty", "1 is none."))
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help=_text("max_new_tokens", "End token included."))
    ] = None,
    min_new_tokens: Annotated[
        int | None, typer.Option(help=_text("min_new_tokens", "No end token before."))
    ] = None,
    ignore_eos: Annotated[bool | None, typer.Option("--ignore-eos", help="Always max_new_tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help=_text("seed", "Fixes every random number."))] = None,
    deterministic: Annotated[
        bool | None, typer.Option(help=_text("deterministic", "Same candidates whatever else runs."))
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other generation parameter; the value is YAML."),
    ] = None,
    tokenizer: Tokenizer = None,
    version: Version = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Of the weights. [default: the model's own]")] = None,
    quantization: Annotated[
        QuantizationType | None, typer.Option(help="Of the weights of all layers. [default: none]")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    picture: Picture = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Answer one prompt about one image, k times.

    \b
    cogbatch generate models/chat -i cat.jpg -p "Describe the image." -n 8 --temperature 0.9
    cogbatch generate models/chat -i cat.jpg -p "Describe the image." -n 8 --preset training-data
    """
    del debug
    from cogbatch.batch.spec import parse_generation

    given = {
        "preset": preset,
        "num_candidates": num_candidates,
        "strategy": strategy,
        "selector": selector,
        "pool_size": pool_size,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": min_new_tokens,
        "ignore_eos": ignore_eos,
        "seed": seed,
        "deterministic": deterministic,
    }
    params = parse_generation(
        {name: value for name, value in given.items() if value is not None}, overrides=overrides or []
    )
    from cogbatch.checkpoint.directory import prepare_model
    from cogbatch.engine.engine import Engine

    ready = prepare_model(model, tokenizer=tokenizer, version=version, on_progress=percent("converting"))
    engine = Engine.from_pretrained(
        ready.path,
        dtype=dtype or "auto",
        quantization=Quantization(quantization) if quantization else None,
        device=device,
        tokenizer=ready.tokenizer_path,
        template_version=ready.template_version,
    )
    (output,) = engine.generate([GenerationRequest(id=image or prompt, image=image, prompt=prompt)], params)
    if output.error is not None:
        raise CogbatchError(f"{output.error.stage}: {output.error.message}")
    _print(output, image, picture=picture)
    put([], {"candidates": [asdict(candidate) for candidate in output.candidates]}, as_json=as_json)


def _print(output: RequestOutput, image: str | None, *, picture: bool | None) -> None:
    """On a terminal the image and a table of answers, elsewhere a line for each. picture: as in `show`."""
    from cogbatch.cli.screen import Shown, screen

    shown = Shown(output.candidates)
    console = screen(forced=picture is True)
    if console is None:
        typer.echo("\n".join(shown.lines()))
        return
    drawn: RenderableType = ""
    if image is not None and picture is not False:
        from cogbatch.cli.picture import drawing
        from cogbatch.images import load_image

        drawn = drawing(load_image(image), insist=picture is True)
    console.print(shown.sheet(drawn))
