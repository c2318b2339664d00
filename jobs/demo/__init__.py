"""The embedded default job: drawn scenes with ground truth, and a tiny CogVLM that can describe them."""
