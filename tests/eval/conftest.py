"""Small runs for tests of eval."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from small_run import MakeRun, write_run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """write_run in a folder of the test's own."""
    return functools.partial(write_run, tmp_path)
