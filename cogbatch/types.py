"""The words of the Python API as data: request, params, candidate, output. Standard library only."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from PIL.Image import Image

Stage = Literal["read", "image", "prompt", "generate", "worker"]
FinishReason = Literal["stop", "length"]
Template = Literal["base", "vqa", "chat_old", "chat"]  # SAT's names
Dtype = Literal["float32", "float16", "bfloat16"]
QuantizationType = Literal["int8", "nf4"]
QuantizedPart = Literal["language", "vision", "vit"]
BeamScore = Literal["length", "sat"]
Similarity = Literal["ngram", "edit", "embedding"]
Quality = Literal["logprob", "support"]
JudgeMetric = Literal["cider", "bleu", "rouge-l", "vqa", "exact"]
# Of an export: eval/export/options.py says what they mean.
FormatName = Literal["llava", "sharegpt", "openai-chat", "dpo", "hf-dataset", "webdataset", "coco-captions"]
Select = Literal["best", "all", "top-n", "distinct", "threshold"]
Dedupe = Literal["none", "pairs", "texts", "near"]
Keep = Literal["loop", "length", "empty"]
SplitBy = Literal["perceptual", "pixels"]
ImageFormat = Literal["keep", "png"]


@dataclass(frozen=True)
class Quantization:
    """Weights of some parts of a model in fewer bits.

    Args:
        type: int8: a byte a weight, one scale a row, and activations in bytes too (Dettmers et al. 2022,
            arXiv:2208.07339, without its outliers). nf4: 4 bits a weight, one scale for every 64 (Dettmers
            et al. 2023, arXiv:2305.14314).
        parts: language, vision: the two experts of the language model. vit: the vision tower.
    """

    type: QuantizationType
    parts: tuple[QuantizedPart, ...] = get_args(QuantizedPart)

    def __post_init__(self) -> None:
        if self.type not in get_args(QuantizationType):
            raise ValueError(
                f"quantization is {self.type!r}: expected {', '.join(get_args(QuantizationType))}"
            )
        known = get_args(QuantizedPart)
        if not self.parts or not set(self.parts) <= set(known):
            raise ValueError(f"parts is {list(self.parts)}: expected some of {', '.join(known)}")
        # One order, so that equal settings are equal.
        object.__setattr__(self, "parts", tuple(part for part in known if part in self.parts))


@dataclass(frozen=True)
class PortfolioMember:
    """One way of asking within a portfolio.

    Args:
        prompt: what to ask, {prompt} standing for the request's own; None asks that.
        share: of num_candidates (of pool_size with a selector), relative to the other members'.
        params: fields of GenerationParams that differ from the portfolio's own, strategy first of all.
    """

    prompt: str | None = None
    share: float = 1.0
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GenerationParams:
    """How candidates are generated.

    Args:
        num_candidates: k, candidates asked for per request.
        strategy: how tokens are chosen: docs/strategies.md.
        temperature: above 0; logits are divided by it.
        top_p: in (0, 1]; 1 keeps all.
        top_k: 0 keeps all.
        min_p: in [0, 1]; drops tokens below that share of the most probable one.
        typical_p: in (0, 1]; keeps the tokens nearest to the expected information, up to that mass; 1 keeps
            all (Meister et al. 2022, arXiv:2202.00666).
        eta_cutoff: in [0, 1); drops tokens below a floor that falls with the entropy; 0 keeps all (Hewitt et
            al. 2022, arXiv:2210.15191).
        repetition_penalty: above 0; probabilities of generated tokens are raised to this power; 1 leaves them
            alone (after Keskar et al. 2019, arXiv:1909.05858).
        no_repeat_ngram_size: no generated n-gram of that size comes twice; 0 allows all.
        num_beams: beams that beam and diverse-beam keep; null: num_candidates.
        length_penalty: beams are ranked by log-probability / tokens to this power.
        beam_score: sat ranks beams by SAT's own length normalisation.
        num_beam_groups: groups of diverse-beam.
        diversity_penalty: of diverse-beam: nats for a token that another group has just taken.
        branch_length: tokens that branch draws without replacement before it samples.
        pool_size: candidates drawn for the selector; null: 4 x num_candidates.
        selector: chooses num_candidates of the pool: docs/strategies.md; null: no pool.
        similarity: of two texts, for selectors.
        embedding_model: local model2vec directory, for similarity embedding.
        quality: what selectors go by; logprob: the model's, per token; support: how far other draws agree.
        quality_weight: in [0, 1]; how much selectors care for quality rather than diversity.
        resample_loops: how often a candidate that runs in a loop is drawn anew.
        portfolio: of strategy portfolio: its members, a list of {prompt, share, params}, which share
            num_candidates.
        strategy_options: for strategies and selectors of other packages, which check them.
        max_new_tokens: end token included.
        min_new_tokens: no end token before that many.
        ignore_eos: the end token is an ordinary token; every candidate has max_new_tokens.
        seed: any integer; with the request's id it fixes every random number.
        deterministic: same candidates alone or in any company, bit for bit, on the same machine.
        return_token_ids: false leaves token_ids empty.
    """

    num_candidates: int = 1
    strategy: str = "sample"
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    eta_cutoff: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    num_beams: int | None = None
    length_penalty: float = 1.0
    beam_score: BeamScore = "length"
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    branch_length: int = 3
    pool_size: int | None = None
    selector: str | None = None
    similarity: Similarity = "ngram"
    embedding_model: str | None = None
    quality: Quality = "logprob"
    quality_weight: float = 0.5
    resample_loops: int = 0
    portfolio: tuple[PortfolioMember, ...] = ()
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    max_new_tokens: int = 128
    min_new_tokens: int = 0
    ignore_eos: bool = False
    seed: int = 0
    deterministic: bool = True
    return_token_ids: bool = True


@dataclass(frozen=True)
class GenerationRequest:
    """One image and prompt with an id.

    Args:
        id: names the request in its output and, with the seed, fixes its random numbers.
        image: path, URL, encoded bytes or PIL image; None for a text-only request.
        prompt: the question or instruction, without template.
        history: earlier (query, answer) turns.
        params: overrides the call-wide params for this request.
        tag: anything; comes back unchanged in the output, for callers whose ids may repeat.
    """

    id: str
    image: str | os.PathLike[str] | bytes | Image | None
    prompt: str
    history: tuple[tuple[str, str], ...] = ()
    params: GenerationParams | None = None
    tag: object = None


@dataclass(frozen=True)
class Candidate:
    """One of the k answers.

    cumulative_logprob is in nats, under the model before warpers; like num_tokens and token_ids it counts
    the end token, which text leaves out. weight: inverse inclusion weight, where the strategy defines one.
    score: of a selector or beam. lane: the random stream it was drawn from. source: prompt variant, strategy.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    cumulative_logprob: float
    num_tokens: int
    finish_reason: FinishReason
    weight: float | None = None
    score: float | None = None
    lane: int | None = None
    flags: tuple[str, ...] = ()
    source: str | None = None


