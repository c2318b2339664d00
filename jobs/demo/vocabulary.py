"""Re-creates the demo's tokenizer: `python -m jobs.demo.vocabulary`. Llama format, at most 1,024 pieces.

Sentencepiece BPE with the 256 byte pieces (any text can be encoded), trained on what the grammar says and on
the words of the prompt templates. pad and unk are 0, bos 1, eos 2. tokenizer.json: the same for transformers.
"""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, processors

from jobs.demo.grammar import caption, questions
from jobs.demo.scenes import scene
from jobs.demo.words import CHINESE, ENGLISH, LANGUAGES

DIRECTORY = Path(__file__).parent / "tokenizer"
VOCABULARY = 704
SEEDS = range(2_000_000, 2_003_000)  # of training, see train.py
TEMPLATES = ("Question: {} Short answer:", "Question: {} Answer:", " [INST] {} [/INST] ")
SPECIAL = ("<unk>", "<s>", "</s>")  # ids 0, 1, 2
BOUNDARY = "\u2063"  # invisible; pieces never cross it
_CHINESE_WORDS = (
    *(CHINESE.shapes, CHINESE.colours, CHINESE.places, CHINESE.textures, CHINESE.relations),
    *({"": CHINESE.counts}, {"": CHINESE.numbers}, {"": ("一个", "的", "大", "小", "有", "图形")}),
)


def text(seeds: range = SEEDS) -> Iterator[str]:
    """Lines to train on, Chinese with boundaries between words."""
    rng = random.Random(0)
    every = {word for names in _CHINESE_WORDS for words in names.values() for word in words}
    words = sorted(every, key=lambda word: (-len(word), word))
    chinese = re.compile("|".join(map(re.escape, words)))
    for seed in seeds:
        truth = scene(seed)
        for language in LANGUAGES.values():
            asked = rng.sample(tuple(questions(truth, language=language)), 2)
            lines = [caption(truth, rng, language=language).text, rng.choice(language.prompts)]
            lines += [line for question in asked for line in (question.text, question.answer)]
            if language is ENGLISH and seed % 4 == 0:
                lines = [template.format(line) for template, line in zip(TEMPLATES, lines, strict=False)]
            if language is CHINESE:
                lines = [chinese.sub(lambda word: BOUNDARY + word[0] + BOUNDARY, line) for line in lines]
            yield from lines


def train() -> bytes:
    """The sentencepiece model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=text(),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        pretokenization_delimiter=BOUNDARY,
        pad_id=-1,  # the pad token is <unk>, as in every Llama tokenizer
        unk_id=0,
        bos_id=1,
        eos_id=2,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def backend(model: bytes) -> Tokenizer:
    """The same tokenizer for transformers: every blank is a piece's "▁", and one more goes in front."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = {pieces.id_to_piece(index): index for index in range(pieces.vocab_size())}
    splits = (
        (piece[:cut], piece[cut:])
        for piece in sorted(vocabulary, key=vocabulary.__getitem__)
        if not pieces.is_byte(vocabulary[piece])
        for cut in range(1, len(piece))
    )
    merges = [(left, right) for left, right in splits if left in vocabulary and right in vocabulary]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token=SPECIAL[0], fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def write(directory: Path = DIRECTORY) -> None:
    """Trains and writes tokenizer.model, tokenizer.json and tokenizer_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    model = train()
    (directory / "tokenizer.model").write_bytes(model)
    backend(model).save(str(directory / "tokenizer.json"))
    config = {
        # Not LlamaTokenizer: transformers 5 would rebuild it and drop one of two leading blanks.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    write()
    size = sentencepiece.SentencePieceProcessor(model_file=str(DIRECTORY / "tokenizer.model")).vocab_size()
    print(f"{DIRECTORY}: {size} pieces")
