"""A training script as anyone would write it: python train.py FORMAT DATA MODEL. Knows nothing of cogbatch.

Prints the mean loss over the first records of the train split before each of a few steps; of dpo, that of
Rafailov et al. 2023 (arXiv:2305.18290) against the model as it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from transformers import AutoModelForCausalLM, AutoTokenizer

STEPS, BETA, RATE = 8, 0.1, 3e-4
USED = 8  # records, all of them in every step: no order, no dropout, nothing is drawn
IGNORED = -100


def read(form: str, data: str) -> Iterator[tuple[Any, str, list[str]]]:
    """(image, prompt, answers) of each record, the better answer first."""
    if form == "webdataset":
        import webdataset

        names = sorted(str(path) for path in Path(data).glob("train-*.tar"))
        for image, about in (
            webdataset.WebDataset(names, shardshuffle=False).decode("pil").to_tuple("png", "json")
        ):
            yield image, about["prompt"], [about["text"]]
    else:
        import datasets

        for row in datasets.load_dataset(data, split="train"):
            if form == "dpo":
                answers = [row[side][0]["content"][0]["text"] for side in ("chosen", "rejected")]
                yield row["images"][0], row["prompt"][0]["content"][1]["text"], answers
            else:
                question, answer = row["messages"]
                yield row["image"], question["content"][1]["text"], [answer["content"][0]["text"]]


def main() -> None:
    form, data, model_dir = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(model_dir, trust_remote_code=True, dtype=torch.float32)
    rows = list(read(form, data))
    records = [
        [_example(model, tokenizer, image, prompt, answer) for answer in answers]
        for image, prompt, answers in rows[:USED]
    ]

    with torch.no_grad():  # the model as it was, which dpo compares with
        frozen = [[_logprob(model, each).sum() for each in record] for record in records]

    def loss() -> torch.Tensor:
        if form != "dpo":
            return -torch.stack([_logprob(model, record[0]).mean() for record in records]).mean()
        gains = [
            _logprob(model, better).sum() - was_better - _logprob(model, worse).sum() + was_worse
            for (better, worse), (was_better, was_worse) in zip(records, frozen, strict=True)
        ]
        return -F.logsigmoid(BETA * torch.stack(gains)).mean()

    losses = []
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    for _ in range(STEPS):
        optimiser.zero_grad()
        now = loss()
        now.backward()
        losses.append(now.item())
        optimiser.step()
    print(json.dumps({"records": len(rows), "losses": losses}))


def _example(model: Any, tokenizer: Any, image: Any, prompt: str, answer: str) -> dict[str, torch.Tensor]:
    inputs = model.build_conversation_input_ids(tokenizer, query=prompt, images=[image.convert("RGB")])
    reply = torch.tensor([*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id])
    asked = inputs["input_ids"]
    return {
        "input_ids": torch.cat([asked, reply])[None],
        "token_type_ids": torch.cat([inputs["token_type_ids"], torch.zeros_like(reply)])[None],
        "pixel_values": inputs["images"][0][None],
        "labels": torch.cat([torch.full_like(asked, IGNORED), reply])[None],
    }


def _logprob(model: Any, example: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of each token of the answer."""
    inputs = {name: value for name, value in example.items() if name != "labels"}
    logits = model(**inputs, use_cache=False).logits[0, :-1]
    labels = example["labels"][0, 1:]
    found = logits[labels != IGNORED].log_softmax(-1)
    return found.gather(1, labels[labels != IGNORED][:, None])[:, 0]


if __name__ == "__main__":
    main()