@dataclass(frozen=True)
class RequestError:
    """Why a request has no candidates; the same three fields as the Parquet column `error`."""

    stage: Stage
    type: str
    message: str


@dataclass(frozen=True)
class RequestOutput:
    """The candidates of one request, or its error.

    seconds: its share of the time that the engine worked: its own prefill, of every step the part that its
    rows are of all rows decoded, and the choice of its candidates. So shares add up, and overlap nowhere.
    """

    id: str
    candidates: tuple[Candidate, ...] = ()
    error: RequestError | None = None
    num_prompt_tokens: int = 0
    seconds: float = field(default=0.0, compare=False)
    tag: object = field(default=None, compare=False)


@dataclass(frozen=True)
class JudgeOptions:
    """What candidates are judged by.

    Args:
        checker: `module:function`, called as function(text, row). row: the item's carried columns, and id,
            prompt, image (path or URL), input_file, input_row. Returns a bool (correct or not), a number
            (higher is better), or an object with `score` and, where it has them, `correct` and `content`,
            which is equal for texts that say the same.
        references: a carried column with a text, a list of texts, or such a list as JSON.
        metric: how a candidate is compared with its references.
        threshold: from which score a candidate is correct; None: where the checker or metric says so
            itself (a bool, vqa and exact from 1).

    Raises ValueError: both or neither of checker and references, an unknown metric, or a threshold
    that is no number.
    """

    checker: str | None = None
    references: str | None = None
    metric: JudgeMetric = "cider"
    threshold: float | None = None

    def __post_init__(self) -> None:
        if (self.checker is None) == (self.references is None):
            raise ValueError("expected a checker or a column of references, one of the two")
        if self.metric not in get_args(JudgeMetric):
            raise ValueError(f"metric is {self.metric!r}: expected {', '.join(get_args(JudgeMetric))}")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold is {self.threshold}, expected a finite number")
