"""Sessions and runs in a store. Layer: agent.

The one idea: a session is the conversation that runs have in common, and a run adds its messages to it
once, when it ends, all of them or none: the session remembers the newest runs that did, so adding again
(after a crash between two writes) changes nothing. Two runs that end at the same moment both keep their
messages, in the order in which they ended. A run is written with the version it was read at, so of two
processes that both believe to drive it one is stopped before it does anything twice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from agent_runtime.agent.compaction import compact
from agent_runtime.agent.errors import (
    ConflictError,
    StoreUnavailableError,
    run_not_found,
    session_not_found,
)
from agent_runtime.agent.run import Run
from agent_runtime.agent.store import Store
from agent_runtime.llm.chat import Message

MAX_SESSION_MESSAGES = 1000
MAX_SESSION_CHARACTERS = 2**20
REMEMBERED_RUNS = 32
APPROVAL_SLACK_SECONDS = 600.0

LIVE = "live-runs"
"""The set of runs that have not ended."""


class Session(BaseModel):
    """A conversation. `runs` are the newest that added to it. Times are Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    created: float
    updated: float
    owner: str | None = None
    messages: tuple[Message, ...] = ()
    runs: tuple[str, ...] = ()


def added(session: Session, run_id: str, messages: tuple[Message, ...], now: float) -> Session:
    """The session with a run's messages; unchanged when it has them. Pure. The oldest messages go when
    there are too many."""
    if run_id in session.runs:
        return session
    every = compact((*session.messages, *messages), _small).messages
    runs = (*session.runs, run_id)[-REMEMBERED_RUNS:]
    return session.model_copy(update={"messages": every, "runs": runs, "updated": now})


def _small(messages: Sequence[Message]) -> bool:
    characters = sum(len(message.content) + 64 for message in messages)
    return len(messages) <= MAX_SESSION_MESSAGES and characters <= MAX_SESSION_CHARACTERS


class Sessions:
    """The sessions of an agent. A session is visible to the key that began it, and to nobody else."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock

    async def find(self, session_id: str, owner: str | None) -> Session | None:
        """The session, or None. Raises AgentError when it is somebody else's."""
        session = _session(await self._store.get(_session_key(session_id)))
        if session is not None and session.owner != owner:
            raise session_not_found(session_id)
        return session

    async def get(self, session_id: str, owner: str | None) -> Session:
        """The session. Raises AgentError when there is none."""
        session = await self.find(session_id, owner)
        if session is None:
            raise session_not_found(session_id)
        return session

    async def add(
        self, session_id: str, owner: str | None, run_id: str, messages: tuple[Message, ...]
    ) -> None:
        """Adds a run's messages to the session, which begins with them if need be."""
        now = self._clock()

        def change(raw: bytes | None) -> bytes:
            session = _session(raw)
            if session is None:
                session = Session(id=session_id, created=now, updated=now, owner=owner)
            elif session.owner != owner:
                raise session_not_found(session_id)
            return added(session, run_id, messages, now).model_dump_json().encode()

        await self._store.update(_session_key(session_id), change)

    async def delete(self, session_id: str, owner: str | None) -> None:
        """Forgets the session. Raises AgentError when there is none."""
        await self.get(session_id, owner)
        await self._store.delete(_session_key(session_id))


class Runs:
    """The runs of an agent."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, run_id: str) -> Run:
        """The run. Raises AgentError when there is none."""
        raw = await self._store.get(_run_key(run_id))
        if raw is None:
            raise run_not_found(run_id)
        try:
            return Run.model_validate_json(raw)
        except ValidationError:
            # Written by another version of this program.
            raise run_not_found(run_id) from None

    async def save(self, run: Run, read_version: int, attempted: Collection[int] = ()) -> None:
        """Writes the run, which was read at `read_version`. Raises ConflictError when somebody wrote it
        since.

        `attempted` are versions that the run's writer sent since then without learning what became of them.
        A run that is not there (any more) is written: it may have expired while a person thought about it.
        """

        def change(raw: bytes | None) -> bytes:
            if raw is not None:
                there = from_json(raw)
                version, mine = there.get("version"), there.get("writer") == run.writer
                if version != read_version and not (mine and version in attempted):
                    raise ConflictError(run.id)
            return run.model_dump_json().encode()

        awaited = run.awaited
        approval = None if awaited is None else awaited.approval
        waits = 0.0 if approval is None else approval.expires - run.updated + APPROVAL_SLACK_SECONDS
        await self._store.update(_run_key(run.id), change, max(waits, self._store.ttl_seconds))
        with contextlib.suppress(StoreUnavailableError):  # the next save sets it right
            await (self._store.discard if run.ended else self._store.add)(LIVE, run.id)

    async def live(self) -> set[str]:
        """Runs that have not ended, as far as is known."""
        return await self._store.members(LIVE)

    async def forget(self, run_id: str) -> None:
        """It is not live: it ended or expired."""
        await self._store.discard(LIVE, run_id)


def _session_key(session_id: str) -> str:
    return f"session:{session_id}"


def _run_key(run_id: str) -> str:
    return f"run:{run_id}"


def _session(raw: bytes | None) -> Session | None:
    return None if raw is None else Session.model_validate_json(raw)
