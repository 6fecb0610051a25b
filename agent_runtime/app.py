"""Puts the parts together: loading, serving on two ports, draining. Layer: app; no torch.

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
import uvloop
from starlette.routing import Route
from starlette.types import ASGIApp

from agent_runtime.access.gate import open_gate
from agent_runtime.agent.build import build_agent
from agent_runtime.agent.service import AgentService
from agent_runtime.api.a2a import a2a_routes
from agent_runtime.api.admin import Admin, admin_app
from agent_runtime.api.long_poll import Changes, LongPoll, Moment
from agent_runtime.api.service import Service, Serving
from agent_runtime.contract import FailureCode, RuntimeConfig, TerminationReport
from agent_runtime.drain import InFlight
from agent_runtime.http_head import BoundedHeadProtocol
from agent_runtime.lifecycle import Lifecycle
from agent_runtime.llm import open as opening
from agent_runtime.llm.base import Backend
from agent_runtime.llm.failures import LoadError
from agent_runtime.llm.open import Opening, open_backend
from agent_runtime.observability.logging import redact
from agent_runtime.parameters import LiveParameters
from agent_runtime.routes import build_app, guarded, probe_routes
from agent_runtime.state import State
from agent_runtime.telemetry import Telemetry

log = logging.getLogger("agent_runtime")

BackendFactory = Callable[[RuntimeConfig, Opening], Backend]

CANCEL_SECONDS = 2.0
"""After the drain bound: how long cancelled requests have to send their last bytes."""
CLOSE_SECONDS = 3
"""How long uvicorn may take to close connections once nothing is in flight."""
LOCAL = "local"
"""Namespace of a runtime that was started by hand."""
KEEP_ALIVE_SECONDS = 75
"""Longer than common proxies keep idle connections (60 s), so that they and not we close them."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: draining decides when it stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: ASGIApp) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=BoundedHeadProtocol,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
    )


