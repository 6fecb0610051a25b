"""Several replicas with one real Redis: crashes, take-overs, approvals and cancellations from elsewhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from agent_runtime.agent import live
from agent_runtime.agent.errors import AgentError
from agent_runtime.agent.journal import RunEvent, events
from agent_runtime.agent.redis_store import RedisStore
from agent_runtime.agent.tools import function_tool
from tests.support.redis_server import RedisServer
from tests.unit.agent.agents import Gate, agent, ask, call, finish, patiently

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at each other's runs often; a claim still outlasts every pause of a busy machine."""
    monkeypatch.setattr(live, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(live, "CLAIM_SECONDS", 3.0)
    monkeypatch.setattr("agent_runtime.agent.service.POLL_SECONDS", 0.05)


@pytest.fixture
def prefix() -> str:
    return f"test:{uuid.uuid4().hex}:"


def die_in(tool: str, server: RedisServer, prefix: str, kind: str = "background") -> str:
    """A run whose process is killed while the tool is being called."""
    run_id = f"run_{uuid.uuid4().hex}"
    command = [sys.executable, "-m", "tests.unit.agent.replica", server.url, prefix, run_id, tool, kind]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "called\n"
        process.kill()
    return run_id


async def test_a_run_whose_process_was_killed_goes_on_elsewhere_without_calling_again(
    redis_server: RedisServer, prefix: str
) -> None:
    run_id = await asyncio.to_thread(die_in, "gate", redis_server, prefix)
    gate = Gate()
    async with agent(["I do not know."], [gate.tool], store=RedisStore(redis_server.url, prefix)) as other:
        run = await other.wait(run_id)

        assert (run.status, run.result) == ("completed", "I do not know.")
        assert run.calls[0].observation.outcome == "outcome_unknown"
        assert gate.calls == 0
        assert len((await other.session("s")).messages) == 4


async def test_an_idempotent_call_of_a_killed_process_is_made_again(
    redis_server: RedisServer, prefix: str
) -> None:
    run_id = await asyncio.to_thread(die_in, "look", redis_server, prefix)
    gate = Gate("look", idempotent=True)
    gate.open.set()
    async with agent(["It passed."], [gate.tool], store=RedisStore(redis_server.url, prefix)) as other:
        run = await other.wait(run_id)

        assert run.result == "It passed."
        assert (run.calls[0].observation.text, gate.calls, run.use.tool_calls) == ("passed", 1, 2)


async def test_a_run_whose_request_died_with_its_process_is_cancelled(
    redis_server: RedisServer, prefix: str
) -> None:
    run_id = await asyncio.to_thread(die_in, "look", redis_server, prefix, "request")
    gate = Gate("look", idempotent=True)
    async with agent([], [gate.tool], store=RedisStore(redis_server.url, prefix)) as other:
        run = await other.wait(run_id)

        assert (run.status, run.error.message, gate.calls) == ("cancelled", "its process ended", 0)
        assert run.calls[0].observation.outcome == "outcome_unknown"
        assert [message.role for message in (await other.session("s")).messages] == [
            "user", "assistant", "tool", "assistant",
        ]  # fmt: skip


async def test_a_background_run_stops_while_redis_is_away_and_goes_on_when_it_is_back(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is done that could not be remembered, and nothing is done twice, though Redis forgot
    everything."""
    monkeypatch.setattr("agent_runtime.agent.redis_store.DOWN_SECONDS", 0.05)
    gate = Gate()

    def says(prompt: str) -> str:
        return "Done." if "Tool gate" in prompt else call("gate")

    with RedisServer() as server:
        async with agent(says, [gate.tool], store=RedisStore(server.url, prefix)) as service:
            run = await service.begin(ask(background=True))
            await gate.called.wait()
            server.stop()
            gate.open.set()
            await patiently(lambda: service.facts().runs_live == 0)

            server.start()
            await patiently(lambda: len(service.backend.prompts) == 2)
            run = await service.wait(run.id)

    assert (run.status, run.result, gate.calls) == ("completed", "Done.", 1)
    assert run.calls[0].observation.outcome == "outcome_unknown"


async def test_a_background_run_is_refused_while_redis_is_away(prefix: str) -> None:
    store = RedisStore("redis://127.0.0.1:1/0", prefix)
    async with agent(["never"], store=store) as service:
        with pytest.raises(AgentError) as error:
            await service.begin(ask(background=True))
        assert error.value.code == "session_store_unavailable"


async def test_a_replica_that_shuts_down_hands_its_runs_over_at_once(
    redis_server: RedisServer, prefix: str
) -> None:
    gate = Gate()
    async with agent([call("gate")], [gate.tool], store=RedisStore(redis_server.url, prefix)) as first:
        run = await first.begin(ask(background=True))
        await gate.called.wait()

    async with agent(["Never mind."], [gate.tool], store=RedisStore(redis_server.url, prefix)) as second:
        assert (await second.wait(run.id)).result == "Never mind."


async def test_a_run_that_is_driven_is_left_alone_by_others(redis_server: RedisServer, prefix: str) -> None:
    gate = Gate()
    async with (
        agent([call("gate"), "Done."], [gate.tool], store=RedisStore(redis_server.url, prefix)) as first,
        agent([], [gate.tool], store=RedisStore(redis_server.url, prefix)) as second,
    ):
        run = await first.begin(ask())
        await gate.called.wait()
        claims, refusals = _count_claims(first.store), _count_claims(second.store)
        await patiently(lambda: claims.count(True) >= 4)  # each renews the claim for a third of its time
        assert refusals.count(False) > 10 and True not in refusals
        assert (gate.calls, second.backend.prompts) == (1, [])
        assert second.facts().runs_live == 0

        gate.open.set()
        assert (await second.wait(run.id)).result == "Done."


async def test_any_replica_takes_an_approval_and_goes_on(redis_server: RedisServer, prefix: str) -> None:
    def pay() -> str:
        """Pays."""
        return "paid"

    def says(prompt: str) -> str:
        return "Paid." if "paid" in prompt else call("pay")

    tool = function_tool(pay, require_approval=True)
    async with (
        agent(says, [tool], store=RedisStore(redis_server.url, prefix)) as first,
        agent(says, [tool], store=RedisStore(redis_server.url, prefix)) as second,
    ):
        run = await finish(first, ask())
        following = asyncio.create_task(_collect(first.follow(run.id)))

        answers = await asyncio.gather(
            *(one.answer(run.id, run.awaited.id, True, None) for one in (first, second, second)),
            return_exceptions=True,
        )
        taken = [answer for answer in answers if not isinstance(answer, Exception)]
        assert len(taken) == 1
        assert all(isinstance(answer, AgentError) for answer in answers if answer is not taken[0])

        ended = await second.wait(run.id)
        assert ended.result == "Paid."
        assert await following == list(events(ended))
        await patiently(lambda: first.facts().runs_live == second.facts().runs_live == 0)


async def test_a_run_is_cancelled_from_another_replica(redis_server: RedisServer, prefix: str) -> None:
    gate = Gate()
    async with (
        agent([call("gate")], [gate.tool], store=RedisStore(redis_server.url, prefix)) as first,
        agent([], [gate.tool], store=RedisStore(redis_server.url, prefix)) as second,
    ):
        run = await first.begin(ask())
        await gate.called.wait()

        assert (await second.cancel(run.id)).status == "cancelled"

        await patiently(lambda: gate.cancelled == 1)
        await patiently(lambda: first.facts().runs_live == 0)
        assert (await first.get(run.id)).status == "cancelled"


async def test_events_are_followed_on_a_replica_that_does_not_drive(
    redis_server: RedisServer, prefix: str
) -> None:
    gate = Gate()
    async with (
        agent([call("gate"), "Done."], [gate.tool], store=RedisStore(redis_server.url, prefix)) as first,
        agent([], [gate.tool], store=RedisStore(redis_server.url, prefix)) as second,
    ):
        run = await first.begin(ask())
        following = asyncio.create_task(_collect(second.follow(run.id, after=1)))
        await gate.called.wait()
        gate.open.set()

        ended = await first.wait(run.id)
        assert await following == list(events(ended))[1:]


async def test_without_redis_runs_without_a_session_still_run(prefix: str) -> None:
    store = RedisStore("redis://127.0.0.1:1/0", prefix)
    async with agent([call("weather", '{"city": "Paris"}'), "It is sunny."], store=store) as service:
        assert (await finish(service, ask())).result == "It is sunny."
        with pytest.raises(AgentError) as error:
            await service.begin(ask(session_id="s"))
        assert error.value.code == "session_store_unavailable"


async def _collect(items) -> list[RunEvent]:
    return [item async for item in items if isinstance(item, RunEvent)]


def _count_claims(store: RedisStore) -> list[bool]:
    """Grows with every claim from now on by whether it was held."""
    outcomes: list[bool] = []
    claim = store.claim

    async def counting(key: str, owner: str, seconds: float) -> bool:
        outcomes.append(await claim(key, owner, seconds))
        return outcomes[-1]

    store.claim = counting  # type: ignore[method-assign]
    return outcomes
