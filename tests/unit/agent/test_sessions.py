"""Sessions and runs in a store."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from agent_runtime.agent.commands import Cancelled, Started
from agent_runtime.agent.errors import AgentError, ConflictError
from agent_runtime.agent.loop import advance
from agent_runtime.agent.redis_store import RedisStore
from agent_runtime.agent.run import RunSpec, new_run
from agent_runtime.agent.sessions import MAX_SESSION_MESSAGES, Runs, Session, Sessions, added
from agent_runtime.agent.store import MemoryStore
from agent_runtime.llm.chat import Message, ToolCall
from tests.support.redis_server import RedisServer

HELLO = (Message("user", "Hello"), Message("assistant", "", (ToolCall("c", "look", "{}"),)))


def a_run():
    return new_run("run_1", RunSpec(mode="native"), HELLO, 1.0)


async def test_a_session_keeps_messages_as_they_were_said() -> None:
    sessions = Sessions(MemoryStore(), lambda: 5.0)

    await sessions.add("s", "web", "run_1", HELLO)

    session = await sessions.get("s", "web")
    assert session.messages == HELLO
    assert (session.created, session.owner) == (5.0, "web")


async def test_adding_a_runs_messages_again_changes_nothing() -> None:
    """A process that died between two writes does the first one again."""
    sessions = Sessions(MemoryStore())

    for run_id in ("run_1", "run_2", "run_1"):
        await sessions.add("s", None, run_id, HELLO[:1])

    assert len((await sessions.get("s", None)).messages) == 2


@pytest.mark.parametrize("owner", [None, "other"])
async def test_a_session_is_visible_to_its_own_key_only(owner) -> None:
    sessions = Sessions(MemoryStore())
    await sessions.add("s", "web", "run_1", HELLO)

    for attempt in (
        sessions.get("s", owner),
        sessions.find("s", owner),
        sessions.delete("s", owner),
        sessions.add("s", owner, "run_2", HELLO),
    ):
        with pytest.raises(AgentError) as error:
            await attempt
        assert error.value.code == "session_not_found"
    assert (await sessions.get("s", "web")).runs == ("run_1",)


async def test_a_deleted_session_is_gone() -> None:
    sessions = Sessions(MemoryStore())
    await sessions.add("s", None, "run_1", HELLO)

    await sessions.delete("s", None)

    assert await sessions.find("s", None) is None


def test_a_session_that_grows_too_long_forgets_its_oldest_messages() -> None:
    session = Session(id="s", created=0, updated=0)
    for number in range(MAX_SESSION_MESSAGES):
        session = added(
            session, f"run_{number}", (Message("user", f"{number}"), Message("assistant", "ok")), 1.0
        )

    assert len(session.messages) <= MAX_SESSION_MESSAGES
    assert session.messages[0].content == "(1001 earlier messages were left out.)"
    assert session.messages[-2].content == "999"


async def test_two_replicas_that_add_at_once_lose_no_message(redis_server: RedisServer) -> None:
    prefix = f"test:{uuid.uuid4().hex}:"
    replicas = [Sessions(RedisStore(redis_server.url, prefix)) for _ in range(2)]

    await asyncio.gather(
        *(
            replicas[number % 2].add("s", None, f"run_{number}", (Message("user", f"{number}"),))
            for number in range(20)
        )
    )

    session = await replicas[0].get("s", None)
    assert sorted(int(message.content) for message in session.messages) == list(range(20))
    for replica in replicas:
        await replica._store.close()


async def test_a_run_is_what_was_saved() -> None:
    runs = Runs(MemoryStore())
    run, _ = advance(a_run(), Started(), 2.0, {})

    await runs.save(run, 0)

    assert await runs.get("run_1") == run
    assert await runs.live() == {"run_1"}


async def test_a_run_that_ended_is_not_live() -> None:
    runs = Runs(MemoryStore())
    await runs.save(a_run(), 0)
    ended, _ = advance(a_run(), Cancelled(), 2.0, {})

    await runs.save(ended, 0)

    assert await runs.live() == set()


async def test_of_two_processes_that_save_the_same_version_the_second_is_stopped() -> None:
    runs = Runs(MemoryStore())
    run = a_run()
    await runs.save(run, 0)
    after, _ = advance(run, Started(), 2.0, {})
    await runs.save(after, run.version)

    with pytest.raises(ConflictError):
        await runs.save(after, run.version)


async def test_a_run_of_another_version_of_this_program_is_not_found() -> None:
    store = MemoryStore()
    await store.update("run:run_1", lambda old: b'{"id": "run_1", "shape": "old"}')

    with pytest.raises(AgentError) as error:
        await Runs(store).get("run_1")
    assert error.value.code == "run_not_found"
