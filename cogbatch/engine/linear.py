"""Linear layers that multiply rows in blocks of one fixed size: a row's result never depends on company.

A matrix product's rounding depends on its number of rows (another kernel is chosen), not on what the other
rows hold. Decoding rows of several items together would therefore change an item's numbers with its
neighbours; always multiplying the same number of rows keeps them, bit for bit.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's usual name

# Rows a block: on one CPU with AVX-512 and AMX, float32 blocks of 8 cost no more per row than larger ones,
# bfloat16 blocks of 16 take the time of one row. CUDA's value was never measured: no GPU at hand.
_BLOCK_ROWS = {("cpu", torch.float32): 8, ("cpu", torch.bfloat16): 16}
_DEFAULT_BLOCK_ROWS = 64


def block_rows(device: torch.device, dtype: torch.dtype) -> int:
    """Rows of a block for that device and dtype."""
    return _BLOCK_ROWS.get((device.type, dtype), _DEFAULT_BLOCK_ROWS)


class RowBlockLinear(nn.Linear):
    """nn.Linear that splits decode steps, [R, 1, in] with R above block_rows, into blocks of block_rows.

    R must then be a multiple of block_rows. Prefill, [1, S, in] or [S, in], is one item, and untouched.
    """

    block_rows: int = _DEFAULT_BLOCK_ROWS

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if hidden.dim() != 3 or hidden.shape[0] <= self.block_rows:
            return F.linear(hidden, self.weight, self.bias)
        result = hidden.new_empty(*hidden.shape[:-1], self.out_features)
        for start in range(0, hidden.shape[0], self.block_rows):
            end = start + self.block_rows
            result[start:end] = F.linear(hidden[start:end], self.weight, self.bias)
        return result


def use_row_blocks(model: nn.Module, rows: int) -> None:
    """Turns every nn.Linear of the model into a RowBlockLinear of that block size, weights kept in place."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = RowBlockLinear
        if isinstance(module, RowBlockLinear):
            module.block_rows = rows
