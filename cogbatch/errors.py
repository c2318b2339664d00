"""The public error tree. One line each: what, where, expected, what to do.

CogbatchError
├── CheckpointError     a SAT or Hugging Face model directory is not what it should be
├── DatasetError        the input cannot be read as asked: missing column, no rows, unknown format
├── ImageError          one image cannot be loaded (stage "image" of an error row)
├── PromptError         one prompt cannot be used, for example too long (stage "prompt")
├── RunDirectoryError   the output directory belongs to another job, or is in use
├── JobError            the job cannot start or go on
└── EvaluationError     candidates cannot be judged, compared or exported as asked

A wrong argument to a Python function is a ValueError.
"""

from cogbatch.redact import sayable


class CogbatchError(Exception):
    """Base of everything that cogbatch raises on purpose, apart from ValueError. Never shows a secret."""

    def __init__(self, *args: object) -> None:
        # Here and not where messages are made: paths and URLs are in most of them.
        super().__init__(*(sayable(value) if isinstance(value, str) else value for value in args))


class CheckpointError(CogbatchError):
    """A model directory (SAT or Hugging Face) is missing, damaged or of an unsupported kind."""


class DatasetError(CogbatchError):
    """The input dataset cannot be read as the job asks."""


class ImageError(CogbatchError):
    """One image cannot be loaded: missing, not an image, truncated, or over a limit."""


class PromptError(CogbatchError):
    """One prompt cannot be used: no text, or too long for the model."""


class RunDirectoryError(CogbatchError):
    """The run directory belongs to a different job, is in use, or is damaged."""


class JobError(CogbatchError):
    """The job cannot start, or must stop before its end."""


class EvaluationError(CogbatchError):
    """Candidates cannot be judged, compared or exported as asked: a checker failed, a column is missing."""
