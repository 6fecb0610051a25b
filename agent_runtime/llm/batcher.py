"""Computes many answers at once, rows coming and going between steps. Layer: llm; one thread, torch below.

The one idea: a turn of the engine starts what waits, chooses a token for every row, says it, and makes one
step; whatever fails in between costs the caches, never the answers. Rows whose step failed are started
again from their own tokens in halves, so one that cannot work ends up alone and fails alone.

transformers' `generate` computes a batch that nobody can join or leave, its continuous batching is for
decoder-only models on paged attention; the turn below serves every model that `generate` serves.
"""

from __future__ import annotations

import gc
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from agent_runtime.llm.base import GenerationError
from agent_runtime.llm.decoder import Cohort, Decoder
from agent_runtime.llm.memory import Budget, is_out_of_memory
from agent_runtime.llm.observer import EngineObserver, Silent
from agent_runtime.llm.row import Row
from agent_runtime.llm.sampling import choose
from agent_runtime.llm.schedule import Situation, Waiting, may_share, plan
from agent_runtime.llm.supervised import LostError, SupervisedThread
from agent_runtime.progress import Progress

log = logging.getLogger("agent_runtime.engine")

START_TOKENS = 8192
"""Padded positions read in one start: bounds how long running rows wait for newcomers."""
PROBATION = 8
"""Steps that rows started after a failure make by themselves before others may share their cache."""
COMPANY_SECONDS = 0.01
"""Longest wait of newcomers for each other before they interrupt rows that run, unless configured."""
UNLIMITED = 2**62


@dataclass(slots=True, eq=False)
class _Batch:
    cohort: Cohort
    rows: list[Row]
    probation: int = 0

    @property
    def cells(self) -> int:
        return len(self.rows) * self.cohort.positions


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], Any]
    done: Future[Any]


@dataclass(frozen=True, slots=True)
class _Retry:
    rows: list[Row]
    memory: bool


