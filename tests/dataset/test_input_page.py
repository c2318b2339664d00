"""docs/input.md: its specs are specs, and its data is read with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from cogbatch.dataset import InputOptions, open_dataset
from cogbatch.dataset.files import ENDINGS
from tests.dataset.inputs import every_row

PAGE = (Path(__file__).parents[2] / "docs" / "input.md").read_text()
EXAMPLES = re.findall(r"\n\*\*[^\n]*?\*\* \(`(\w+)`.*?```\n(.*?)```\n```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_every_format_has_an_example() -> None:
    assert sorted(name for name, _, _ in EXAMPLES) == sorted(ENDINGS)


@pytest.mark.parametrize(("name", "data", "spec"), EXAMPLES)
def test_examples_are_checked_specs_and_text_is_read_with_them(tmp_path, name, data, spec) -> None:
    section = yaml.safe_load(spec)["input"]
    options = TypeAdapter(InputOptions).validate_python(section)
    assert len(data.splitlines()) <= 4
    if name in ("jsonl", "csv"):
        (tmp_path / options.path).write_text(data)
        moved = TypeAdapter(InputOptions).validate_python({**section, "path": str(tmp_path / options.path)})
        rows = every_row(open_dataset(moved))
        assert len(rows) == len(data.splitlines()) - (name == "csv")
        assert not any(row.error for row in rows)
