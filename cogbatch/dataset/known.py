"""What the first start of a job found in its input: later ones need not look again. job.json keeps it.

Only formats whose files must be passed over in full to find rows; where these are, the shards say.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cogbatch.dataset.arrow import ArrowSource
from cogbatch.dataset.files import Listing, fingerprint
from cogbatch.dataset.lines import LinesSource
from cogbatch.dataset.options import InputOptions
from cogbatch.dataset.row_index import known_index
from cogbatch.dataset.shards import Shard, stored_shards
from cogbatch.dataset.source import Source
from cogbatch.dataset.webdataset import TarSource


@dataclass(frozen=True)
class KnownInput:
    """An input as a job has it.

    Args:
        fingerprint: of its files then. columns: those that the job asks for. headers: of each CSV file.
        shards: the grid of the job.
    """

    fingerprint: str
    columns: pa.Schema
    headers: tuple[tuple[str, ...], ...]
    shards: tuple[Shard, ...]


def found_in(source: Source, columns: Sequence[str]) -> dict[str, Any]:
    """What job.json keeps beside the shards: the columns as a base64 Arrow schema, and headers."""
    schema = pa.schema([source.schema.field(name) for name in columns])
    headers = source.headers if isinstance(source, LinesSource) else ()
    data = base64.b64encode(schema.serialize().to_pybytes()).decode()
    return {"columns": data, "headers": [list(header) for header in headers]}


def known_input(job: Mapping[str, Any] | None, options: InputOptions) -> KnownInput | None:
    """What job.json knows of the input with these options; None: nothing, or not of such a one."""
    if job is None or "found" not in job:
        return None
    then = dict(job["identity"]["input"])
    mark, found = then.pop("fingerprint"), job["found"]
    if then != options.identity():
        return None
    return KnownInput(
        fingerprint=mark,
        columns=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(found["columns"]))),
        headers=tuple(map(tuple, found["headers"])),
        shards=stored_shards(job, where="job.json"),
    )


def known_source(listing: Listing, known: KnownInput | None) -> Source | None:
    """The source, without opening a file; None where the files changed, or have an index."""
    if known is None or known.fingerprint != fingerprint(listing.files):
        return None
    of_files: list[list[Shard]] = [[] for _ in listing.files]
    for shard in known.shards:
        if shard.byte_offset is None:
            return None
        of_files[shard.file_index].append(shard)
    indexes = tuple(map(known_index, of_files))
    match listing.format:
        case "webdataset":
            return TarSource(listing, indexes, known.columns)
        case "huggingface":
            return ArrowSource(listing, indexes, known.columns)
        case _:
            return LinesSource(listing, indexes, known.headers, known.columns)
