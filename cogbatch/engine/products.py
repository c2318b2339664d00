"""Matrix products of the rows of many items together, no row of which depends on its company.

A product chooses its kernel, and with it the order in which it adds, by the number of rows: so a row's last
bits change with its neighbours. They do not where two numbers of rows happen to lead to the same order. For
which that is so differs between libraries, processors, dtypes and widths; so it is measured here, on the
model's own weights, and rows are multiplied in such numbers only.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

_UNIT_ROWS = {"cpu": 8, "cuda": 64}  # numbers of rows are multiples of it
_MOST_UNITS = 8
_HAS_ONEDNN = torch.backends.mkldnn.is_available()
# What oneDNN multiplies on this processor: bfloat16 takes AVX-512, or AVX2 with conversions of its own.
ONEDNN_DTYPES = {torch.float32} if _HAS_ONEDNN else set()
if _HAS_ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    ONEDNN_DTYPES.add(torch.bfloat16)


class RowBlocks:
    """In which numbers rows may be multiplied by a model's weights.

    Args:
        linears: all layers that are asked for. dtype: of the rows; that of packed weights says nothing.
        unit_rows: what numbers of rows are padded to; None is 8 on the CPU and 64 on CUDA (never run: no GPU
            at hand), where small products cost as much as that.
    """

    def __init__(
        self, linears: Iterable[nn.Module], *, dtype: torch.dtype, unit_rows: int | None = None
    ) -> None:
        self._linears = list({_kind(linear): linear for linear in linears}.values())
        device = next(self._linears[0].parameters()).device
        self._dtype = dtype
        self._unit_rows = unit_rows or _UNIT_ROWS[device.type]
        self._largest: dict[int, int] = {}  # by torch's threads, which share out the work

    def padding(self, rows: int) -> int:
        """Rows to put behind so many, to come to a multiple of the unit."""
        return -rows % self._unit_rows

    @property
    def largest(self) -> int:
        """The most rows that may be multiplied at once: for every multiple of the unit up to it, the bits of
        a row depend on nothing but that row."""
        threads = torch.get_num_threads()
        if threads not in self._largest:
            self._largest[threads] = min(self._proven_rows(linear) for linear in self._linears)
        return self._largest[threads]

    def _proven_rows(self, linear: nn.Module) -> int:
        unit, most = self._unit_rows, self._unit_rows * _MOST_UNITS
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(most, _in_features(linear), generator=generator)
        rows = rows.to(next(linear.parameters()).device, self._dtype)
        expected = torch.cat([multiply(linear, part) for part in rows.split(unit)])
        proven = unit
        while proven < most:
            together = proven + unit
            moved = torch.arange(together, device=rows.device).roll(together // 2)  # to other places
            if not torch.equal(multiply(linear, rows[moved]), expected[moved]):
                break
            proven = together
        return proven


def multiply(linear: nn.Module, rows: torch.Tensor, *, block_rows: int | None = None) -> torch.Tensor:
    """[R, X] -> [R, Y], in blocks of so many rows if that is given."""
    if block_rows is not None and rows.shape[0] > block_rows:
        return torch.cat([multiply(linear, block) for block in rows.split(block_rows)])
    if _is_for_onednn(linear, rows):
        # For few rows as fast as torch's own choice, MKL, which adds in another order for every few rows.
        return torch.ops.mkldnn._linear_pointwise(rows, linear.weight, linear.bias, "none", [], "")
    return linear(rows)


def _is_for_onednn(linear: nn.Module, rows: torch.Tensor) -> bool:
    return (
        rows.device.type == "cpu"
        and type(linear) is nn.Linear
        and linear.weight.dtype == rows.dtype
        and rows.dtype in ONEDNN_DTYPES
    )


def _kind(linear: nn.Module) -> tuple[type[nn.Module], int, object, torch.dtype]:
    """Products of one kind are computed alike. Packed weights have no shape that would tell them apart."""
    weight: torch.Tensor = next(linear.parameters())
    return type(linear), _in_features(linear), linear.out_features, weight.dtype


def _in_features(linear: nn.Module) -> int:
    features = linear.in_features
    assert isinstance(features, int)
    return features
