"""The runs that this process drives. Layer: agent, shell.

The one idea: a run belongs to the store, and a process only borrows it while it drives it. A claim that
expires keeps two processes from beginning, and the run's version stops one that was too slow to notice.
With the memory store the same code runs in one process.

What a process that died leaves behind depends on whose run it was. One that belongs to a request is
cancelled, as it is when its client leaves. One in the background, or one that waits for a person, is gone
on with by any replica, from its last checkpoint.

What a store that does not answer means depends on that too. A run that belongs to a request and has no
session goes on without checkpoints; one with a session is refused at the beginning, or fails at the end
with its result kept, because a lost message would be worse than an error. One in the background stops at
the first checkpoint that cannot be written, so that nothing it does could be done again, and goes on when
the store is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable

from agent_runtime.agent import errors
from agent_runtime.agent.commands import Cancelled, Command, Event, Resumed, Started, Tick
from agent_runtime.agent.driver import Driver, Save
from agent_runtime.agent.ending import failed
from agent_runtime.agent.errors import AgentError, ConflictError, StoreUnavailableError
from agent_runtime.agent.follow import Followers
from agent_runtime.agent.journal import events
from agent_runtime.agent.observer import AgentObserver
from agent_runtime.agent.run import Run, RunError
from agent_runtime.agent.sessions import Runs, Sessions
from agent_runtime.agent.store import Store
from agent_runtime.observability.tracing import Span

log = logging.getLogger("agent_runtime.agent")

CLAIM_SECONDS = 15.0
SWEEP_SECONDS = 5.0
CLOSE_SECONDS = 10.0
KEPT_UNSAVED = 256

MakeDriver = Callable[[Run, Save, Callable[[Run], None], Callable[[str], None]], Driver]
"""A driver of this run, given how to save it and whom to tell of changes and of pieces of text."""


class _Live:
    """A run that this process drives. `checkpoint` is what the store has, at version `saved`; `attempted`
    are later versions that were sent and of which nothing was heard."""

    def __init__(self, run: Run, saved: int) -> None:
        self.run, self.checkpoint, self.saved = run, run, saved
        self.attempted: set[int] = set()
        self.driver: Driver | None = None
        self.task: asyncio.Task[None] | None = None
        self.taken_over = False


class LiveRuns:
    """Begins runs, goes on with them, and looks after those that nobody drives."""

    def __init__(
        self,
        make_driver: MakeDriver,
        store: Store,
        *,
        sessions: Sessions,
        followers: Followers,
        max_live_runs: int,
        clock: Callable[[], float],
        observer: AgentObserver,
        span: Callable[[Run], Span],
        charge: Callable[[str | None, int], None],
    ) -> None:
        self._make_driver, self._store, self._sessions = make_driver, store, sessions
        self._followers, self._max_live_runs, self._clock = followers, max_live_runs, clock
        self._observer, self._span, self._charge = observer, span, charge
        self._runs = Runs(store)
        self._live: dict[str, _Live] = {}
        self._unsaved: OrderedDict[str, _Live] = OrderedDict()
        self._waiting: set[str] = set()
        self._me = uuid.uuid4().hex
        self._sweeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._live

    @property
    def waiting(self) -> int:
        """Runs that this process drove until they had to wait for a person, and that still wait."""
        return len(self._waiting)

    def start(self) -> None:
        """Begins to look after runs that nobody drives."""
        self._sweeper = asyncio.create_task(self._sweep(), name="agent runs")

    async def close(self) -> None:
        """Stops driving: background runs in a durable store are left to other replicas, others are
        cancelled."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for live in list(self._live.values()):
            if self._store.durable and live.run.background and live.task is not None:
                live.task.cancel()
            elif live.driver is not None:
                live.driver.cancel("the server is shutting down")
        await self.idle(CLOSE_SECONDS)

    async def idle(self, seconds: float) -> bool:
        """Waits until nothing is driven any more, at most this long; whether that is so."""
        tasks = [live.task for live in self._live.values() if live.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return not self._live

    def require_room(self) -> None:
        """Raises AgentError when as many runs are live as may be."""
        if len(self._live) >= self._max_live_runs:
            raise errors.too_many_runs(self._max_live_runs)

    async def get(self, run_id: str) -> Run:
        """The run as it is now. Raises AgentError when there is none."""
        if run_id in self._live:
            return self._live[run_id].run
        if run_id in self._unsaved:
            return self._unsaved[run_id].run
        return await self._runs.get(run_id)

    async def begin(self, run: Run) -> Run:
        """Drives a new run. Raises AgentError when there is no room, or its session's store does not
        answer."""
        self.require_room()
        live = self._borrow(_Live(run, run.version))
        try:
            await self._claim(run.id)
            live.run = await self._save(live, run)
        except BaseException:
            await self._give_back(live)
            raise
        live.task = asyncio.create_task(self._driven(live, Started()), name=f"run {run.id}")
        return live.run

    async def go_on(self, run: Run, event: Event) -> Run:
        """Takes an event into a run that nobody drives, and drives it on. Raises ConflictError,
        AgentError."""
        self.require_room()
        return await self._go_on(run, event, force=False)

    async def _go_on(self, run: Run, event: Event, *, force: bool) -> Run:
        if run.id in self._live:
            raise ConflictError(run.id)
        live = self._borrow(self._unsaved.get(run.id) or _Live(run, run.version))
        try:
            if not force:
                await self._claim(run.id)
            live.run, command = await _driver(live).take_in(run, event)
            if live.run.version != live.saved:
                live.run = await self._save(live, live.run)
        except BaseException:
            await self._give_back(live)
            raise
        live.task = asyncio.create_task(self._driven(live, command), name=f"run {run.id}")
        return live.run

    async def cancel(self, run: Run) -> Run:
        """Ends the run, here or, by the next time it is saved, wherever it is driven. Raises AgentError."""
        live = self._live.get(run.id)
        if live is None:
            # Not asking for the claim: a process that drives it stops when it sees what is written now.
            return run if run.ended else await self._go_on(run, Cancelled(), force=True)
        _driver(live).cancel("cancelled by request")
        if live.task is not None:
            await asyncio.wait({live.task}, timeout=CLOSE_SECONDS)
        return live.run

    # one run

    def _borrow(self, live: _Live) -> _Live:
        run = live.run

        async def save(now: Run) -> Run:
            return await self._save(live, now)

        def changed(now: Run) -> None:
            live.run = now
            self._followers.tell(now.id, len(events(now)))

        def delta(text: str) -> None:
            self._followers.tell(run.id, text)

        live.driver = self._make_driver(run, save, changed, delta)
        self._live[run.id] = live
        self._waiting.discard(run.id)
        return live

    async def _driven(self, live: _Live, what: Started | Command | None) -> None:
        """Drives a run until it ends or waits for a person; whatever happens, it is given back."""
        renewal = asyncio.create_task(self._renew(live)) if self._store.durable else None
        charged = live.run.use.tokens
        self._observer.run_started()
        try:
            with self._span(live.run) as span:
                if isinstance(what, Started):
                    await _driver(live).drive(live.run, what)
                else:
                    await _driver(live).carry_on(live.run, what)
                if live.run.error is not None:
                    span.fail(live.run.error.code)
        except ConflictError:
            log.warning("run %s is driven by another process; this one stops", live.run.id)
        except StoreUnavailableError:
            log.warning("run %s stops until its store answers", live.run.id)
            self._keep(live, live.checkpoint)
        except asyncio.CancelledError:
            if not live.taken_over:
                raise
        except Exception:
            log.exception("run %s failed", live.run.id)
            await self._broken(live)
        finally:
            if renewal is not None:
                renewal.cancel()
            self._charge(live.run.owner, live.run.use.tokens - charged)
            await self._give_back(live)

    async def _broken(self, live: _Live) -> None:
        """A defect of ours ends the run; it must not stay live for ever."""
        if live.run.ended:
            return
        error = RunError(code="internal_error", message="The agent failed; see the server's log.")
        ended, _ = failed(live.run, self._clock(), "error", error)
        with contextlib.suppress(AgentError):
            live.run = await self._save(live, ended.changed(pending=None, version=live.run.version + 1))
        self._followers.tell(live.run.id, len(events(live.run)))

    async def _give_back(self, live: _Live) -> None:
        self._live.pop(live.run.id, None)
        if live.run.status == "awaiting_approval":
            self._waiting.add(live.run.id)
        self._followers.tell(live.run.id, None)
        with contextlib.suppress(StoreUnavailableError):
            await self._store.release(_claim_key(live.run.id), self._me)

    async def _save(self, live: _Live, run: Run) -> Run:
        if run.ended and run.session_id is not None:
            run = await self._into_session(run, run.session_id)
        waits = run.status == "awaiting_approval"
        run = run.changed(writer=self._me, background=run.background or waits)
        live.attempted.add(run.version)
        try:
            await self._runs.save(run, live.saved, live.attempted)
        except StoreUnavailableError:
            if self._needs_store(run):
                raise
            log.warning("run %s goes on without a checkpoint", run.id)
            self._keep(live, run)
        else:
            live.checkpoint, live.saved, live.attempted = run, run.version, set()
            self._unsaved.pop(run.id, None)
        return run

    def _needs_store(self, run: Run) -> bool:
        """Whether the run must not go on without a checkpoint."""
        begins = run.session_id is not None and not run.steps
        waits = run.status == "awaiting_approval"
        return begins or (self._store.durable and run.background and not waits)

    def _keep(self, live: _Live, run: Run) -> None:
        """Remembers here what the store could not be told."""
        live.run = run
        self._unsaved[run.id] = live
        while len(self._unsaved) > KEPT_UNSAVED:
            self._unsaved.popitem(last=False)

    async def _into_session(self, run: Run, session_id: str) -> Run:
        try:
            await self._sessions.add(session_id, run.owner, run.id, run.conversation[run.given :])
        except AgentError as error:
            why = RunError(code=error.code, message=error.message)
            return run.changed(status="failed", finish_reason="error", error=why)
        return run

    # between replicas

    async def _claim(self, run_id: str) -> None:
        """Raises ConflictError when another process drives the run."""
        if not self._store.durable:
            return
        with contextlib.suppress(StoreUnavailableError):
            if not await self._store.claim(_claim_key(run_id), self._me, CLAIM_SECONDS):
                raise ConflictError(run_id)

    async def _renew(self, live: _Live) -> None:
        """Keeps the claim; stops driving when it was lost, or somebody else wrote the run."""
        run_id, kept = live.run.id, time.monotonic()
        while True:
            await asyncio.sleep(CLAIM_SECONDS / 3)
            asked = time.monotonic()
            try:
                held = await self._store.claim(_claim_key(run_id), self._me, CLAIM_SECONDS)
                newest = (await self._runs.get(run_id)).version
                kept = asked
            except StoreUnavailableError:
                # Others may believe by now that this process is dead.
                held, newest = not live.run.background or asked - kept < CLAIM_SECONDS, live.saved
            except AgentError:
                newest = live.saved  # it expired; it is written again with the next checkpoint
            except Exception:
                log.exception("run %s: its claim could not be renewed", run_id)
                continue
            if not held or newest > max(live.saved, *live.attempted, 0):
                live.taken_over = True
                if live.task is not None:
                    live.task.cancel()
                return

    async def _sweep(self) -> None:
        """Looks after runs that nobody drives, again and again."""
        while True:
            try:
                for live in [kept for kept in self._unsaved.values() if kept.run.id not in self._live]:
                    await self._tell_store(live)
                waiting, known = set(self._waiting), await self._runs.live()
                for run_id in known:
                    if run_id not in self._live and run_id not in self._unsaved:
                        await self._look_after(run_id)
                self._waiting -= waiting - known
            except StoreUnavailableError:
                log.warning("the session store does not answer; runs of dead replicas wait")
            except Exception:
                log.exception("looking after runs failed")
            await asyncio.sleep(SWEEP_SECONDS)

    async def _tell_store(self, live: _Live) -> None:
        """Writes what could not be written before; nothing when somebody else has gone on since."""
        try:
            await self._runs.save(live.run, live.saved, live.attempted)
        except ConflictError:
            log.warning("run %s was gone on with elsewhere; what happened to it here is lost", live.run.id)
        self._unsaved.pop(live.run.id, None)

    async def _look_after(self, run_id: str) -> None:
        """Goes on with a run that nobody drives, cancels it when its request died with its process, ends an
        approval that nobody gave."""
        try:
            run = await self._runs.get(run_id)
        except StoreUnavailableError:
            raise
        except AgentError:
            await self._runs.forget(run_id)
            return
        if run.ended:
            await self._runs.forget(run_id)
            return
        waiting = run.awaited.approval if run.awaited is not None else None
        event: Event = Resumed() if run.background else Cancelled("its process ended")
        if waiting is None:
            self._waiting.discard(run_id)  # another process goes on with it
        elif self._clock() < waiting.expires:
            return
        else:
            event = Tick()
        with contextlib.suppress(AgentError):  # driven elsewhere, or no room: the next sweep will see
            if isinstance(event, Cancelled):
                await self._go_on(run, event, force=False)
            else:
                await self.go_on(run, event)


def _driver(live: _Live) -> Driver:
    if live.driver is None:
        raise RuntimeError("a borrowed run has a driver")
    return live.driver


def _claim_key(run_id: str) -> str:
    return f"claim:{run_id}"
