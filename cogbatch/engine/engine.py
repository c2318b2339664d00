"""k candidates per request from one prefill each: continuous batching over a stream of requests.

No files but the model directory, no Ray. Requests are prepared ahead in threads (intake), prefilled one by
one, and their rows decoded together; an item leaves when its last row ends, and the next takes its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from cogbatch.decoding.params import check_params
from cogbatch.engine.answer import Answer
from cogbatch.engine.intake import Intake
from cogbatch.engine.item import Item
from cogbatch.engine.loading import load_model, pick_device
from cogbatch.engine.prompts import Task, prepare
from cogbatch.engine.runner import Runner
from cogbatch.images import DEFAULT_LIMITS, ImageLimits
from cogbatch.model.directory import load_tokenizer
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.types import GenerationParams, GenerationRequest, RequestError, RequestOutput

_PREPARE_AHEAD = 8
_PREPARE_THREADS = 4


class Engine:
    """A loaded model that turns requests into candidates.

    Args:
        model: in its final dtype and on its device. tokenizer: has encode, decode and a length.
        template_version: a name of config.json; None is the model's own.
        num_threads: torch threads while it generates; None leaves them alone.
        max_rows: rows decoded together; a new item starts while its rows fit. The first always does.
        max_cached_tokens: bounds keys and values held at once, prompts and new tokens of all rows; None: on
            CUDA what fits in four fifths of the memory that is free now, elsewhere no bound.
        image_limits: what an image may cost, and where it may be fetched from.
        on_progress: called with the number of tokens chosen after every prefill and step, with 0 after a
            request that became an error.
    """

    def __init__(
        self,
        model: CogVLMForCausalLM,
        tokenizer: Any,
        *,
        template_version: str | None = None,
        num_threads: int | None = None,
        max_rows: int = 64,
        max_cached_tokens: int | None = None,
        image_limits: ImageLimits = DEFAULT_LIMITS,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._runner = Runner(model)
        self._num_threads = num_threads
        self._max_cached_tokens = max_cached_tokens or self._runner.cached_tokens_that_fit()
        self._tokenizer = tokenizer
        self._template_version = template_version or model.config.template_version
        self._max_rows = max_rows
        self._image_limits = image_limits
        self._on_progress = on_progress or (lambda _: None)
        end = model.config.eos_token_id
        self._end_ids = frozenset([end] if isinstance(end, int) else end)

    @classmethod
    def from_pretrained(
        cls,
        model_dir: str | Path,
        *,
        dtype: str = "auto",
        device: str = "auto",
        tokenizer: str | Path | None = None,
        template_version: str | None = None,
        num_threads: int | None = None,
        max_rows: int = 64,
        max_cached_tokens: int | None = None,
        image_limits: ImageLimits = DEFAULT_LIMITS,
        on_progress: Callable[[int], None] | None = None,
    ) -> Engine:
        """An engine from a model directory; runs no code out of it.

        Args:
            dtype: float32, float16, bfloat16, or auto (the directory's own). device: cpu, cuda, cuda:N, auto.
            tokenizer: directory of the tokenizer when model_dir has none.
            num_threads, max_rows, max_cached_tokens, image_limits, on_progress: as in Engine.

        Raises:
            CheckpointError: the directory or its tokenizer is not what it should be.
        """
        directory = Path(model_dir)
        model = load_model(directory, dtype=dtype, device=pick_device(device))
        return cls(
            model,
            load_tokenizer(Path(tokenizer) if tokenizer is not None else directory),
            template_version=template_version,
            num_threads=num_threads,
            max_rows=max_rows,
            max_cached_tokens=max_cached_tokens,
            image_limits=image_limits,
            on_progress=on_progress,
        )

    def generate(
        self, requests: Iterable[GenerationRequest], params: GenerationParams | None = None
    ) -> Iterator[RequestOutput]:
        """Outputs as they finish, one per request; a bad request yields an output with an error.

        Args:
            requests: any iterable, pulled lazily, in threads; it may wait for more work while others are
                decoded. What it raises is raised here, after the outputs of what it gave before.
            params: for requests without their own; None means the defaults.

        Raises:
            ValueError: params are invalid; before the first output.
        """
        params = params or GenerationParams()
        check_params(params)
        return self._stream(requests, params)

    def _stream(
        self, requests: Iterable[GenerationRequest], params: GenerationParams
    ) -> Iterator[RequestOutput]:
        if self._num_threads is not None:  # a setting of the calling thread, so not at loading
            torch.set_num_threads(self._num_threads)
        intake = Intake(
            requests,
            lambda request: self._prepare(request, params),
            ahead=_PREPARE_AHEAD,
            threads=_PREPARE_THREADS,
        )
        answers: list[Answer] = []
        waiting: tuple[GenerationRequest, Task | RequestError] | None = None
        try:
            while True:
                # Wait for work only when there is nothing to decode.
                while waiting is not None or not answers or intake.ready:
                    if waiting is None:
                        try:
                            waiting = next(intake, None)
                        except Exception:  # of the source: what is in flight is finished first
                            if not answers:
                                raise
                    if waiting is None or not self._fits(waiting[1], answers):
                        break
                    started = self._start(*waiting)
                    waiting = None
                    if isinstance(started, RequestOutput):
                        yield started
                    else:
                        answers.append(started)
                if not answers:
                    return
                self._step([item for answer in answers for item in answer.running])
                yield from (answer.output(self._tokenizer) for answer in answers if answer.is_done)
                answers = [answer for answer in answers if not answer.is_done]
        finally:
            intake.close()

    def _fits(self, task: Task | RequestError, answers: list[Answer]) -> bool:
        """Whether a task can join what is being answered; the first always can."""
        if isinstance(task, RequestError) or not answers:
            return True
        rows = task.num_rows + sum(item.cache.num_rows for answer in answers for item in answer.running)
        cached = task.most_cached_tokens + sum(answer.task.most_cached_tokens for answer in answers)
        return rows <= self._max_rows and (
            self._max_cached_tokens is None or cached <= self._max_cached_tokens
        )

    def _prepare(self, request: GenerationRequest, params: GenerationParams) -> Task | RequestError:
        return prepare(
            request,
            params,
            tokenizer=self._tokenizer,
            config=self._runner.config,
            template_version=self._template_version,
            image_limits=self._image_limits,
        )

    def _start(self, request: GenerationRequest, task: Task | RequestError) -> Answer | RequestOutput:
        """Prefills the prompts of a request and lets their strategies choose the first tokens."""
        if isinstance(task, RequestError):
            self._on_progress(0)
            return RequestOutput(id=request.id, error=task, tag=request.tag)
        started = time.perf_counter()
        items: list[Item] = []
        for index, prompt in enumerate(task.prompts):
            cache, logprobs = self._runner.prefill(
                prompt.ids,
                prompt.token_types,
                task.pixels,
                max_new_tokens=prompt.part.params.max_new_tokens,
                same_image=items[0].cache if items else None,
            )
            # Members of a portfolio that ask the same must not draw the same.
            stream = f"{request.id}\x00{index}" if index else request.id
            item = Item(prompt, cache, logprobs, end_ids=self._end_ids, seed=task.params.seed, stream=stream)
            self._on_progress(item.start())
            items.append(item)
        return Answer(request, task, items, end_ids=self._end_ids, started=started)

    def _step(self, items: list[Item]) -> None:
        """Decodes one token of every row of the items."""
        if not items:
            return
        tokens = [token for item in items for token in item.state.tokens[:, -1].tolist()]
        logprobs = self._runner.decode(
            tokens,
            [item.cache for item in items],
            deterministic=any(item.prompt.part.params.deterministic for item in items),
        )
        chosen, start = 0, 0
        for item in items:
            end = start + item.cache.num_rows
            chosen += item.choose(logprobs[start:end])
            start = end
        self._on_progress(chosen)