class Batcher:
    """The engine of one local model. `submit`, `run`, `configure` and `close` may be called from any thread;
    `flush` is called from the engine's thread after each turn and hands on what rows emitted."""

    def __init__(
        self,
        decoder: Decoder,
        progress: Progress,
        *,
        max_rows: int,
        wait: float | None,
        flush: Callable[[], None],
        on_crash: Callable[[BaseException], None],
        observer: EngineObserver | None = None,
    ) -> None:
        self._decoder, self._progress = decoder, progress
        self._flush, self._on_crash = flush, on_crash
        self._observer: EngineObserver = observer or Silent()
        self.configure(max_rows, wait)
        self._inbox: queue.SimpleQueue[Row | _Job | None] = queue.SimpleQueue()
        self._waiting: list[Row] = []
        self._jobs: deque[_Job] = deque()
        self._retries: deque[_Retry] = deque()
        self._starting: list[Row] = []
        self._batches: list[_Batch] = []
        self._budget = Budget()
        self._closed = False
        self._thread = SupervisedThread("engine", self._turn, self._resume, self._give_up)
        self._thread.start()

    # ------------------------------------------------------------ from any thread

    def configure(self, max_rows: int, wait: float | None) -> None:
        """Rows computed at once, and the longest wait for company in seconds; None chooses: with nothing
        running, a row that can join later need not wait for others to start with."""
        self.max_rows = max_rows
        self._wait_idle = (0.0 if self._decoder.may_join else 0.005) if wait is None else wait
        self._wait_busy = COMPANY_SECONDS if wait is None else wait

    def submit(self, row: Row) -> None:
        """Starts the row as soon as there is room."""
        self._progress.begin()
        self._inbox.put(row)
        if self._thread.lost:
            self._abandon()

    def run(self, work: Callable[[], Any]) -> Future[Any]:
        """Does other work with the model, between two turns."""
        job = _Job(work, Future())
        self._progress.begin()
        self._inbox.put(job)
        return job.done

    def wake(self) -> None:
        """Something changed that the engine should look at, a cancelled row for example."""
        self._inbox.put(None)

    def close(self) -> None:
        """Fails every row at the next turn, and every later one."""
        self._closed = True
        self.wake()

    def stop(self) -> None:
        """Ends the thread after its turn, answering nobody any more: for whoever owns the batcher alone."""
        self._thread.stop()
        self.wake()
        self._thread.join()

    @property
    def rows(self) -> int:
        """Rows being computed now."""
        return sum(len(batch.rows) for batch in self._batches)

    # ------------------------------------------------------------ when the thread dies

    def _resume(self, error: BaseException) -> None:
        """In the dying thread: its rows are started again by the next one."""
        rows = [row for row in self._started_rows() if not row.done]
        self._batches, self._starting = [], []
        if rows:
            self._retries.append(_Retry(rows, memory=False))
            self._observer.recomputed(len(rows), False)
        self._observer.restarted()

    def _give_up(self, error: BaseException) -> None:
        self._abandon()
        self._on_crash(error)

    def _abandon(self) -> None:
        """Nobody computes any more: whatever waits is told so."""
        crashed = GenerationError("the engine crashed; the server restarts", retry_after=5)
        self._receive(block=False)
        for row in self._every_row():
            self._end(row, crashed)
        while self._jobs:
            self._jobs.popleft().done.set_exception(crashed)
        self._flush()

    def _started_rows(self) -> list[Row]:
        # A row is in two places while its thread is between them, and must not be started twice.
        return list(dict.fromkeys([*(row for batch in self._batches for row in batch.rows), *self._starting]))

    def _every_row(self) -> list[Row]:
        return [
            *self._started_rows(),
            *(row for retry in self._retries for row in retry.rows),
            *self._waiting,
        ]

    # ------------------------------------------------------------ one turn

    def _turn(self) -> None:
        wait = self._start_waiting()
        self._share()
        for batch in list(self._batches):
            self._advance(batch)
        if self._jobs:
            self._do(self._jobs.popleft())
        self._flush()
        self._budget = self._budget.after_turn()
        idle = not (self._batches or self._jobs or self._retries or (self._waiting and wait is None))
        self._receive(block=idle, seconds=wait)
        self._drop_unwanted()

    def _receive(self, block: bool, seconds: float | None = None) -> None:
        try:
            while True:
                item = self._inbox.get(timeout=seconds) if block else self._inbox.get_nowait()
                block = False
                if isinstance(item, Row):
                    self._waiting.append(item)
                elif item is not None:
                    self._jobs.append(item)
        except queue.Empty:
            return

    def _drop_unwanted(self) -> None:
        """Rows that nobody waits for, that are out of time, or all of them when the server closes."""
        now = time.monotonic()
        for row in self._every_row():
            if row.cancelled:
                self._end(row, GenerationError("cancelled", "cancelled"))
            elif self._closed:
                self._end(row, GenerationError("the server is shutting down; retry", "server_draining"))
            elif row.deadline is not None and now >= row.deadline:
                self._end(row, GenerationError("the request's deadline has passed", "deadline_exceeded"))
        self._waiting = [row for row in self._waiting if not row.done]
        self._retries = deque(
            _Retry(rows, retry.memory)
            for retry in self._retries
            if (rows := [row for row in retry.rows if not row.done])
        )
        for batch in list(self._batches):
            self._thin(batch)

    def _end(self, row: Row, error: GenerationError) -> None:
        if not row.done:
            row.fail(error)
            self._progress.end()

    # ------------------------------------------------------------ starting rows

    def _start_waiting(self) -> float | None:
        """Starts what is due; seconds until more may be, or None."""
        while self._retries and self._may_retry(self._retries[0]):
            retry = self._retries.popleft()
            self._start(retry.rows, probation=PROBATION)
        if not self._waiting or self._retries:
            return None
        now = time.monotonic()
        start = plan(
            Situation(
                waiting=[Waiting(row.tokens, now - row.arrived) for row in self._waiting],
                running=self.rows,
                capacity=self.max_rows,
                wait=self._wait_busy if self.rows else self._wait_idle,
                max_tokens=START_TOKENS,
            )
        )
        chosen = [self._waiting[number] for number in start.rows]
        if chosen and self._budget.fits(self._cells(), _cells(chosen)):
            taken = set(start.rows)
            self._waiting = [row for number, row in enumerate(self._waiting) if number not in taken]
            self._start(chosen)
        return start.look_again

    def _may_retry(self, retry: _Retry) -> bool:
        return not retry.memory or self._budget.fits(self._cells(), _cells(retry.rows))

    def _cells(self) -> int:
        return sum(batch.cells for batch in self._batches)

    def _start(self, rows: list[Row], probation: int = 0) -> None:
        for row in rows:
            row.starts += 1
        if not self._decoder.may_join and len({len(row.ids) for row in rows}) > 1:
            # Positions of such a model are those of the cache, so only rows of one age go together.
            for age in {len(row.ids) for row in rows}:
                self._start([row for row in rows if len(row.ids) == age], probation)
            return
        begun = time.monotonic()
        self._starting = rows
        try:
            cohort = self._decoder.start(
                [row.prompt for row in rows], [row.ids for row in rows], self._progress.advance
            )
        except Exception as error:
            self._recover(rows, error, _cells(rows))
        else:
            self._batches.append(_Batch(cohort, rows, probation))
            needed = sum(row.tokens for row in rows)
            self._observer.started(len(rows), needed, _cells(rows), time.monotonic() - begun)
        self._starting = []

    # ------------------------------------------------------------ making tokens

    def _advance(self, batch: _Batch) -> None:
        begun, cells, made = time.monotonic(), self._cells(), len(batch.rows)
        try:
            self._choose(batch)
            self._flush()
            if self._thin(batch):
                self._decoder.step(batch.cohort, [row.ids[-1] for row in batch.rows])
        except Exception as error:
            self._batches.remove(batch)
            self._recover(batch.rows, error, cells)
            return
        self._progress.advance()
        batch.probation = max(0, batch.probation - 1)
        self._observer.stepped(made, time.monotonic() - begun)

    def _choose(self, batch: _Batch) -> None:
        """Gives every row its next token, from the newest logits."""
        choices = choose(
            batch.cohort.last,
            [row.sampler for row in batch.rows],
            [row.ids for row in batch.rows],
            self._decoder.eos,
        )
        now = time.monotonic()
        for row, choice in zip(batch.rows, choices, strict=True):
            if isinstance(choice, GenerationError):
                self._end(row, choice)
                continue
            row.accept(choice, self._decoder.eos, now)
            if row.done:
                self._progress.end()

    def _thin(self, batch: _Batch) -> bool:
        """Takes finished rows out of the batch; False when none is left and the batch is gone."""
        stay = [number for number, row in enumerate(batch.rows) if not row.done]
        if not stay:
            self._batches.remove(batch)
            return False
        if len(stay) < len(batch.rows):
            self._decoder.keep(batch.cohort, stay)
            batch.rows = [batch.rows[number] for number in stay]
        return True

    def _share(self) -> None:
        """Puts cohorts together, so that one step serves more rows."""
        if not self._decoder.may_join:
            return
        most = self._budget.positions or UNLIMITED
        ready = [batch for batch in self._batches if batch.probation == 0]
        for other in ready[1:]:
            for batch in ready:
                if batch is other:
                    break
                if batch.rows and may_share(
                    len(batch.rows), batch.cohort.positions, len(other.rows), other.cohort.positions, most
                ):
                    self._join(batch, other)
                    break

    def _join(self, batch: _Batch, other: _Batch) -> None:
        try:
            self._decoder.join(batch.cohort, other.cohort)
        except Exception as error:
            cells = self._cells()
            self._batches = [kept for kept in self._batches if kept not in (batch, other)]
            self._recover([*batch.rows, *other.rows], error, cells)
            batch.rows = other.rows = []
            return
        batch.rows = [*batch.rows, *other.rows]
        self._batches.remove(other)
        other.rows = []

    # ------------------------------------------------------------ when it fails

    def _recover(self, rows: Sequence[Row], error: Exception, cells: int) -> None:
        """Starts the rows again in halves; a row that failed alone has failed."""
        memory = is_out_of_memory(error)
        if memory:
            self._budget = self._budget.after_failure(cells)
            _release_memory()
        live = [row for row in rows if not row.done]
        log.warning(
            "a step failed: %s", error, exc_info=error if len(live) == 1 and not memory else None,
            extra={"fields": {"rows": len(live), "out_of_memory": memory}},
        )  # fmt: skip
        if len(live) == 1 and not (memory and self._batches):
            self._end(live[0], _failure(error, memory))
            self._check_engine()
            return
        half = -(-len(live) // 2)
        self._retries.extend(_Retry(part, memory) for part in (live[:half], live[half:]) if part)
        self._observer.recomputed(len(live), memory)

    def _check_engine(self) -> None:
        """One token, alone: a request may be at fault, but a device in an error state (CUDA's errors are
        sticky) is everybody's."""
        try:
            self._decoder.start([[0]], [[]], self._progress.advance)
        except Exception as error:
            raise LostError from error

    # ------------------------------------------------------------ other work

    def _do(self, job: _Job) -> None:
        try:
            if not job.done.set_running_or_notify_cancel():
                return
            job.done.set_result(job.work())
        except Exception as error:
            if is_out_of_memory(error):
                _release_memory()
            job.done.set_exception(error)
        finally:
            self._progress.advance()
            self._progress.end()


def _cells(rows: Sequence[Row]) -> int:
    return len(rows) * max((row.tokens for row in rows), default=0)


def _failure(error: Exception, memory: bool) -> GenerationError:
    if memory:
        return GenerationError("the request needs more memory than there is; shorten it", "out_of_memory")
    return GenerationError(f"{type(error).__name__}: {error}")


def _release_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
