"""Candidates of runs as training data: options in, a folder out. Judges nothing itself and draws nothing."""

from cogbatch.eval.export.export import Exported, export_runs
from cogbatch.eval.export.options import ExportOptions

__all__ = ["ExportOptions", "Exported", "export_runs"]
