"""A strategy and a selector of one's own. `pip install docs/custom_strategy` makes cogbatch know both."""

import torch

from cogbatch.decoding.strategy import Choice


class FirstTokens:
    """The k most probable first tokens, each continued greedily (Wang and Zhou 2024, arXiv:2402.10200)."""

    uses = frozenset({"strategy_options"})  # fields of GenerationParams that it reads; others are refused
    distinct, nested = True, True

    def check(self, params):
        if unknown := set(params.strategy_options) - {"skip"}:
            raise ValueError(f"strategy_options has {sorted(unknown)}: 'first-tokens' knows only skip")

    def num_rows(self, params):
        return params.num_candidates

    # [R, V] -> which row continues [R'], with which token [R']
    def step(self, logprobs, state, t, rng):  # noqa: ARG002
        if t > 0:
            return torch.arange(len(logprobs)), logprobs.argmax(-1)
        ranked = logprobs[0].argsort(descending=True)
        token = ranked[logprobs[0, ranked] != -torch.inf][state.params.strategy_options.get("skip", 0) :]
        token = token[: state.params.num_candidates]
        return torch.zeros_like(token), token

    def finish(self, state):  # rows are numbered as they fork the prompt
        return [Choice(row) for row in sorted(state.finished, key=lambda row: row.lane)]


class Shortest:
    """Of a pool, the k shortest texts."""

    uses = frozenset()

    def check(self, params):
        pass

    def select(self, pool, k, context):  # noqa: ARG002
        return sorted(range(len(pool)), key=lambda index: (len(pool[index].text), pool[index].text))[:k]
