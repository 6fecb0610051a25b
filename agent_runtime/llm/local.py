"""A model in this process as a Backend. Layer: llm; torch and transformers below it.

The one idea: the event loop encodes, the engine's thread computes, and between them go rows one way and
events the other. What a request may ask is known when the model is loaded (`capabilities`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from agent_runtime.contract import ModelConfig, Parameters
from agent_runtime.llm.base import (
    ALL_GRAMMARS,
    Capabilities,
    Chat,
    Encoded,
    GenerationError,
    Limits,
    ModelInfo,
    Prompt,
    Sampling,
    Score,
)
from agent_runtime.llm.batcher import Batcher
from agent_runtime.llm.decoder import Decoder, Ids
from agent_runtime.llm.defaults import ModelDefaults
from agent_runtime.llm.generation import Event, LocalGeneration
from agent_runtime.llm.grammar import GrammarCompiler, GrammarUnavailableError
from agent_runtime.llm.memory import is_out_of_memory
from agent_runtime.llm.observer import EngineObserver
from agent_runtime.llm.paged import PagedEngine
from agent_runtime.llm.row import Row
from agent_runtime.llm.sampling import RowSampler, TokenMask
from agent_runtime.llm.scoring import until_end
from agent_runtime.llm.tokens import TokenCodec
from agent_runtime.progress import Progress

if TYPE_CHECKING:
    from agent_runtime.llm.load import LoadedModel

log = logging.getLogger("agent_runtime.engine")

WARM_TOKENS = 4


class LocalBackend:
    """Serves one loaded model from one event loop; the loop is the one of the first `generate` or `score`."""

    def __init__(
        self,
        loaded: LoadedModel,
        parameters: Parameters,
        on_crash: Callable[[BaseException], None] = lambda error: None,
        observer: EngineObserver | None = None,
        *,
        decoder: Decoder | None = None,
        paged: bool = False,
    ) -> None:
        """`paged` adds transformers' continuous batching, for decoder-only models. `decoder` replaces the
        family's own, for tests that need a misbehaving one."""
        self.progress = Progress()
        self.decoder = decoder or make_decoder(loaded)
        self.codec = TokenCodec(loaded.tokenizer)
        self.info = model_info(loaded)
        self._observer = observer
        self._defaults = ModelDefaults(loaded.model, loaded.kind == "seq2seq")
        self._grammars = self._grammar_compiler(loaded.tokenizer)
        self._compiling = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self.limits = Limits(self.decoder.context, self.decoder.vocabulary, self.decoder.shared_context)
        self.capabilities = Capabilities(
            chat_tools=self.codec.template_knows_tools,
            grammar=ALL_GRAMMARS if self._grammars is not None else frozenset(),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outbox: deque[tuple[LocalGeneration, Event]] = deque()
        self._handing_on = threading.Lock()
        self._generations: weakref.WeakSet[LocalGeneration] = weakref.WeakSet()
        self._closed = False
        self.batcher = Batcher(
            self.decoder,
            self.progress,
            max_rows=_rows(parameters),
            wait=_wait(parameters),
            flush=self._flush,
            on_crash=on_crash,
            observer=observer,
        )
        self.paged = self._paged_engine(loaded, parameters) if paged else None

    def _paged_engine(self, loaded: LoadedModel, parameters: Parameters) -> PagedEngine:
        return PagedEngine(
            loaded.model,
            self.decoder.eos,
            self.decoder.vocabulary,
            self.progress,
            max_rows=_rows(parameters),
            flush=self._flush,
            rescue=self.batcher.submit,
            observer=self._observer,
        )

    def _grammar_compiler(self, tokenizer: Any) -> GrammarCompiler | None:
        try:
            return GrammarCompiler(tokenizer, self.decoder.vocabulary, self.decoder.eos)
        except GrammarUnavailableError as why:
            log.info("structured output is not available: %s", why)
            return None

    # ------------------------------------------------------------ the protocol

    def encode(self, prompt: Prompt) -> Encoded:
        """The prompt's token ids. Raises GenerationError when the chat template refuses the conversation."""
        try:
            ids = tuple(self.codec.encode_prompt(prompt))
        except Exception as error:
            if isinstance(prompt, Chat) and self.codec.has_chat_template:
                why = f"the model's chat template refuses this conversation: {error}"
                raise GenerationError(why, "invalid_prompt") from error
            raise
        return Encoded(prompt, ids, len(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special ones left out."""
        return self.codec.decode(ids)

    def generate(
        self, encoded: Encoded, sampling: Sampling, deadline: float | None = None, *, stream: bool = True
    ) -> LocalGeneration:
        """Starts answering; a grammar is compiled beside the event loop first."""
        self._loop = asyncio.get_running_loop()
        generation = LocalGeneration()
        if self._closed:
            generation.fail(_draining())
            return generation
        self._generations.add(generation)

        def submit(mask: TokenMask | None) -> None:
            row = Row(
                encoded.ids or (),
                self._sampler(encoded, sampling, mask),
                self.codec,
                lambda row, event: self._outbox.append((generation, event)),
                arrived=time.monotonic(),
                deadline=deadline,
                stream=stream,
            )
            generation.started(lambda: setattr(row, "cancelled", True))
            paged = self.paged
            engine = paged if paged is not None and paged.takes(sampling, encoded.count) else self.batcher
            engine.submit(row)

        if sampling.grammar is None:
            submit(None)
        else:
            task = self._loop.create_task(self._with_grammar(generation, sampling, submit))
            generation.keep(task)
        return generation

    async def _with_grammar(
        self, generation: LocalGeneration, sampling: Sampling, submit: Callable[[TokenMask], None]
    ) -> None:
        try:
            if self._grammars is None or sampling.grammar is None:
                raise GenerationError("structured output is not available", "invalid_grammar")
            loop = asyncio.get_running_loop()
            submit(await loop.run_in_executor(self._compiling, self._grammars.matcher, sampling.grammar))
        except GenerationError as error:
            generation.deliver(error)
        except Exception as error:
            # Whoever reads must hear of it, and so must the slot that waits for the end.
            log.exception("a grammar could not be compiled")
            generation.deliver(GenerationError(f"{type(error).__name__}: {error}"))

    def _sampler(self, encoded: Encoded, sampling: Sampling, mask: TokenMask | None) -> RowSampler:
        processors = self._defaults.processors()
        prefix = self._defaults.prefix(encoded.ids or ()) if processors else ()
        return RowSampler(sampling, mask, processors, prefix)

    async def score(
        self, encoded: Encoded, candidates: Sequence[str], deadline: float | None = None
    ) -> list[Score]:
        """Exact scores in one teacher-forced pass over all candidates (see agent_runtime.llm.scoring)."""
        self._loop = asyncio.get_running_loop()
        ids = [until_end(self.codec.encode_plain(text), self.decoder.eos) for text in candidates]
        job = asyncio.wrap_future(self.batcher.run(lambda: self._score(encoded.ids or (), ids)))
        try:
            async with asyncio.timeout_at(None if deadline is None else _loop_time(deadline)):
                rows = await job
        except TimeoutError as error:
            raise GenerationError("the request's deadline has passed", "deadline_exceeded") from error
        except GenerationError:
            raise
        except Exception as error:
            memory = is_out_of_memory(error)
            log.warning("scoring failed: %s", error, exc_info=error)
            text = "the candidates need more memory than there is" if memory else f"scoring failed: {error}"
            raise GenerationError(text, "out_of_memory" if memory else "generation_failed") from error
        return [Score(text, tuple(row)) for text, row in zip(candidates, rows, strict=True)]

    def _score(self, prompt: Ids, candidates: Sequence[Ids]) -> list[list[float]]:
        """On the engine's thread; halves the candidates when memory runs out."""
        begun = time.monotonic()
        try:
            rows = self.decoder.score(prompt, candidates)
        except Exception as error:
            if len(candidates) < 2 or not is_out_of_memory(error):
                raise
            half = len(candidates) // 2
            return [*self._score(prompt, candidates[:half]), *self._score(prompt, candidates[half:])]
        if self._observer is not None:
            self._observer.scored(len(candidates), time.monotonic() - begun)
        return rows

    def rows(self) -> tuple[int, int]:
        """Rows being computed now, and how many may be at once."""
        return self.batcher.rows + (self.paged.rows if self.paged else 0), self.batcher.max_rows

    def close(self) -> None:
        """Ends every answer at its next step."""
        self._closed = True
        self.batcher.close()
        if self.paged is not None:
            self.paged.close()
        self._compiling.shutdown(wait=False, cancel_futures=True)

    async def aclose(self) -> None:
        """`close`, and ends what is left without the engine, which may hang; threads end by themselves."""
        self.close()
        for generation in list(self._generations):
            generation.fail(_draining())

    # ------------------------------------------------------------ for the runtime

    def apply(self, parameters: Parameters) -> None:
        """Takes changed parameters into use at the next turn."""
        self.batcher.configure(_rows(parameters), _wait(parameters))

    def warm(self) -> float:
        """Seconds from a prompt to its first token, after a first generation that loads what is loaded
        lazily. Blocks; call before the first request, not on the event loop."""
        prompt = self.codec.encode("Hello")

        def first_token() -> float:
            begun = time.monotonic()
            cohort = self.decoder.start([prompt], [[]], self.progress.advance)
            seconds = time.monotonic() - begun
            for _ in range(WARM_TOKENS):
                self.decoder.step(cohort, [int(cohort.last.argmax())])
            return seconds

        self.batcher.run(first_token).result()
        return float(self.batcher.run(first_token).result())

    def _flush(self) -> None:
        """From the engine's thread: hand over what was said in this turn."""
        if not self._outbox or self._loop is None:
            return
        with self._handing_on:  # two engines must not overtake each other with one row's events
            events = [self._outbox.popleft() for _ in range(len(self._outbox))]
            self._hand_on(events)

    def _hand_on(self, events: list[tuple[LocalGeneration, Event]]) -> None:
        assert self._loop is not None  # noqa: S101 - the caller looked
        try:
            self._loop.call_soon_threadsafe(_deliver, events)
        except RuntimeError:
            log.debug("the event loop is closed; %d events are nobody's", len(events))


def _draining() -> GenerationError:
    return GenerationError("the server is shutting down; retry", "server_draining")


def _deliver(events: list[tuple[LocalGeneration, Event]]) -> None:
    for generation, event in events:
        generation.deliver(event)


def _rows(parameters: Parameters) -> int:
    return parameters.max_batch_size or parameters.max_concurrency


def _wait(parameters: Parameters) -> float | None:
    milliseconds = parameters.batch_wait_milliseconds
    return None if milliseconds is None else milliseconds / 1000


def _loop_time(deadline: float) -> float:
    return asyncio.get_running_loop().time() + deadline - time.monotonic()


def wants_paged(loaded: LoadedModel, config: ModelConfig) -> bool:
    """Whether the model is served by transformers' continuous batching where that can.

    By itself only on a GPU: on a CPU the batcher made twice as many tokens a second (docs/benchmarks.md).
    """
    if config.batching != "auto":
        return config.batching == "paged" and loaded.kind == "causal"
    plain = config.quantization == "none"
    return loaded.kind == "causal" and loaded.device.startswith("cuda") and plain


def make_decoder(loaded: LoadedModel) -> Decoder:
    """The decoder of the model's family."""
    if loaded.kind == "seq2seq":
        from agent_runtime.llm.seq2seq import Seq2SeqDecoder

        return Seq2SeqDecoder(loaded.model, loaded.device)
    from agent_runtime.llm.causal import CausalDecoder

    return CausalDecoder(loaded.model, loaded.device)


def model_info(loaded: LoadedModel) -> ModelInfo:
    """Facts of a loaded model."""
    return ModelInfo(
        architecture=type(loaded.model).__name__,
        device=loaded.device,
        dtype=str(loaded.model.dtype).removeprefix("torch."),
        parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
    )


def load_backend(config: ModelConfig, parameters: Parameters | None = None) -> LocalBackend:
    """The model that `config` names, loaded and warm. Blocks; raises LoadError."""
    from agent_runtime.llm.load import load_model

    loaded = load_model(config)
    backend = LocalBackend(loaded, parameters or Parameters(), paged=wants_paged(loaded, config))
    backend.warm()
    return backend