class Runtime:
    """One process serving one model."""

    def __init__(
        self, config: RuntimeConfig, factory: BackendFactory = open_backend, started: float | None = None
    ) -> None:
        """`started` is when the process began, in seconds of `time.monotonic`; None is now."""
        self.config = config
        self._factory = factory
        self.telemetry = Telemetry(config, started)
        self._changes = Changes()
        self._wake: Callable[[], object] = lambda: None
        self.lifecycle = Lifecycle(on_enter=self._entered)

    def run(self, listener: socket.socket, admin_listener: socket.socket) -> TerminationReport | None:
        """Serve on two bound sockets until SIGTERM; None, or the report of why serving ended."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._run(listener, admin_listener))

    async def _run(self, listener: socket.socket, admin_listener: socket.socket) -> TerminationReport | None:
        self._loop = loop = asyncio.get_running_loop()
        self._wake = lambda: loop.call_soon_threadsafe(self._changes.tell)
        self._end: asyncio.Future[TerminationReport | None] = self._loop.create_future()
        self._in_flight = InFlight()
        parameters = LiveParameters(self.config.parameters)
        self._service = Service(
            self.config,
            self.telemetry.recorder,
            lambda: self.lifecycle.status,
            parameters,
            open_gate(self.config.access),
            on_load=self._changes.tell,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        self._app = build_app(self._service)
        servers = {
            _server(guarded(self._app, self._service, self._in_flight)): listener,
            _server(self._admin_app(parameters)): admin_listener,
        }
        serving = [asyncio.create_task(server.serve(sockets=[own])) for server, own in servers.items()]
        threading.Thread(target=self._load, name="loader", daemon=True).start()
        report = await self._end
        if report is None:
            await self._drain()
        await self._close()
        self._changes.close()
        for server in servers:
            server.should_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*serving), CLOSE_SECONDS + CANCEL_SECONDS)
        return report

    def _admin_app(self, parameters: LiveParameters) -> ASGIApp:
        service, telemetry = self._service, self.telemetry
        app = admin_app(
            Admin(
                self.config.admin,
                parameters,
                telemetry.metrics.render,
                lambda: telemetry.stats(service),
                LongPoll(self._changes, self._moment),
                refresh=lambda: telemetry.refresh(service),
                gate=service.gate,
                routes=probe_routes(),
                on_change=telemetry.metrics.parameters_changed,
            )
        )
        app.state.service = service
        return app

    def _moment(self) -> Moment:
        load = self._service.admission.load
        return Moment(load.running + load.waiting, self.lifecycle.status.state.value, self._service.work())

    def _entered(self, state: State) -> None:
        """From any thread: a state was entered."""
        self.telemetry.metrics.entered(state)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody polls any more
            self._wake()

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

    # ------------------------------------------------------------ from nothing to READY

    def _load(self) -> None:
        """In the loader's thread."""
        startup = self.telemetry.startup
        try:
            startup.configured()
            self.lifecycle.move(State.LOADING, f"loading {self.config.model.uri}")
            started = time.monotonic()
            backend = self._factory(self.config, self._opening())
            startup.loaded()
            self.lifecycle.move(State.WARMING, "generating a first token")
            startup.warmed(opening.warm(backend))
            info = backend.info
            log.info(
                "model loaded", extra={"fields": {"seconds": round(time.monotonic() - started, 3),
                "device": info.device, "dtype": info.dtype, "architecture": info.architecture,
                "parameters": info.parameters}},
            )  # fmt: skip
            asyncio.run_coroutine_threadsafe(self._open(backend), self._loop).result()
        except LoadError as failure:
            log.error("loading failed", exc_info=failure.__cause__)
            self._fail(failure.report)
        except BaseException as error:
            log.exception("loading crashed")
            self._fail(crash_report(error, "starting"))

    def _opening(self) -> Opening:
        return Opening(
            loop=self._loop,
            on_phase=self.telemetry.startup.part,
            on_download=self.telemetry.download,
            on_weights=self.telemetry.weights,
            on_crash=self._crashed,
            observer=self.telemetry.recorder,
        )

    async def _open(self, backend: Backend) -> None:
        """On the event loop: the model is there; the agent around it begins."""
        service, live = self._service, self._service.live
        engine_parameters = ("max_concurrency", "max_batch_size", "batch_wait_milliseconds")
        live.subscribe("engine", engine_parameters, lambda new: opening.apply(backend, new))
        live.subscribe("metrics", live.live_fields, lambda new: self._describe_cache())
        agent = build_agent(
            self.config,
            backend,
            parameters=lambda: live.value,
            observer=self.telemetry.agents,
            admit=service.hold,
            charge=service.charge,
        )
        await agent.start()
        self.telemetry.metrics.tools_are(agent.registry.snapshot())
        self._app.router.routes.extend(self._a2a_routes(agent))
        service.serving = Serving(backend, int(time.time()), agent)
        self._describe_cache()
        self.telemetry.startup.ready()
        self.lifecycle.move(State.READY, "serving")

    def _a2a_routes(self, agent: AgentService) -> list[Route]:
        config = self.config
        local = config.namespace == LOCAL
        url = f"http://127.0.0.1:{config.port}" if local else f"http://{config.name}.{config.namespace}"
        return a2a_routes(
            agent,
            description=f"Agent {config.name}, answering with {config.model.uri}.",
            version=config.revision,
            base_url=url,
            secured=self._service.gate is not None,
        )

    def _describe_cache(self) -> None:
        value, serving = self._service.parameters, self._service.serving
        rows = serving.backend.rows()[1] if serving is not None else 0
        self.telemetry.metrics.cache_config(value.max_input_tokens + value.max_output_tokens, rows)

    def _crashed(self, error: BaseException) -> None:
        log.critical("the engine crashed", exc_info=error)
        self._fail(crash_report(error, "generating"))

    # ------------------------------------------------------------ from READY to the end

    async def _drain(self) -> None:
        """Wait for the requests and runs in flight, then stop those that are left."""
        seconds, count = self.config.drain_seconds, self._in_flight.count
        log.info("draining", extra={"fields": {"in_flight": count, "drain_seconds": seconds}})
        begun = time.monotonic()
        idle = await self._in_flight.wait_idle(seconds)
        serving = self._service.serving
        if serving is not None and serving.agent is not None:
            idle &= await serving.agent.drained(max(0.0, seconds - (time.monotonic() - begun)))
        if idle:
            log.info("drained", extra={"fields": {"in_flight": 0}})
            return
        log.warning("drain bound reached", extra={"fields": {"in_flight": self._in_flight.count}})
        if serving is not None:
            serving.backend.close()
        await self._in_flight.wait_idle(CANCEL_SECONDS)

    async def _close(self) -> None:
        serving = self._service.serving
        if serving is not None:
            if serving.agent is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(serving.agent.close(), CANCEL_SECONDS)
            serving.backend.close()
            await serving.backend.aclose()
        if self._service.gate is not None:
            self._service.gate.source.stop()


def crash_report(error: BaseException, doing: str) -> TerminationReport:
    """The report of a defect, with the error's own words, redacted."""
    return TerminationReport(
        code=FailureCode.INTERNAL,
        message=f"The runtime crashed while {doing}: {type(error).__name__}: {redact(str(error))[:800]}",
        remedy="See the log of the previous container; the pod is restarted by Kubernetes.",
    )
