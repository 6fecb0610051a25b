"""transformers' continuous batching, watched over. Layer: llm; torch and transformers.

The one idea: paged attention packs more answers into a GPU's memory than rectangles do, but its manager is
a single thread that one bad request kills together with everybody in flight, and it knows neither stop
strings nor seeds. So what it cannot do right it does not take (`takes`); that goes to the batcher. When it
dies, the answers it was making go on in the batcher, which isolates the culprit, and a new manager serves
what comes.

Tokens come back through the manager's queue and into the same `Row` the batcher fills, so text, stop
strings, limits and events are the same on both ways. The manager works on a second module whose weights are
the first one's: it switches the attention implementation of the module it is given.
"""

from __future__ import annotations

import copy
import logging
import math
import queue
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from agent_runtime.llm.base import GenerationError, Sampling
from agent_runtime.llm.observer import EngineObserver, Silent
from agent_runtime.llm.row import Row
from agent_runtime.llm.sampling import LEAST_TOP_P, Choice
from agent_runtime.progress import Progress

log = logging.getLogger("agent_runtime.engine")

LOOK_SECONDS = 0.02
"""How often cancelled, late and dead are looked for while no token comes."""
MEMORY_SHARE = 0.7
"""Share of the free device memory its cache may take; the rest is the batcher's."""
CPU_PAGES = 8
"""Pages of 256 positions for each row where there is no GPU."""
STOP_SECONDS = 5.0
DEATHS = 3
"""Managers that die one after another without a token between, after which the batcher answers everything:
a device without room for a cache kills each at once, and trying for ever costs those who are served."""


