"""The command line: each command is a few lines around one library call. Results on stdout, rest on stderr.

Nothing heavy is imported before a command needs it: help must appear at once.
"""

from cogbatch.cli.app import app, main

# Commands register as they are imported: this is the order in which help lists them.
# isort: off
from cogbatch.cli import convert
from cogbatch.cli import verify
from cogbatch.cli import export_sat
from cogbatch.cli import doctor
from cogbatch.cli import jobs
from cogbatch.cli import retry_failed
from cogbatch.cli import sweep
from cogbatch.cli import submit
from cogbatch.cli import status
from cogbatch.cli import generate
from cogbatch.cli import show
from cogbatch.cli import report
from cogbatch.cli import export
# isort: on

__all__ = [
    "app",
    "convert",
    "doctor",
    "export",
    "export_sat",
    "generate",
    "jobs",
    "main",
    "report",
    "retry_failed",
    "show",
    "status",
    "submit",
    "sweep",
    "verify",
]
