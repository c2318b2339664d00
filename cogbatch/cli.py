"""The command line: each command is a few lines around one library call. Results on stdout, rest on stderr.

Nothing heavy is imported before a command needs it: help must appear at once.
"""

from __future__ import annotations

import json
import platform
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cogbatch import __version__
from cogbatch.errors import CogbatchError
from cogbatch.types import Dtype, GenerationParams, GenerationRequest, Template

if TYPE_CHECKING:
    from cogbatch.batch.spec import JobSpec

DEFAULTS = GenerationParams()

app = typer.Typer(
    name="cogbatch",
    help="k diverse, scored candidates per image from CogVLM: converted, sharded over Ray, in Parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Last line on stdout: the result as one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show where it came from.")]
Tokenizer = Annotated[
    str | None,
    typer.Option("--tokenizer", "--local-tokenizer", help="Directory or hub id. [default: the model's]"),
]
Version = Annotated[Template | None, typer.Option(help="Prompt template. [default: the model's own]")]
Spec = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job spec.")]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Overrides one key of the spec; the value is YAML."),
]
Address = Annotated[
    Literal["local", "auto"] | None,
    typer.Option(help="Start Ray here, or join the cluster of this machine. [default: the spec's]"),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N rows. [default: the spec's]")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Console script: runs a command; an error is one line on stderr and exit code 1 (2 for wrong usage)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=arguments, prog_name="cogbatch")
    except Exception as err:
        expected = isinstance(err, CogbatchError | ValueError | OSError)
        if "--debug" in arguments:
            traceback.print_exc()
        kind = "" if expected else f"unexpected {type(err).__name__} (--debug shows where): "
        typer.echo(f"Error: {kind}{' '.join(str(err).split())}", err=True)
        sys.exit(1)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=lambda value: _print_versions(value), help="Show versions."
        ),
    ] = False,
) -> None:
    pass


@app.command(no_args_is_help=True)
def convert(
    sat_dir: Annotated[Path, typer.Argument(help="SAT checkpoint: the directory with model_config.json.")],
    out_dir: Annotated[Path, typer.Argument(help="Model directory to write; loads with plain transformers.")],
    tokenizer: Tokenizer = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Of the tensors. [default: the source's own]")] = None,
    version: Version = None,
    iteration: Annotated[int | None, typer.Option(help="Which iteration. [default: the latest]")] = None,
    inv_freq: Annotated[
        Literal["recompute", "keep"], typer.Option(help="Rotary frequencies: computed, or those stored.")
    ] = "recompute",
    max_shard_size: Annotated[str, typer.Option(help="Of one safetensors file.")] = "5GB",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT_DIR.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Convert a SAT checkpoint to a Hugging Face model directory.

    \b
    cogbatch convert cogvlm-chat-v1.1/ models/chat --tokenizer lmsys/vicuna-7b-v1.5
    cogbatch convert jobs/demo/checkpoint models/demo --tokenizer jobs/demo/tokenizer --dtype float32
    """
    del debug
    from cogbatch.checkpoint.convert import convert as convert_checkpoint

    report = convert_checkpoint(
        sat_dir,
        out_dir,
        tokenizer=tokenizer,
        dtype=dtype,
        version=version,
        iteration=iteration,
        inv_freq=inv_freq,
        max_shard_size=max_shard_size,
        overwrite=overwrite,
        on_progress=_percent("converting"),
    )
    size = f"{report.num_parameters:,} parameters, {report.size_bytes / 1e6:.1f} MB"
    lines = [f"{report.path}: {report.num_tensors} tensors, {size}, template {report.template_version}"]
    _show([*lines, *report.notes], asdict(report), as_json=as_json)


@app.command(no_args_is_help=True)
def run(
    job: Spec,
    overrides: Override = None,
    address: Address = None,
    limit: Limit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and count everything, run nothing: the command plan.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a job, or what is missing of it; run it again to resume.

    \b
    cogbatch run jobs/demo/job.yaml
    cogbatch run job.yaml --set generation.num_candidates=4 --set output.path=runs/four --limit 100
    """
    if dry_run:
        return plan(job, overrides, address, limit, as_json, debug)
    from cogbatch.batch.job import run_job
    from cogbatch.batch.progress import open_progress

    spec = _load(job, overrides, address, limit)
    progress = open_progress()
    try:
        summary = run_job(spec, progress=progress)
    except KeyboardInterrupt:
        progress.close()
        typer.echo("Interrupted. Finished parts are kept; run the same command again to resume.", err=True)
        raise typer.Exit(130) from None
    finally:
        progress.close()
    _show(summary.lines(), summary.to_json(), as_json=as_json)
    return None


@app.command(no_args_is_help=True)
def plan(
    job: Spec,
    overrides: Override = None,
    address: Address = None,
    limit: Limit = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a job and count its rows and shards, without weights and without Ray.

    \b
    cogbatch plan jobs/demo/job.yaml
    cogbatch plan job.yaml --set output.shard_size=64 --json
    """
    del debug
    from cogbatch.batch.job import plan_job

    result = plan_job(_load(job, overrides, address, limit))
    _show(result.lines(), result.to_json(), as_json=as_json)


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

    ready = prepare_model(model, tokenizer=tokenizer, version=version, on_progress=_percent("converting"))
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
    _show(lines, {"candidates": [asdict(candidate) for candidate in output.candidates]}, as_json=as_json)


@app.command(no_args_is_help=True)
def report(
    run_dir: Annotated[Path, typer.Argument(help="Run directory: the output.path of a job.")],
    max_items: Annotated[int, typer.Option(min=0, help="Items shown with image and candidates.")] = 60,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write report.html into a run directory: one page with counts, metrics and a sample of items.

    \b
    cogbatch report runs/demo
    cogbatch report runs/demo --max-items 200
    """
    del debug
    from cogbatch.eval.report import write_report

    path = str(write_report(run_dir, max_items=max_items))
    _show([path], {"report": path}, as_json=as_json)


def _load(job: Path, overrides: list[str] | None, address: str | None, limit: int | None) -> JobSpec:
    from cogbatch.batch.spec import load_spec

    flags = [("cluster.address", address), ("input.limit", limit)]
    return load_spec(
        job, overrides=[*(overrides or []), *(f"{key}={value}" for key, value in flags if value is not None)]
    )


def _show(lines: Iterable[str], result: Mapping[str, Any], *, as_json: bool) -> None:
    for line in lines:
        typer.echo(line)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, default=str))


def _percent(verb: str) -> Callable[[int, int], None]:
    from cogbatch.batch.progress import percent

    return percent(verb, lambda line: typer.echo(line, err=True))


def _print_versions(asked: bool) -> None:
    if asked:
        packages = ("torch", "transformers", "ray", "pyarrow")
        others = ", ".join(f"{name} {_installed(name)}" for name in packages)
        typer.echo(f"cogbatch {__version__} (Python {platform.python_version()}, {others})")
        raise typer.Exit


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
