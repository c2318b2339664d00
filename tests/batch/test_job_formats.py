"""Rows in = rows out on real local Ray from every input format, a row that kills its process among them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_backend import FAKE, MakeSpec

from cogbatch.batch.job import run_job
from tests.dataset.inputs import Item, options_for, write_folder

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


# One read by offsets, one by batches, one as a stream; tests of readers cover the others.
@pytest.mark.parametrize("kind", ["tar", "arrow", "jsonl.gz"])
def test_every_row_of_every_format_ends_in_the_parts_once(
    make_spec: MakeSpec, tmp_path: Path, kind: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    written = [Item(f"k{n}", b"x" * n, "die" if n == 33 else "say") for n in range(70)]
    write_folder(data, kind, [written[:20], written[20:]], group=13)
    options = options_for(data, kind)
    section = {
        name: getattr(options, name)
        for name in ("path", "id_column", "image_column", "prompt_column", "columns")
    }
    spec = make_spec(["say"], input=section, output={"shard_size": 5})
    summary = run_job(spec, backend=FAKE)
    assert (summary.rows, summary.errors) == (70, 1)
    parts = sorted((Path(spec.output.path) / "parts").glob("part-*"))
    rows = pa.concat_tables([pq.read_table(part) for part in parts]).to_pylist()
    assert sorted(row["id"] for row in rows) == sorted(item.id for item in written)
    assert [row["id"] for row in rows if row["error"]] == ["k33"]
