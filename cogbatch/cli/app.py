"""The Typer app, its entry point and what every error looks like. Commands are in their own modules."""

from __future__ import annotations

import errno
import os
import platform
import re
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cogbatch import __version__
from cogbatch.errors import CogbatchError
from cogbatch.redact import one_line, sayable
from cogbatch.text import did_you_mean


class Commands(TyperGroup):
    """The commands; a wrong value is said without pydantic's words and with the nearest choice."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as err:
            err.message = _plain(err.message)
            raise


def _plain(message: str) -> str:
    """A message of Typer about a value."""
    message = message.removeprefix("Value error, ")
    found = re.fullmatch(r"'(.*)' is not one of (.*)\.", message)
    hint = found and did_you_mean(found[1], re.findall("'([^']*)'", found[2]))
    return f"{message[:-1]}; {hint}" if hint else message


ADVICE = {
    errno.EACCES: "allow this user to read and write there, or use another path",
    errno.EROFS: "use another path",
    errno.ENOSPC: "make room, or use another path; then run the same command again",
    errno.EDQUOT: "make room, or use another path; then run the same command again",
}

app = typer.Typer(
    name="cogbatch",
    cls=Commands,
    help="k diverse, scored candidates per image from CogVLM: converted, sharded over Ray, in Parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Console script: runs a command; an error is one line on stderr and exit code 1 (2 for wrong usage)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Whatever of Ray Data still runs in a thread after a job was interrupted must not start another Ray.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        app(args=arguments, prog_name="cogbatch")
    except Exception as err:
        expected = isinstance(err, CogbatchError | ValueError | OSError)
        if "--debug" in arguments:
            typer.echo(sayable(traceback.format_exc()), err=True)
        kind = "" if expected else f"unexpected {type(err).__name__} (--debug shows where): "
        from cogbatch.dataset.rows import printable  # here: --help needs no data library

        typer.echo(f"Error: {kind}{printable(_said(err))}", err=True)
        sys.exit(1)


def _said(err: Exception) -> str:
    """An error on one line; of the system's, which say what alone, also where and what to do."""
    if isinstance(err, OSError) and err.filename is not None and err.errno in ADVICE:
        return sayable(f"{err.filename}: {err.strerror}; {ADVICE[err.errno]}")
    return one_line(err)


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
