"""What a job says about its input, as one value. Nothing is read here.

Also the input section of the job spec: the annotations say what its values may be.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field

if TYPE_CHECKING:
    from cogbatch.images import ImageLimits

Format = Literal["auto", "parquet", "jsonl", "csv", "webdataset", "huggingface", "folder"]
FORMATS: tuple[str, ...] = get_args(Format)
ELSEWHERE = frozenset({"path", "image_root", "allow_private_addresses"})
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class InputOptions:
    """Where the input is and which columns mean what.

    Args:
        path: file, directory or glob, local or any fsspec URL.
        format: auto goes by file endings; an example of each: docs/input.md.
        id_column: one column or several; null: ids are made from file and row. Equal ids share their random
            numbers.
        image_column: bytes, path or http(s) URL; a null image is a text-only request. An image folder has the
            columns id and image.
        prompt_column: a prompt for each row; null where there is none.
        prompt: one for all rows, or for those whose prompt column is null.
        columns: carried through to the output.
        image_root: what image paths are relative to and may not leave; null: the input's folder.
        limit: only that many first rows; part of the job's identity.
        allow_private_addresses: whether image URLs may reach loopback, private and link-local addresses.
    """

    path: Text
    format: Format = "auto"
    id_column: Text | tuple[Text, ...] | None = None
    image_column: Text | None = "image"
    prompt_column: Text | None = None
    prompt: str | None = None
    columns: tuple[Text, ...] = ()
    image_root: Text | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    allow_private_addresses: bool = False

    @property
    def image_limits(self) -> ImageLimits:
        """What load_image is told of the images of this input."""
        from cogbatch.images import ImageLimits  # here: a spec needs no image library

        return ImageLimits(allow_private_addresses=self.allow_private_addresses)

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The id columns, none, one or several."""
        if self.id_column is None:
            return ()
        return (self.id_column,) if isinstance(self.id_column, str) else tuple(self.id_column)

    def identity(self) -> dict[str, Any]:
        """What of this belongs to the job's identity: all but where the files lie and may be fetched from."""
        values = asdict(self) | {"id_column": list(self.id_columns), "columns": list(self.columns)}
        return {key: value for key, value in values.items() if key not in ELSEWHERE}
