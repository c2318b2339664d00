"""Proof of a model directory: of itself (directory.py, loading.py), and against the original (against.py).

Public: `verify.run.verify`. What runs a model runs it in a process of its own: hf_side.py and sat_side.py are
programs.
"""
