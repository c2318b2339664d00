"""k candidates per request from one prefill. Model and tensors; no files but the model directory, no Ray."""

from cogbatch.decoding.params import check_params
from cogbatch.decoding.presets import preset_values

__all__ = ["check_params", "preset_values"]
