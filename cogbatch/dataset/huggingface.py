"""Which Arrow files a directory of datasets.save_to_disk consists of. Their rows are arrow.py's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import fsspec

from cogbatch.errors import DatasetError

STATE = "state.json"  # of one Dataset
MAX_NAMED = 10  # splits in one message
SPLITS = "dataset_dict.json"  # of a DatasetDict: one directory for each split


def saved_files(
    fs: fsspec.AbstractFileSystem, folder: str, infos: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Those of the listed files that hold the dataset's rows: a cache of map() may lie beside them.

    Args:
        infos: what lies in the folder, by relative path.

    Raises DatasetError: several splits, no saved dataset, a list of files that is not what was saved.
    """
    inside = sorted(name.rsplit("/", 1)[0] for name in infos if name.endswith(f"/{STATE}"))
    if STATE not in infos:
        if inside or SPLITS in infos:
            named = ", ".join(repr(name) for name in inside[:MAX_NAMED]) or "none"
            raise DatasetError(f"several splits there ({named}), expected one; add its name to input.path")
        raise DatasetError(f"no {STATE} there; expected what datasets.save_to_disk writes, or *.arrow")
    try:
        state = json.loads(fs.cat_file(f"{folder.rstrip('/')}/{STATE}"))
        names = [entry["filename"] for entry in state["_data_files"]]
    except (ValueError, KeyError, TypeError) as err:
        raise DatasetError(f"{STATE} is not as datasets.save_to_disk writes it; save it again") from err
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DatasetError(f"{STATE} names a file of indices; call flatten_indices() and save it again")
    # Names are looked up in the listing and never opened as paths: they come from the data.
    missing = [name for name in names if not isinstance(name, str) or name not in infos]
    if missing:
        raise DatasetError(f"{STATE} names {missing[0]!r}, which is not there; copy the whole directory")
    return {name: infos[name] for name in names}
