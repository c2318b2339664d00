"""The embedded default job: drawn scenes with ground truth, and a tiny CogVLM that learned to describe them."""
