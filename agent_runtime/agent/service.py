"""What callers of the agent can do. Layer: agent, shell.

The one idea: every caller (HTTP, A2A, the façade) uses the same few verbs, and each verb checks first whose
run or session it is. The parts: `request` says whether a run may begin, `live` drives it, `journal` and
`follow` tell of it, `sessions` keeps it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

from agent_runtime.agent import errors
from agent_runtime.agent.commands import Answered
from agent_runtime.agent.driver import Admit, Driver, Save, Summarize, unlimited
from agent_runtime.agent.environment import Environment
from agent_runtime.agent.follow import Followers
from agent_runtime.agent.journal import RunEvent, events
from agent_runtime.agent.live import LiveRuns
from agent_runtime.agent.observer import AgentObserver, NoObserver
from agent_runtime.agent.request import ANYBODY, Caller, RunRequest, spec_for
from agent_runtime.agent.run import Run, new_run
from agent_runtime.agent.sessions import Session, Sessions
from agent_runtime.agent.store import Store
from agent_runtime.agent.tools.registry import ToolRegistry
from agent_runtime.contract import AgentConfig, Parameters
from agent_runtime.llm.base import Backend
from agent_runtime.llm.chat import Message, with_system_prompt
from agent_runtime.observability import tracing
from agent_runtime.stats import AgentFacts

MAX_LIVE_RUNS = 64
APPROVAL_SECONDS = 3600.0
POLL_SECONDS = 1.0
IDLE_SECONDS = 15.0


class AgentService:
    """An agent's runs and sessions; lives on the event loop."""

    def __init__(
        self,
        backend: Backend,
        registry: ToolRegistry,
        store: Store,
        config: AgentConfig,
        *,
        name: str = "agent",
        model: str = "",
        parameters: Callable[[], Parameters] = Parameters,
        observer: AgentObserver | None = None,
        admit: Admit = unlimited,
        charge: Callable[[str | None, int], None] = lambda owner, tokens: None,
        summarize: Summarize | None = None,
        max_live_runs: int = MAX_LIVE_RUNS,
        approval_seconds: float = APPROVAL_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`name` and `model` are for metrics and traces; `parameters` gives those in force at each run;
        `admit` waits for the right to use the model, and `charge` is told whose run used how many tokens."""
        self.registry, self.config, self.name = registry, config, name
        self._backend, self._store, self._parameters = backend, store, parameters
        self._observer = observer or NoObserver()
        self._admit, self._summarize = admit, summarize
        self._approval_seconds, self._clock = approval_seconds, clock
        self._sessions = Sessions(store, clock)
        self._followers = Followers()
        self._live = LiveRuns(
            self._make_driver,
            store,
            sessions=self._sessions,
            followers=self._followers,
            max_live_runs=max_live_runs,
            clock=clock,
            observer=self._observer,
            charge=charge,
            span=lambda run: tracing.invoke_agent(name, model, run.id, run.session_id),
        )
        self._tool_waits = 0
        self._closers: list[Callable[[], Awaitable[None]]] = []

    async def start(self) -> None:
        """Connects the tools, and begins to look after runs that nobody drives."""
        await self.registry.__aenter__()
        self._live.start()

    @property
    def store(self) -> Store:
        """Where runs, sessions and whatever belongs to them are kept."""
        return self._store

    def on_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Something that builds on the agent and must be closed before it."""
        self._closers.append(closer)

    async def close(self) -> None:
        """Ends or gives away what runs here; closes tools and store."""
        for closer in self._closers:
            await closer()
        await self._live.close()
        await self.registry.__aexit__(None, None, None)
        await self._store.close()

    async def drained(self, seconds: float) -> bool:
        """Waits until no run is driven here, at most this long; whether that is so."""
        return await self._live.idle(seconds)

    def facts(self) -> AgentFacts:
        """What /stats tells of runs and tools, of this process."""
        waiting = self._live.waiting
        return AgentFacts(
            runs_live=len(self._live) + waiting, awaiting_approval=waiting, tool_waits=self._tool_waits
        )

    async def begin(self, request: RunRequest, caller: Caller = ANYBODY, run_id: str | None = None) -> Run:
        """Begins a run and returns at once. Raises AgentError."""
        self._live.require_room()
        spec = spec_for(
            request,
            caller,
            config=self.config,
            parameters=self._parameters(),
            capabilities=self._backend.capabilities,
            tools=self.registry.snapshot(),
            down=self.registry.unavailable,
            approval_seconds=self._approval_seconds,
        )
        history = await self._history(request.session_id, caller)
        before = with_system_prompt(history, self.config.system_prompt)
        run = new_run(
            run_id or f"run_{uuid.uuid4().hex}", spec, (*before, *request.messages), self._clock(),
            owner=caller.name, session_id=request.session_id, metadata=request.metadata, given=len(before),
            background=request.background,
        )  # fmt: skip
        return await self._live.begin(run)

    async def wait(self, run_id: str, caller: Caller = ANYBODY) -> Run:
        """The run once it has ended or waits for a person. Raises AgentError when there is none."""
        async for _ in self.follow(run_id, caller, until_approval=True, text=False):
            pass
        return await self.get(run_id, caller)

    async def get(self, run_id: str, caller: Caller = ANYBODY) -> Run:
        """The run as it is now. Raises AgentError when there is none, or it is another key's."""
        run = await self._live.get(run_id)
        if run.owner != caller.name and not caller.admin:
            raise errors.run_not_found(run_id)
        return run

    async def follow(
        self,
        run_id: str,
        caller: Caller = ANYBODY,
        *,
        after: int = 0,
        until_approval: bool = False,
        text: bool = True,
    ) -> AsyncIterator[RunEvent | str]:
        """The events after number `after` as they come and, with `text`, pieces of the text being generated,
        until the run ends. An empty piece comes when nothing happened for a while. Raises AgentError.
        """
        follower = self._followers.join(run_id, text)
        try:
            run = await self.get(run_id, caller)
            told, quiet = len(events(run)), 0.0
            while True:
                for event in events(run)[after:told]:
                    yield event
                    after = event.number
                over = run.ended or (until_approval and run.status == "awaiting_approval")
                if over and told >= len(events(run)):
                    return
                seconds = IDLE_SECONDS if run_id in self._live else POLL_SECONDS
                news, heard = await follower.next(seconds)
                quiet = 0.0 if heard else quiet + seconds
                if isinstance(news, str):
                    yield news
                    continue
                run = await self.get(run_id, caller)
                told = len(events(run)) if news is None else news
                if quiet >= IDLE_SECONDS:
                    yield ""
        finally:
            self._followers.leave(run_id, follower)

    async def answer(
        self, run_id: str, call_id: str, approve: bool, reason: str | None, caller: Caller = ANYBODY
    ) -> Run:
        """Approves or denies a call; the run goes on. Raises AgentError, ConflictError when somebody was
        faster."""
        run = await self.get(run_id, caller)
        if run.awaited is None or run.status != "awaiting_approval":
            raise errors.not_awaiting(run_id, run.status)
        if run.awaited.id != call_id:
            raise errors.call_not_awaiting(call_id, run.awaited.id)
        return await self._live.go_on(run, Answered(call_id, approve, caller.name, reason))

    async def cancel(self, run_id: str, caller: Caller = ANYBODY) -> Run:
        """Ends the run; one that has ended stays as it is. Raises AgentError."""
        return await self._live.cancel(await self.get(run_id, caller))

    async def session(self, session_id: str, caller: Caller = ANYBODY) -> Session:
        """The session. Raises AgentError."""
        return await self._sessions.get(session_id, caller.name)

    async def forget_session(self, session_id: str, caller: Caller = ANYBODY) -> None:
        """Deletes the session. Raises AgentError."""
        await self._sessions.delete(session_id, caller.name)

    async def _history(self, session_id: str | None, caller: Caller) -> tuple[Message, ...]:
        if session_id is None:
            return ()
        session = await self._sessions.find(session_id, caller.name)
        return () if session is None else session.messages

    def _make_driver(
        self, run: Run, save: Save, changed: Callable[[Run], None], delta: Callable[[str], None]
    ) -> Driver:
        tools = self.registry.snapshot()
        offered = {tool.name: tools[tool.name] for tool in run.spec.tools if tool.name in tools}
        return Driver(
            self._backend,
            Environment(offered, self._observer, self._waits),
            save,
            changed=changed,
            delta=delta,
            watched=lambda: self._followers.watch_text(run.id),
            admit=self._admit,
            summarize=self._summarize,
            max_input_tokens=self._parameters().max_input_tokens,
            observer=self._observer,
            clock=self._clock,
        )

    def _waits(self, change: int) -> None:
        self._tool_waits += change
