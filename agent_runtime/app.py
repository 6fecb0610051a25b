"""Puts the parts together: routes, loading, serving, draining. Layer: app; imports api and llm, no torch.

The one idea: the server answers probes from its first second, because everything slow (importing torch,
loading, generating) happens in other threads. Told as `Runtime.run`, top-down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent_runtime.api import errors, probes
from agent_runtime.api.openai_chat import chat_completions
from agent_runtime.api.openai_completions import completions
from agent_runtime.api.service import ClientGoneError, Service, Serving
from agent_runtime.contract import FailureCode, RuntimeConfig, TerminationReport
from agent_runtime.drain import InFlight
from agent_runtime.lifecycle import Lifecycle
from agent_runtime.llm.base import Engine, Sampling
from agent_runtime.llm.failures import LoadError
from agent_runtime.llm.pool import EnginePool
from agent_runtime.middleware import RequestMiddleware
from agent_runtime.observability.logging import redact
from agent_runtime.observability.metrics import Metrics
from agent_runtime.state import State

log = logging.getLogger("agent_runtime")

EngineFactory = Callable[[RuntimeConfig, Callable[[str, float], None]], Engine]

CANCEL_SECONDS = 2.0
"""After the drain bound: how long cancelled requests have to send their last bytes."""
CLOSE_SECONDS = 3
"""How long uvicorn may take to close connections once nothing is in flight."""


def load_engine(config: RuntimeConfig, on_phase: Callable[[str, float], None]) -> Engine:
    """The engine for this configuration. Blocks; raises LoadError."""
    from agent_runtime.llm.load import load_seq2seq

    loaded = load_seq2seq(config.model, config.gpu_requested, on_phase)
    from agent_runtime.llm.seq2seq import Seq2SeqEngine

    return Seq2SeqEngine(loaded)


def build_app(service: Service, in_flight: InFlight) -> ASGIApp:
    """The HTTP application; `service` may still be without a model."""
    app = Starlette(
        routes=[
            Route("/health/startup", probes.startup),
            Route("/health/ready", probes.ready),
            Route("/health/live", probes.live),
            Route("/metrics", probes.exposition),
            Route("/v1/models", probes.models),
            Route("/v1/models/{model:path}", probes.model),
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
        ],
        exception_handlers={
            errors.ApiError: _api_error,
            HTTPException: _http_error,
            ClientGoneError: _client_gone,
            Exception: _defect,
        },
    )
    app.state.service = service
    return RequestMiddleware(app, in_flight)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.ApiError)  # noqa: S101 - Starlette dispatches by class
    request.state.error_code = error.code
    request.app.state.service.metrics.refused(error.code)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return await _api_error(request, errors.http_error(status, request.method, request.url.path))


async def _client_gone(request: Request, error: Exception) -> Response:
    # Nobody reads it; 499 is what proxies log for it.
    return Response(status_code=499)


async def _defect(request: Request, error: Exception) -> Response:
    return await _api_error(request, errors.internal())


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: draining decides when it stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Runtime:
    """One process serving one model."""

    def __init__(self, config: RuntimeConfig, factory: EngineFactory) -> None:
        self.config = config
        self._factory = factory
        self.metrics = Metrics(config.model.served_name)
        self.lifecycle = Lifecycle(on_enter=self.metrics.entered)

    def run(self, listener: socket.socket) -> TerminationReport | None:
        """Serve on a bound socket until SIGTERM; None, or the report of why serving ended."""
        return asyncio.run(self._run(listener))

    async def _run(self, listener: socket.socket) -> TerminationReport | None:
        self._loop = asyncio.get_running_loop()
        self._in_flight = InFlight()
        self._service = Service(self.config, self.metrics, lambda: self.lifecycle.status)
        self._end: asyncio.Future[TerminationReport | None] = self._loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        server = _Server(
            uvicorn.Config(
                build_app(self._service, self._in_flight),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        threading.Thread(target=self._load, name="loader", daemon=True).start()
        report = await self._end
        if report is None:
            await self._drain()
        server.should_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(serving, CLOSE_SECONDS + CANCEL_SECONDS)
        return report

    def _stop(self, name: str) -> None:
        """A signal came: readiness is false from now on."""
        self.lifecycle.move(State.DRAINING, f"{name} received")
        self._finish(None)

    def _finish(self, report: TerminationReport | None) -> None:
        if not self._end.done():
            self._end.set_result(report)

    def _fail(self, report: TerminationReport) -> None:
        """From any thread: this process cannot serve any more."""
        self.lifecycle.move(State.FAILED, f"{report.code}: {report.message}")
        self._loop.call_soon_threadsafe(self._finish, report)

    def _load(self) -> None:
        """In the loader's thread: from nothing to READY."""
        try:
            self.lifecycle.move(State.LOADING, f"loading {self.config.model.uri}")
            started = time.monotonic()
            engine = self._factory(self.config, self.metrics.loaded)
            self.lifecycle.move(State.WARMING, "generating a first token")
            warm = time.monotonic()
            engine.generate(engine.encode("Hello"), Sampling(max_tokens=4))
            self.metrics.loaded("warmup", time.monotonic() - warm)
            log.info(
                "model loaded", extra={"fields": {"seconds": round(time.monotonic() - started, 3),
                "warmup_seconds": round(time.monotonic() - warm, 3), "device": engine.info.device,
                "dtype": engine.info.dtype, "architecture": engine.info.architecture,
                "parameters": engine.info.parameters}},
            )  # fmt: skip
            self._loop.call_soon_threadsafe(self._open, engine)
        except LoadError as failure:
            log.error("loading failed", exc_info=failure.__cause__)
            self._fail(failure.report)
        except BaseException as error:
            log.exception("loading crashed")
            self._fail(crash_report(error, "starting"))

    def _open(self, engine: Engine) -> None:
        """On the event loop: the model is loaded and warm."""
        pool = EnginePool(engine, self.config.parameters.max_concurrency, self._crashed)
        self._service.serving = Serving(engine, pool, int(time.time()))
        self.lifecycle.move(State.READY, "serving")

    def _crashed(self, error: BaseException) -> None:
        log.critical("the engine crashed", exc_info=error)
        self._fail(crash_report(error, "generating"))

    async def _drain(self) -> None:
        """Wait for the requests in flight, then stop those that are left."""
        seconds, count = self.config.drain_seconds, self._in_flight.count
        log.info("draining", extra={"fields": {"in_flight": count, "drain_seconds": seconds}})
        if await self._in_flight.wait_idle(seconds):
            log.info("drained", extra={"fields": {"in_flight": 0}})
            return
        log.warning("drain bound reached", extra={"fields": {"in_flight": self._in_flight.count}})
        if self._service.serving is not None:
            self._service.serving.pool.close()
        await self._in_flight.wait_idle(CANCEL_SECONDS)


def crash_report(error: BaseException, doing: str) -> TerminationReport:
    """The report of a defect, with the error's own words, redacted."""
    return TerminationReport(
        code=FailureCode.INTERNAL,
        message=f"The runtime crashed while {doing}: {type(error).__name__}: {redact(str(error))[:800]}",
        remedy="See the log of the previous container; the pod is restarted by Kubernetes.",
    )
