"""What happens to requests, told once. Layer: observability.

The one idea: metrics, the windows behind /stats and the trace are three views of the same events; whoever
serves a request tells its events to one RequestRecord, and the engine its steps to the Recorder (it is an
`llm.observer.EngineObserver`), so the views cannot disagree.

Tokens are counted where they are made: by the steps of an engine in this process, or, for a model behind
somebody's API, when the answer is complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from agent_runtime.llm.base import Result, Sampling
from agent_runtime.observability import tracing
from agent_runtime.observability.metrics import Metrics
from agent_runtime.state import Activity
from agent_runtime.stats import EngineFacts, Latency, Percentiles, Rates
from agent_runtime.windows import Quantiles, Rate

_REFUSALS = frozenset({401, 403, 429, 503})
_PERCENTILES = (0.5, 0.95, 0.99)


class Recorder:
    """Counts what happens in this process. The EngineObserver's methods are for the engine's thread, all
    others for the event loop; so every window has one writer and needs no lock."""

    def __init__(
        self,
        metrics: Metrics,
        model: str,
        *,
        remote: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`model` is the served name; `remote` when another process generates."""
        self.metrics, self.model, self.remote = metrics, model, remote
        self.clock = clock
        self.restarts = self.rows_recomputed = self.out_of_memory_splits = 0
        self._prompt_tokens, self._generated_tokens = Rate(), Rate()
        self._requests, self._failures, self._refused = Rate(), Rate(), Rate()
        self._first_token, self._inter_token, self._end_to_end = Quantiles(), Quantiles(), Quantiles()

    def request(self, operation: tracing.Operation, sampling: Sampling, prompt_tokens: int) -> RequestRecord:
        """A request that arrived now; it has been understood and its prompt counted."""
        span = tracing.generation(operation, self.model, sampling, remote=self.remote)
        return RequestRecord(self, operation, prompt_tokens, span)

    def error_answered(self, status: int, code: str) -> None:
        """An answer that is an error, by its HTTP status and code, or one within a stream; once for each."""
        self.metrics.refused(code)
        if status in _REFUSALS:
            self._refused.add(1, self.clock())
        elif status >= 500:
            self._failures.add(1, self.clock())

    # ------------------------------------------------------------ EngineObserver

    def started(self, rows: int, positions: int, padded: int, seconds: float) -> None:
        """The engine read the prompts of a batch."""
        self.metrics.started(rows, positions, padded, seconds)

    def stepped(self, rows: int, seconds: float) -> None:
        """Each of so many rows made one token."""
        self.metrics.stepped(rows, seconds)
        self._generated_tokens.add(rows, self.clock())

    def recomputed(self, rows: int, out_of_memory: bool) -> None:
        """A step failed; its rows are computed again."""
        self.metrics.recomputed(rows, out_of_memory)
        self.rows_recomputed += rows
        self.out_of_memory_splits += out_of_memory

    def restarted(self) -> None:
        """The engine's thread was replaced."""
        self.metrics.restarted()
        self.restarts += 1

    def scored(self, candidates: int, seconds: float) -> None:
        """Candidates were scored."""
        self.metrics.scored(candidates, seconds)

    # ------------------------------------------------------------ views

    def rates(self) -> Rates:
        """Of the last ten seconds."""
        now = self.clock()
        return Rates(
            window_seconds=self._requests.seconds,
            prompt_tokens=_rounded(self._prompt_tokens.per_second(now)),
            generated_tokens=_rounded(self._generated_tokens.per_second(now)),
            requests=_rounded(self._requests.per_second(now)),
            failures=_rounded(self._failures.per_second(now)),
            refused=_rounded(self._refused.per_second(now)),
        )

    def latency(self) -> Latency:
        """Of the last minute."""
        now = self.clock()
        return Latency(
            window_seconds=self._end_to_end.seconds,
            first_token=_percentiles(self._first_token, now),
            inter_token=_percentiles(self._inter_token, now),
            end_to_end=_percentiles(self._end_to_end, now),
        )

    def engine(self, activity: Activity, steps: int) -> EngineFacts:
        """The engine's progress and its troubles so far."""
        self.metrics.steps_are(steps)
        return EngineFacts(
            steps=steps,
            busy=activity.running,
            idle_seconds=round(activity.idle_seconds, 3),
            restarts=self.restarts,
            rows_recomputed=self.rows_recomputed,
            out_of_memory_splits=self.out_of_memory_splits,
        )

    # ------------------------------------------------------------ from RequestRecord

    def first(self, seconds: float, prompt_tokens: int) -> None:
        """A request's first piece."""
        self.metrics.first_token(seconds, prompt_tokens)
        now = self.clock()
        self._prompt_tokens.add(prompt_tokens, now)
        self._first_token.add(seconds, now)

    def next(self, seconds: float, tokens: int) -> None:
        """A request's further piece: so many tokens, each so many seconds after the one before."""
        self.metrics.next_tokens(seconds, tokens)
        self._inter_token.add(seconds, self.clock(), tokens)

    def succeeded(self, latency: float, per_token: float | None, unseen: int, generated: int) -> None:
        """An answer is complete. `per_token` is its mean seconds per token after the first, of which
        `unseen` were not sent as pieces of their own."""
        now = self.clock()
        self._requests.add(1, now)
        self._end_to_end.add(latency, now)
        if per_token is not None and unseen > 0:
            self._inter_token.add(per_token, now, unseen)
        if self.remote:
            self._generated_tokens.add(generated, now)
            self.metrics.generated(generated)

    def unsuccessful(self) -> None:
        """A request ended without a complete answer."""
        self._requests.add(1, self.clock())


