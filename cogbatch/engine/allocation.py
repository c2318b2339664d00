"""Telling an error that means "no memory left" from all others: every device has its own."""

from __future__ import annotations

import torch


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of the device, of torch's CPU allocator or of Python."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )
