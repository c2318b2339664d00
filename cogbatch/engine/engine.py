"""k candidates per request from one prefill each: continuous batching over a stream of requests.

No files but the model directory, no Ray. Requests are prepared ahead in threads (intake), prefilled one by
one, and their rows decoded together; an item leaves when its last row ends, and the next takes its place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from cogbatch.decoding.params import check_params
from cogbatch.engine.allocation import is_out_of_memory
from cogbatch.engine.answer import Answer
from cogbatch.engine.cache import ItemCache, Prefix
from cogbatch.engine.flight import Flight, Images
from cogbatch.engine.intake import Intake
from cogbatch.engine.item import Item
from cogbatch.engine.loading import load_model, pick_device
from cogbatch.engine.memory import MAX_ROWS, cached_tokens_that_fit
from cogbatch.engine.prompts import Picture, Prompt, Task, prepare
from cogbatch.engine.runner import Runner
from cogbatch.images import DEFAULT_LIMITS, ImageLimits
from cogbatch.model.directory import load_tokenizer
from cogbatch.model.modeling_cogvlm import CogVLMForCausalLM
from cogbatch.types import (
    GenerationParams,
    GenerationRequest,
    Quantization,
    QuantizationType,
    RequestError,
    RequestOutput,
)

Prepared = tuple[GenerationRequest, Task | RequestError]

_PREPARE_AHEAD = 8
_PREPARE_THREADS = 4


class Engine:
    """A loaded model that turns requests into candidates.

    Args:
        model: in its final dtype and on its device. tokenizer: has encode, decode and a length.
        template_version: a name of config.json; None is the model's own.
        num_threads: torch threads while it generates; None leaves them alone.
        max_rows: rows decoded together; a new item starts while its rows fit. The first always does.
        max_cached_tokens: bounds keys and values held at once, images and prompts and new tokens of all rows;
            None: what fits in the memory that is free now.
        memory_share: of the device's memory that is this engine's.
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
        max_rows: int = MAX_ROWS,
        max_cached_tokens: int | None = None,
        memory_share: float = 1.0,
        image_limits: ImageLimits = DEFAULT_LIMITS,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._runner = Runner(model)
        self._num_threads = num_threads
        if max_cached_tokens is None:
            max_cached_tokens = cached_tokens_that_fit(model, max_rows=max_rows, share=memory_share)
        self._max_cached_tokens = max_cached_tokens
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
        quantization: Quantization | QuantizationType | None = None,
        device: str = "auto",
        tokenizer: str | Path | None = None,
        template_version: str | None = None,
        num_threads: int | None = None,
        max_rows: int = MAX_ROWS,
        max_cached_tokens: int | None = None,
        memory_share: float = 1.0,
        image_limits: ImageLimits = DEFAULT_LIMITS,
        on_progress: Callable[[int], None] | None = None,
    ) -> Engine:
        """An engine from a model directory; runs no code out of it.

        Args:
            dtype: float32, float16, bfloat16, or auto (the directory's own). device: cpu, cuda, cuda:N, auto.
            quantization: of weights; a type alone is for all parts.
            tokenizer: directory of the tokenizer when model_dir has none.
            num_threads, max_rows, max_cached_tokens, memory_share, image_limits, on_progress: as in Engine.

        Raises:
            CheckpointError: the directory or its tokenizer is not what it should be.
            ValueError: quantization that does not work with this dtype or device.
        """
        directory = Path(model_dir)
        if isinstance(quantization, str):
            quantization = Quantization(quantization)
        model = load_model(directory, dtype=dtype, device=pick_device(device), quantization=quantization)
        if max_cached_tokens is None:
            max_cached_tokens = cached_tokens_that_fit(
                model, max_rows=max_rows, share=memory_share, quantization=quantization
            )
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
        flight = Flight(max_rows=self._max_rows, max_cached_tokens=self._max_cached_tokens)
        waiting: deque[Prepared] = deque()
        try:
            while True:
                yield from self._admit(intake, waiting, flight)
                if not flight.answers:
                    return
                was_alone = len(flight.answers) == 1
                # Not the answers: a name for one would keep its keys and values alive.
                for request, task in [(starved.request, starved.task) for starved in self._step(flight)]:
                    if was_alone:
                        yield self._refused(request, self._too_large(task))
                    else:
                        waiting.append((request, task))
                yield from (answer.output(self._tokenizer) for answer in flight.take_finished())
        finally:
            intake.close()

    def _admit(
        self, intake: Intake[GenerationRequest, Task | RequestError], waiting: deque[Prepared], flight: Flight
    ) -> Iterator[RequestOutput]:
        """Starts what is there to start and has room; yields outputs of requests that cannot be answered.

        Waits for requests only when there is nothing to decode. What waits is tried before what comes.
        """
        while waiting or not flight.answers or intake.ready:
            if not waiting:
                try:
                    coming = next(intake, None)
                except Exception:  # of the source: what is in flight is finished first
                    if flight.answers:
                        return
                    raise
                if coming is None:
                    return
                waiting.append(coming)
            request, task = waiting[0]
            if isinstance(task, Task) and not flight.has_room_for(task):
                return
            waiting.popleft()
            if isinstance(task, RequestError):
                yield self._refused(request, task)
                continue
            try:
                flight.answers.append(self._start(request, task, flight.images))
                if flight.answers[-1].is_done:  # with its first tokens: it need not wait for others
                    return
            except Exception as problem:
                if not is_out_of_memory(problem):
                    raise
                if flight.answers:
                    flight.shrink()
                    waiting.appendleft((request, task))
                    return
                yield self._refused(request, self._too_large(task))

    def _refused(self, request: GenerationRequest, error: RequestError) -> RequestOutput:
        self._on_progress(0)
        return RequestOutput(id=request.id, error=error, tag=request.tag)

    def _prepare(self, request: GenerationRequest, params: GenerationParams) -> Task | RequestError:
        return prepare(
            request,
            params,
            tokenizer=self._tokenizer,
            config=self._runner.config,
            template_version=self._template_version,
            image_limits=self._image_limits,
        )

    def _start(self, request: GenerationRequest, task: Task, images: Images) -> Answer:
        """Prefills the prompts of a request and lets their strategies choose the first tokens."""
        started = time.perf_counter()
        items: list[Item] = []
        for index, prompt in enumerate(task.prompts):
            prefix = self._prefill(prompt, task.picture, images)
            cache = ItemCache(self._runner.geometry, prefix, max_new_tokens=prompt.part.params.max_new_tokens)
            logprobs = self._runner.first_logprobs(prefix)
            # Members of a portfolio that ask the same must not draw the same.
            stream = f"{request.id}\x00{index}" if index else request.id
            item = Item(prompt, cache, logprobs, end_ids=self._end_ids, seed=task.params.seed, stream=stream)
            self._on_progress(item.start())
            if item.is_starved:
                raise MemoryError("memory ran out while the first tokens were chosen")
            items.append(item)
        return Answer(request, task, items, end_ids=self._end_ids, seconds=time.perf_counter() - started)

    def _prefill(self, prompt: Prompt, picture: Picture | None, images: Images) -> Prefix:
        """The image first and the text behind it, in two passes, whether or not a neighbour shares the image:
        so the numbers are the same either way."""
        if picture is None:
            return self._runner.prefill_text(prompt.ids, prompt.token_types)
        image = images.get(picture, lambda: self._runner.prefill_image(prompt.ids[0], picture.pixels))
        if image.length == len(prompt.ids):
            return image
        return self._runner.prefill_text(prompt.ids, prompt.token_types, behind=image)

    def _step(self, flight: Flight) -> list[Answer]:
        """Decodes one token of every row; returns answers that had to leave because memory ran out."""
        items = flight.running
        if not items:  # all ended with their first tokens
            return []
        began, rows = time.perf_counter(), [answer.num_rows for answer in flight.answers]
        try:
            logprobs = self._runner.decode(
                [token for item in items for token in item.last_tokens],
                [item.cache for item in items],
                deterministic=any(item.prompt.part.params.deterministic for item in items),
            )
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
            return [flight.take_last()]
        proposals = [item.propose(own) for item, own in zip(items, logprobs, strict=True)]
        read = torch.cat(proposals, dim=1).tolist()  # the one time in a step that the device is waited for
        chosen, start = 0, 0
        for item, proposal in zip(items, proposals, strict=True):
            end = start + proposal.shape[1]
            chosen += item.accept([row[start:end] for row in read])
            start = end
        self._on_progress(chosen)
        spent_s = time.perf_counter() - began
        for answer, own in zip(flight.answers, rows, strict=True):
            answer.seconds += spent_s * own / sum(rows)
        return flight.take_starved()

    def _too_large(self, task: Task) -> RequestError:
        tokens = task.own_tokens + (task.picture.num_tokens if task.picture else 0)
        return RequestError(
            stage="generate",
            type="OutOfMemoryError",
            message=f"memory ran out on {self._runner.device} with this request alone, which may need "
            f"{tokens} tokens of keys and values: lower max_new_tokens or num_candidates, or use a device "
            "with more memory (cogbatch plan says what fits)",
        )