class RequestRecord:
    """One request being answered, with one choice or several. The first of `finished`, `failed` and
    `aborted` counts, so `aborted` may stand in a `finally`."""

    def __init__(
        self, recorder: Recorder, operation: tracing.Operation, prompt_tokens: int, span: tracing.Span
    ) -> None:
        self._recorder, self._operation, self._prompt_tokens = recorder, operation, prompt_tokens
        self.span = span
        self._arrived = recorder.clock()
        self._scheduled: float | None = None
        self._first: float | None = None
        self._last: dict[int, float] = {}
        self._gaps = 0
        self._told = self._over = False

    def scheduled(self) -> None:
        """It has a place: it waits no longer."""
        self._scheduled = self._recorder.clock()

    def piece(self, choice: int = 0, tokens: int = 1) -> None:
        """A piece of one of the answers came, of so many tokens."""
        now = self._recorder.clock()
        if self._first is None:
            self._first = now
        before = self._last.get(choice)
        if before is not None:
            self._tell_first()
            self._gaps += tokens
            self._recorder.next((now - before) / tokens, tokens)
        self._last[choice] = now

    def first_token(self, at: float) -> None:
        """When the engine made the first token, by the same clock; for answers that come in one piece."""
        if not self._told:
            self._first = at
            self._tell_first()

    def finished(self, result: Result) -> None:
        """The answer is complete; `result` has the tokens of all choices together."""
        if self._end():
            return
        now, recorder = self._recorder.clock(), self._recorder
        scheduled = self._arrived if self._scheduled is None else self._scheduled
        if self._first is None:  # an empty answer: its end is the first that was heard of it
            self._first = now
        timed = self._told  # by a second piece or by the engine; one piece alone tells nothing of its tokens
        self._tell_first()
        first, latency = self._first - self._arrived, now - self._arrived
        choices = max(1, len(self._last))
        later = result.completion_tokens - choices
        per_token = choices * (now - self._first) / later if later > 0 and timed else None
        recorder.succeeded(latency, per_token, later - self._gaps, result.completion_tokens)
        metrics = recorder.metrics
        metrics.ended(self._operation, result.finish_reason, latency)
        metrics.answered(self._operation, first, per_token)
        metrics.request_tokens(result.prompt_tokens, result.completion_tokens, self._operation)
        metrics.request_phases(scheduled - self._arrived, self._first - scheduled, now - self._first, latency)
        tracing.generated(
            self.span, model=recorder.model, finish_reason=result.finish_reason,
            input_tokens=result.prompt_tokens, output_tokens=result.completion_tokens, first_chunk=first,
        )  # fmt: skip
        self.span.end()

    def failed(self, code: str) -> None:
        """It ended with an error of this code. Before it had a place, that is a refusal and no failure."""
        self._unsuccessful("error" if self._scheduled is not None else None, code)

    def aborted(self) -> None:
        """The client left."""
        self._unsuccessful("abort", "client_disconnected")

    def _tell_first(self) -> None:
        """Told with the second piece: one alone may be the whole answer, long after its first token."""
        if not self._told and self._first is not None:
            self._told = True
            self._recorder.first(self._first - self._arrived, self._prompt_tokens)

    def _unsuccessful(self, reason: str | None, code: str) -> None:
        if self._end():
            return
        self._tell_first()
        if reason is not None:
            self._recorder.unsuccessful()
        latency = self._recorder.clock() - self._arrived
        self._recorder.metrics.ended(self._operation, reason, latency, code)
        self.span.fail(code)
        self.span.end()

    def _end(self) -> bool:
        """Whether it was over already; it is now."""
        over, self._over = self._over, True
        return over


def _percentiles(values: Quantiles, now: float) -> Percentiles:
    found = values.at(_PERCENTILES, now)
    if found is None:
        return Percentiles()
    p50, p95, p99 = (_rounded(value) for value in found)
    return Percentiles(count=values.count(now), p50=p50, p95=p95, p99=p99)


def _rounded(value: float) -> float:
    """Four digits: the record is compact, and the sketch is no more exact."""
    return float(f"{value:.4g}")
