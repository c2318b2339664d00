"""k candidates per request from one prefill. Model and tensors; no files but the model directory, no Ray."""

from cogbatch.decoding.params import check_params

__all__ = ["check_params"]