class PagedEngine:
    """Answers on paged attention. `submit`, `wake` and `close` may be called from any thread.

    `rescue` takes over the rows of a manager that died; `flush` hands on what rows emitted.
    """

    def __init__(
        self,
        model: Any,
        eos: frozenset[int],
        vocabulary: int,
        progress: Progress,
        *,
        max_rows: int,
        flush: Callable[[], None],
        rescue: Callable[[Row], None],
        observer: EngineObserver | None = None,
    ) -> None:
        self._model = sharing_weights(model)
        self._eos, self._vocabulary, self._progress = eos, vocabulary, progress
        self._flush, self._rescue = flush, rescue
        self._observer: EngineObserver = observer or Silent()
        self._max_rows = max_rows
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        self._number = 0
        self._closed = False
        self._deaths = 0
        self._given_up = False
        self.manager = self._new_manager()
        self._thread = threading.Thread(target=self._run, name="paged-engine", daemon=True)
        self._thread.start()

    def takes(self, sampling: Sampling, prompt_tokens: int = 0) -> bool:
        """Whether the manager would answer this request as it was asked; one that its cache cannot hold alone
        would kill it."""
        return not (
            self._given_up
            or prompt_tokens + sampling.max_tokens > self._room()
            or sampling.grammar is not None
            or sampling.top_logprobs is not None
            or sampling.logit_bias
            or sampling.presence_penalty
            or sampling.frequency_penalty
            or sampling.min_tokens
            or (not sampling.greedy and sampling.seed is not None)
        )

    def _room(self) -> float:
        """Positions its cache can hold; not known before the manager has made it."""
        processor = self.manager.batch_processor
        return math.inf if processor is None else processor.cache.max_tokens_read

    @property
    def rows(self) -> int:
        """Rows it works on now."""
        return len(self._rows)

    def submit(self, row: Row) -> None:
        """Starts the row."""
        self._progress.begin()
        sampling = row.sampling
        with self._lock:
            self._number += 1
            identity = f"row-{self._number}"
            self._rows[identity] = row
        row.starts += 1
        accepted = self.manager.add_request(
            row.prompt + row.ids,
            identity,
            max_new_tokens=sampling.max_tokens - len(row.ids),
            streaming=True,
            eos_token_id=-1 if sampling.ignore_eos or not self._eos else sorted(self._eos),
            **self._processors(sampling),
        )
        if accepted is None:  # it is dying or closed at this moment
            self._hand_over([identity])

    def _processors(self, sampling: Sampling) -> dict[str, Any]:
        """The row's own settings; neutral ones for a greedy row, which keeps its likeliest token alone."""
        if sampling.greedy:
            return {"temperature": 1.0, "top_k": 1, "top_p": 1.0}
        # A top_k above the vocabulary kills the manager's thread, and everybody's answers with it.
        top_k = min(sampling.top_k or self._vocabulary, self._vocabulary)
        top_p = max(sampling.top_p, LEAST_TOP_P)
        return {"temperature": sampling.temperature, "top_k": top_k, "top_p": top_p}

    def close(self) -> None:
        """Fails what runs, and ends both threads."""
        self._closed = True

    # ------------------------------------------------------------ the watching thread

    def _run(self) -> None:
        while not (self._closed or self._given_up):
            try:
                self._look()
            except Exception:
                log.exception("watching the paged engine failed")
                self._replace_manager()
        if self._given_up:
            return
        with self._lock:
            left = list(self._rows)
        for identity in left:
            self._end(identity, GenerationError("the server is shutting down; retry", "server_draining"))
        self._flush()
        _stop(self.manager)

    def _look(self) -> None:
        outputs = self.manager.output_router.output_queue
        try:
            output = outputs.get(timeout=LOOK_SECONDS)
            while True:
                self._take(output)
                output = outputs.get_nowait()
        except queue.Empty:
            pass
        self._drop_unwanted()
        self._flush()
        if not self.manager.is_running():
            log.error("the paged engine died: %s", self.manager.background_thread_status.fatal_error)
            self._replace_manager()

    def _take(self, output: Any) -> None:
        """Tokens that the manager made for one row since the last time."""
        row = self._rows.get(output.request_id)
        if row is None:
            return
        if output.error is not None:
            log.warning("the paged engine failed on a row: %s", output.error)
            self._hand_over([output.request_id])
            return
        now, fresh = time.monotonic(), output.generated_tokens[len(row.made_here) :]
        for token in fresh:
            row.made_here.append(token)
            row.accept(Choice(token), self._eos, now)
            self._progress.advance()
            if row.done:
                break
        if fresh:
            self._deaths = 0
        self._observer.stepped(len(fresh), 0.0)
        if row.done:
            if not output.is_finished():
                self.manager.cancel_request(output.request_id)
            self._forget(output.request_id)

    def _drop_unwanted(self) -> None:
        now = time.monotonic()
        with self._lock:
            current = list(self._rows.items())
        for identity, row in current:
            if row.cancelled:
                self._end(identity, GenerationError("cancelled", "cancelled"))
            elif row.deadline is not None and now >= row.deadline:
                self._end(identity, GenerationError("the request's deadline has passed", "deadline_exceeded"))

    def _end(self, identity: str, error: GenerationError) -> None:
        self.manager.cancel_request(identity)
        row = self._rows[identity]
        if not row.done:
            row.fail(error)
        self._forget(identity)

    def _forget(self, identity: str) -> None:
        with self._lock:
            self._rows.pop(identity, None)
        self._progress.end(stepped=False)  # tokens were counted when they came

    # ------------------------------------------------------------ when it dies

    def _replace_manager(self) -> None:
        self._deaths += 1
        self._observer.restarted()
        self._hand_over_all()
        _stop(self.manager)  # before the next one begins: it holds its share of the device's memory
        if self._deaths < DEATHS:
            self.manager = self._new_manager()
            return
        log.error("the paged engine died %d times without a token; the batcher answers everything", DEATHS)
        self._given_up = True
        self._hand_over_all()  # what came while it was stopped

    def _hand_over_all(self) -> None:
        with self._lock:
            orphans = list(self._rows)
        self._hand_over(orphans)

    def _hand_over(self, identities: list[str]) -> None:
        """The batcher goes on with these rows, from the tokens they have."""
        handed = []
        for identity in identities:
            with self._lock:
                row = self._rows.pop(identity, None)
            if row is not None and not row.done:
                handed.append(row)
        if handed:
            self._observer.recomputed(len(handed), False)
        for row in handed:
            self._rescue(row)
            self._progress.end()

    def _cache_size(self) -> dict[str, Any]:
        """On a GPU a share of what is free; on a CPU, whose memory is everybody's, pages for every row."""
        if self._model.device.type != "cpu":
            return {"max_memory_percent": MEMORY_SHARE}
        return {"num_blocks": self._max_rows * CPU_PAGES}

    def _new_manager(self) -> Any:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        manager = self._model.init_continuous_batching(
            # Settings that are neutral here would make no processor, and then no row could have its own.
            GenerationConfig(
                do_sample=True, temperature=0.5, top_k=1, top_p=0.5, eos_token_id=-1, max_new_tokens=16
            ),
            ContinuousBatchingConfig(
                **self._cache_size(),
                max_requests_per_batch=self._max_rows,
                per_request_processors=True,
            ),
        )  # fmt: skip
        manager.start()
        return manager


def sharing_weights(model: Any) -> Any:
    """A second module of the same class with the same tensors and a configuration of its own."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _stop(manager: Any) -> None:
    """Ends it and gives its memory back, of which the frames of what it died of would hold the most."""
    if (fatal := manager.background_thread_status.fatal_error) is not None:
        traceback.clear_frames(fatal.__traceback__)
    if manager._generation_thread is None:  # `stop` would only log that it was never started
        return
    try:
        manager.stop(block=True, timeout=STOP_SECONDS, hard_stop=True)
    except Exception as error:
        log.warning("stopping the paged engine failed: %s", error)
