"""k candidates per request from one prefill. Model and tensors; no files but the model directory, no Ray."""

from cogbatch.decoding.params import check_params
from cogbatch.decoding.presets import over_preset

__all__ = ["check_params", "over_preset"]
