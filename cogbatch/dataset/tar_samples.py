"""The samples of a tar file: neighbouring members with one key, as WebDataset has them. Unpacks nothing.

A member "a/b/001.seg.png" has the key "a/b/001" and the ending "seg.png"; both are data, never paths.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from cogbatch.dataset.files import InputFile
from cogbatch.dataset.streams import GZIP_ERRORS, damage
from cogbatch.images import DEFAULT_LIMITS

# The key ends at the first dot of the last piece; members without one, or hidden ones, belong to no sample.
KEY = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)", re.DOTALL)
MAX_MEMBER_BYTES = DEFAULT_LIMITS.max_bytes

MAX_OFFSET = 2**62  # a hostile size leads beyond it, or backwards for ever
HEADER_ERRORS = (
    tarfile.TarError,
    ValueError,
    OverflowError,
    RecursionError,
)  # of tarfile, on hostile headers

Value = bytes | ValueError | None  # of a member; why it cannot be had; or not asked for


@dataclass(frozen=True)
class Sample:
    """members: ending in lower case -> content, in the order of the file."""

    key: str
    members: dict[str, Value]


def tar_samples(
    opened: IO[bytes], file: InputFile, is_wanted: Callable[[str], bool]
) -> Iterator[tuple[int, Sample | ValueError]]:
    """(byte offset, sample) of each from where the file stands; the last may be why there are no more.

    Args:
        opened: standing before a member. is_wanted: whether a member with this ending is to be read; asked
            when the file is there.
    """
    key, start = "", 0
    members: dict[str, Value] = {}
    for offset, found in _members(opened, file):
        if isinstance(found, ValueError):
            yield start if members else offset, found  # the open sample may lack its last members
            return
        split = KEY.fullmatch(found.name)
        if split is None or found.isdir():
            continue
        ending = split[2].lower()
        if members and (split[1] != key or ending in members):
            yield start, Sample(key, members)
            members = {}
        if not members:
            key, start = split[1], offset
        try:
            members[ending] = _content(opened, found) if is_wanted(ending) else None
        except GZIP_ERRORS as err:
            yield start, damage(file, opened.tell(), err)
            return
    if members:
        yield start, Sample(key, members)


def _members(opened: IO[bytes], file: InputFile) -> Iterator[tuple[int, tarfile.TarInfo | ValueError]]:
    """(byte offset, member) of each, of several tar files one after the other too.

    tarfile takes a damaged header for the end, so what follows the end is looked at here.
    """
    offset = opened.tell()
    try:
        while (block := _skip_zeros(opened, offset)) is not None:
            offset = block
            opened.seek(offset)
            tar = tarfile.open(fileobj=opened, mode="r:")  # noqa: SIM115  its close() would not close the file
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or it keeps every member of the pass
                if not member.offset < tar.offset < MAX_OFFSET:
                    raise tarfile.ReadError(f"a member of {member.size} bytes")
                offset = tar.offset
                yield member.offset, member
            if tar.offset == block:
                raise tarfile.ReadError("no member's header")
            offset = tar.offset
    except (*HEADER_ERRORS, *GZIP_ERRORS) as err:
        at_byte = opened.tell() if file.is_gzipped else min(offset, file.size_bytes)
        yield offset, damage(file, at_byte, err)


def _skip_zeros(opened: IO[bytes], offset: int) -> int | None:
    """Where the first block that is not zero begins, or None at the end of the file."""
    opened.seek(offset)
    while block := opened.read(tarfile.BLOCKSIZE):
        if block.strip(b"\0"):
            return offset
        offset += len(block)
    return None


def _content(opened: IO[bytes], member: tarfile.TarInfo) -> Value:
    name = repr(member.name if len(member.name) <= 200 else member.name[-200:])
    if not member.isreg() or member.issparse():
        return ValueError(f"member {name} is a link or no plain file; pack it with tar --dereference")
    if member.size > MAX_MEMBER_BYTES:
        return ValueError(f"member {name}: {member.size} bytes, over the limit of {MAX_MEMBER_BYTES}")
    opened.seek(member.offset_data)
    return opened.read(member.size)
