"""What the runtime tells of itself: metrics, /stats, and what feeds them. Layer: app.

The one idea: `/metrics` and `/stats` read the same objects at the moment they are asked, so nothing is
copied about and the two never disagree.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent_runtime.contract import RuntimeConfig
from agent_runtime.llm.base import Backend
from agent_runtime.observability.agent_recorder import AgentRecorder
from agent_runtime.observability.gpu import GpuReader
from agent_runtime.observability.metrics import Metrics
from agent_runtime.observability.process import ProcessReader, process_facts
from agent_runtime.observability.recorder import Recorder
from agent_runtime.startup import Startup
from agent_runtime.stats import AgentFacts, DownloadFacts, LoadFacts, ModelFacts, Stats

if TYPE_CHECKING:
    from agent_runtime.api.service import Service
    from agent_runtime.llm.sources.progress import Download


class Telemetry:
    """The metrics of one process, and its record."""

    def __init__(self, config: RuntimeConfig, started: float | None = None) -> None:
        """`started` is when the process began, in seconds of `time.monotonic`; None is now."""
        self._config = config
        self._gpus, self._process = GpuReader(), ProcessReader()
        self._started = time.monotonic() if started is None else started
        self._phases: dict[str, float] = {}
        self._weights_read: float | None = None
        self.startup = Startup(self._started, self.phase)
        self._download: DownloadFacts | None = None
        served = config.model.served_name
        tools = [tool.name for tool in config.agent.tools]
        self.metrics = Metrics(served, tools=tools, gpus=self._gpus)
        self.recorder = Recorder(self.metrics, served, remote=config.model.remote is not None)
        self.agents = AgentRecorder(self.metrics, config.name)

    def phase(self, name: str, seconds: float) -> None:
        """A phase of start-up took so long. From any thread."""
        self._phases[name] = round(seconds, 3)
        self.metrics.loaded(name, seconds)

    def weights(self, share: float) -> None:
        """So much of the weights is in place, 0 to 1. From any thread."""
        self._weights_read = round(share, 3)

    def download(self, now: Download) -> None:
        """The model is on its way. From any thread."""
        self._download = DownloadFacts(
            source=now.repository,
            files=len(now.files),
            bytes_done=now.bytes_done,
            bytes_total=now.bytes_total,
            bytes_per_second=now.bytes_per_second,
            seconds=now.seconds,
        )

    def refresh(self, service: Service) -> None:
        """Sets the gauges of this moment."""
        self.metrics.load(_load(service))
        activity = service.activity()
        steps = service.serving.backend.progress.steps if service.serving is not None else 0
        self.recorder.engine(activity, steps)
        self._agent_facts(service)

    def _agent_facts(self, service: Service) -> AgentFacts:
        agent = service.serving.agent if service.serving is not None else None
        if agent is None:
            return AgentFacts()
        facts = agent.facts()
        return self.agents.facts(facts.runs_live, facts.awaiting_approval)

    def stats(self, service: Service) -> Stats:
        """The record GET /stats answers with."""
        status, config = service.status(), self._config
        backend = service.serving.backend if service.serving is not None else None
        return Stats(
            name=config.name,
            revision=config.revision,
            state=status.state.value,
            since=status.since,
            reason=status.reason,
            uptime_seconds=round(time.monotonic() - self._started, 3),
            model=_model(config, backend),
            load=_load(service),
            rates=self.recorder.rates(),
            latency=self.recorder.latency(),
            engine=self.recorder.engine(service.activity(), backend.progress.steps if backend else 0),
            process=process_facts(self._process.read(), self._gpus.read()),
            load_phases=dict(self._phases),
            weights_read=self._weights_read,
            download=self._download,
            agent=self._agent_facts(service),
            progress=service.work().value,
            parameters=service.parameters,
        )


def _load(service: Service) -> LoadFacts:
    load, serving = service.admission.load, service.serving
    rows, possible = serving.backend.rows() if serving is not None else (0, 0)
    return LoadFacts(
        running=load.running,
        waiting=load.waiting,
        queued_tokens=load.waiting_tokens,
        rows=rows,
        rows_possible=possible,
    )


def _model(config: RuntimeConfig, backend: Backend | None) -> ModelFacts:
    if backend is None:
        return ModelFacts(served_name=config.model.served_name)
    info = backend.info
    return ModelFacts(
        served_name=config.model.served_name,
        architecture=info.architecture,
        device=info.device,
        dtype=info.dtype,
        parameters=info.parameters,
        context=backend.limits.context,
    )
