"""Runs from beginning to end, with a scripted model and real tools."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager

import pytest

from agent_runtime.agent import live
from agent_runtime.agent.errors import AgentError, StoreUnavailableError
from agent_runtime.agent.journal import RunEvent, events
from agent_runtime.agent.observer import NoObserver
from agent_runtime.agent.request import Caller, RunRequest
from agent_runtime.agent.store import MemoryStore
from agent_runtime.agent.tools import function_tool
from agent_runtime.contract import AgentConfig, DecisionConfig, Parameters, RunLimits
from agent_runtime.llm.base import Capabilities, GenerationError, Limits
from agent_runtime.llm.chat import Message
from tests.fakes.scripted_backend import ScriptedBackend
from tests.unit.agent.agents import Gate, agent, ask, call, finish, patiently, weather

PARIS = call("weather", '{"city": "Paris"}')
JSON = frozenset({"json_schema"})


def scored(script, scorer, **capabilities) -> ScriptedBackend:
    return ScriptedBackend(script, scorer, capabilities=Capabilities(**capabilities))


def first_tool_then_answer(prompt: str, candidate: str) -> float:
    return 0.0 if (candidate == "answer") == ("Result:" in prompt) else -2.0


async def test_a_run_uses_a_tool_and_answers() -> None:
    async with agent(["Let me see. " + PARIS, "It is sunny."]) as service:
        run = await finish(service, ask())

    assert (run.status, run.result) == ("completed", "It is sunny.")
    assert run.calls[0].observation.text == "sunny in Paris"
    assert service.backend.prompts[1].endswith("Tool weather: sunny in Paris\nAssistant:")


async def test_a_model_without_tool_calls_is_led_by_scores() -> None:
    backend = scored(["city: Paris", "It is sunny."], first_tool_then_answer)
    async with agent(backend=backend) as service:
        run = await finish(service, ask())

    assert run.result == "It is sunny."
    assert [step.decision.label for step in run.steps] == ["weather", "answer"]
    assert run.steps[0].decision.probabilities["weather"] == pytest.approx(0.8807970779778823)


async def test_arguments_are_generated_under_the_tools_schema_where_the_backend_can() -> None:
    backend = scored(['{"city": "Paris"}', "It is sunny."], first_tool_then_answer, grammar=JSON)
    async with agent(backend=backend) as service:
        run = await finish(service, ask())

    grammar = backend.samplings[0].grammar
    assert (grammar.kind, json.loads(grammar.text)["required"]) == ("json_schema", ["city"])
    assert backend.samplings[1].grammar is None
    assert run.status == "completed"


async def test_a_schema_that_no_grammar_covers_is_checked_afterwards() -> None:
    refused = GenerationError("unsupported keyword", "invalid_grammar")
    backend = scored([refused, '{"city": "Paris"}', "It is sunny."], first_tool_then_answer, grammar=JSON)
    async with agent(backend=backend) as service:
        run = await finish(service, ask())

    assert run.result == "It is sunny."
    assert [sampling.grammar is None for sampling in backend.samplings] == [False, True, True]


async def test_a_policy_that_is_not_sure_enough_abstains() -> None:
    config = AgentConfig(decision=DecisionConfig(policy="Greedy", abstain_below=0.9))
    async with agent(backend=scored([], first_tool_then_answer), config=config) as service:
        run = await finish(service, ask())

    assert (run.status, run.finish_reason, run.result) == ("completed", "abstained", None)
    assert run.steps[0].decision.reason.startswith("abstained: confidence 0.88")


async def test_with_the_same_seed_chance_decides_the_same_way() -> None:
    config = AgentConfig(decision=DecisionConfig(policy="Softmax"), limits=RunLimits(max_steps=20))
    backend = scored(lambda prompt: "city: Paris", lambda prompt, candidate: 0.0)
    async with agent(backend=backend, config=config) as service:
        runs = [await finish(service, ask(seed=seed)) for seed in (5, 5, 6, 7)]

    chosen = [[step.decision.label for step in run.steps] for run in runs]
    assert chosen[0] == chosen[1]
    assert len({tuple(one) for one in chosen}) > 1


async def test_a_session_carries_the_conversation_from_run_to_run() -> None:
    async with agent(
        ["Hello Ada.", "Your name is Ada."], config=AgentConfig(system_prompt="Be brief.")
    ) as service:
        await finish(service, ask("I am Ada.", session_id="s"))
        await finish(service, ask("Who am I?", session_id="s"))
        session = await service.session("s")

    assert service.backend.prompts[1].startswith("Be brief.\n")
    assert "User: I am Ada.\nAssistant: Hello Ada.\nUser: Who am I?" in service.backend.prompts[1]
    assert [message.content for message in session.messages] == [
        "I am Ada.", "Hello Ada.", "Who am I?", "Your name is Ada.",
    ]  # fmt: skip


async def test_a_conversation_that_no_longer_fits_is_shortened_for_the_model_alone() -> None:
    backend = ScriptedBackend(["fine"], limits=Limits(40, None))
    long = tuple(Message(role, "word " * 10) for _ in range(3) for role in ("user", "assistant"))
    async with agent(backend=backend, tools=()) as service:
        run = await finish(service, RunRequest((*long, Message("user", "And now?"))))

    assert run.status == "completed"
    assert "earlier messages were left out.)" in backend.prompts[0]
    assert backend.prompts[0].endswith("User: And now?\nAssistant:")
    assert len(run.conversation) == len(long) + 2


async def test_a_summary_may_stand_for_what_no_longer_fits() -> None:
    async def summarize(messages) -> str:
        return f"{len(messages)} times nothing"

    backend = ScriptedBackend(["fine"], limits=Limits(40, None))
    long = tuple(Message(role, "word " * 10) for _ in range(3) for role in ("user", "assistant"))
    async with agent(backend=backend, tools=(), summarize=summarize) as service:
        await finish(service, RunRequest((*long, Message("user", "And now?"))))

    assert re.search(r"\((\d) earlier messages in short: \1 times nothing\)", backend.prompts[0])


async def test_a_message_longer_than_the_model_reads_fails_by_name() -> None:
    async with agent(tools=(), parameters=lambda: Parameters(max_input_tokens=10)) as service:
        run = await finish(service, ask("word " * 50))

    assert (run.status, run.error.code) == ("failed", "context_length_exceeded")


async def test_events_come_as_they_happen_and_text_as_it_is_generated() -> None:
    async with agent(["Let me see. " + PARIS, "It is sunny."]) as service:
        begun = await service.begin(ask())
        seen = [item async for item in service.follow(begun.id)]
        run = await service.get(begun.id)

    assert [event for event in seen if isinstance(event, RunEvent)] == list(events(run))
    kinds = [item.type if isinstance(item, RunEvent) else "text" for item in seen]
    assert kinds == [
        "run.created", "step.started", "text", "text", "text", "message", "tool_call.created",
        "tool_call.started", "tool_call.completed", "step.started", "text", "text", "text", "message",
        "run.completed",
    ]  # fmt: skip
    assert "".join(item for item in seen if isinstance(item, str)) == "Let me see.It is sunny."


async def test_a_follower_goes_on_where_it_left_off() -> None:
    async with agent([PARIS, "It is sunny."]) as service:
        run = await finish(service, ask())

        later = [event async for event in service.follow(run.id, after=4)]

    assert later == list(events(run)[4:])


async def test_cancelling_ends_the_run_and_what_it_was_doing() -> None:
    gate = Gate()
    async with agent([call("gate")], [gate.tool]) as service:
        run = await service.begin(ask(session_id="s"))
        await gate.called.wait()

        cancelled = await service.cancel(run.id)

        assert (cancelled.status, gate.cancelled) == ("cancelled", 1)
        assert cancelled.calls[0].observation.outcome == "outcome_unknown"
        assert [message.role for message in (await service.session("s")).messages] == [
            "user", "assistant", "tool", "assistant",
        ]  # fmt: skip
        assert (await service.cancel(run.id)).status == "cancelled"
        assert service.facts().runs_live == 0


async def test_a_generation_is_cancelled_too() -> None:
    backend = ScriptedBackend(["never"], hold=asyncio.Event())
    async with agent(backend=backend) as service:
        run = await service.begin(ask())
        await backend.held.wait()

        assert (await service.cancel(run.id)).status == "cancelled"


async def test_a_run_ends_when_its_time_is_over_whatever_it_is_doing() -> None:
    gate = Gate()
    async with agent(["Well. " + call("gate")], [gate.tool]) as service:
        run = await finish(service, ask(limits={"timeout_seconds": 0.1}))

    assert (run.status, run.finish_reason, run.result) == ("exhausted", "timeout_seconds", "Well.")
    assert gate.cancelled == 1


async def test_a_tool_that_does_not_stop_when_told_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr("agent_runtime.agent.driver.ABANDON_SECONDS", 0.05)
    stop = asyncio.Event()

    async def stubborn() -> str:
        """Does not listen."""
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue
        return ""

    async with agent([call("stubborn")], [stubborn]) as service:
        run = await finish(service, ask(limits={"timeout_seconds": 0.05}))
        stop.set()

    assert run.finish_reason == "timeout_seconds"


async def test_a_model_that_fails_for_a_moment_does_not_end_the_run() -> None:
    overloaded = GenerationError("busy", "remote_overloaded", retry_after=0)
    backend = ScriptedBackend([overloaded, "It is sunny."])
    async with agent(backend=backend) as service:
        service_run = await service.begin(ask())
        run = await service.wait(service_run.id)

    assert run.result == "It is sunny."


async def test_a_model_that_fails_ends_the_run_with_its_code() -> None:
    async with agent([GenerationError("lost", "out_of_memory")]) as service:
        run = await finish(service, ask())

    assert (run.status, run.error.code) == ("failed", "out_of_memory")


async def test_a_defect_of_ours_ends_the_run_and_nothing_else() -> None:
    def broken(prompt: str) -> str:
        raise RuntimeError("a defect")

    async with agent(broken) as service:
        run = await finish(service, ask())
        assert (run.status, run.error.code) == ("failed", "internal_error")
        assert "defect" not in run.error.message
        assert service.facts().runs_live == 0


async def test_every_use_of_the_model_is_admitted_first() -> None:
    tokens: list[int] = []

    @asynccontextmanager
    async def admit(count: int):
        tokens.append(count)
        yield

    async with agent([PARIS, "It is sunny."], admit=admit) as service:
        run = await finish(service, ask())

    assert len(tokens) == 2
    assert tokens[0] == run.steps[0].prompt_tokens + service.backend.samplings[0].max_tokens


class Counts(NoObserver):
    """Remembers what the metrics would count."""

    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def run_finished(self, status, reason, seconds, steps) -> None:
        self.seen.append(("run", status, reason, steps))

    def approval_requested(self, tool) -> None:
        self.seen.append(("approval", tool))

    def tool_finished(self, tool, outcome, seconds, attempts) -> None:
        self.seen.append(("tool", tool, outcome))

    def decision_made(self, policy, label, confidence, entropy) -> None:
        self.seen.append(("decision", label))


async def test_what_happens_is_counted_once() -> None:
    counts = Counts()
    backend = scored(["euros: 100", "Paid."], first_tool_then_answer)
    async with agent(backend=backend, tools=[paying()], observer=counts) as service:
        run = await finish(service, ask())
        await service.answer(run.id, run.awaited.id, True, None)
        await service.wait(run.id)

    assert counts.seen == [
        ("decision", "pay"), ("approval", "pay"), ("tool", "pay", "ok"), ("decision", "answer"),
        ("run", "completed", "answer", 2),
    ]  # fmt: skip


async def test_the_key_is_charged_for_what_its_run_used() -> None:
    charged: list[tuple[str | None, int]] = []
    async with agent(
        [PARIS, "It is sunny."], charge=lambda owner, tokens: charged.append((owner, tokens))
    ) as service:
        run = await finish(service, ask(), Caller("web"))

    assert charged == [("web", run.use.tokens)]


# approvals


def paying() -> object:
    def pay(euros: int) -> str:
        """Pays."""
        return f"paid {euros}"

    return function_tool(pay, require_approval=lambda arguments: arguments["euros"] > 10)


PAY = call("pay", '{"euros": 100}')


async def test_a_call_that_needs_approval_is_made_after_somebody_approved_it() -> None:
    async with agent([PAY, "Paid."], [paying()]) as service:
        run = await finish(service, ask(), Caller("web"))
        assert run.status == "awaiting_approval"
        assert service.facts().model_dump() == {"runs_live": 1, "awaiting_approval": 1, "tool_waits": 0}

        await service.answer(run.id, run.awaited.id, True, "fine", Caller("boss", admin=True))
        run = await service.wait(run.id, Caller("web"))

    assert run.result == "Paid."
    assert run.calls[0].observation.text == "paid 100"
    assert run.calls[0].approval.model_dump(include={"verdict", "by", "reason"}) == {
        "verdict": "approved", "by": "boss", "reason": "fine",
    }  # fmt: skip
    assert service.facts().runs_live == 0


async def test_a_denied_call_is_never_made() -> None:
    async with agent([PAY, "Then not."], [paying()]) as service:
        run = await finish(service, ask())
        await service.answer(run.id, run.awaited.id, False, None)
        run = await service.wait(run.id)

    assert run.result == "Then not."
    assert run.calls[0].observation.outcome == "denied"


async def test_an_approval_is_asked_for_once_and_answered_once() -> None:
    async with agent([PAY, "Paid."], [paying()]) as service:
        run = await finish(service, ask())
        with pytest.raises(AgentError) as wrong:
            await service.answer(run.id, "call_other", True, None)
        assert wrong.value.code == "call_not_awaiting_approval"

        answers = await asyncio.gather(
            *(service.answer(run.id, run.awaited.id, True, None) for _ in range(3)), return_exceptions=True
        )

        assert sum(not isinstance(answer, Exception) for answer in answers) == 1
        await service.wait(run.id)
        with pytest.raises(AgentError) as late:
            await service.answer(run.id, run.awaited.id, True, None)
        assert late.value.code == "not_awaiting_approval"


async def test_a_run_that_waits_can_be_cancelled() -> None:
    async with agent([PAY], [paying()]) as service:
        run = await finish(service, ask())

        run = await service.cancel(run.id)

    assert run.status == "cancelled"
    assert run.calls[0].approval.verdict == "expired"


async def test_an_approval_that_nobody_gives_expires_by_itself(monkeypatch) -> None:
    monkeypatch.setattr(live, "SWEEP_SECONDS", 0.01)
    async with agent([PAY, "Then not."], [paying()], approval_seconds=0.05) as service:
        run = await finish(service, ask())
        seen = [item async for item in service.follow(run.id) if isinstance(item, RunEvent)]

    assert seen[-1].type == "run.completed"
    assert next(e for e in seen if e.type == "approval.resolved").data["verdict"] == "expired"


# refusals


@pytest.mark.parametrize(
    ("fields", "caller", "code", "param"),
    [
        ({"tools": ("weather", "other")}, Caller(), "tool_not_found", "tools[1]"),
        ({"tools": ("weather",)}, Caller("web", frozenset()), "tool_not_allowed", "tools[0]"),
        ({"limits": {"max_steps": 9}}, Caller(), "limit_not_tightened", "limits.max_steps"),
        ({"limits": {"timeout_seconds": 121}}, Caller(), "limit_not_tightened", "limits.timeout_seconds"),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_begins(fields, caller, code, param) -> None:
    async with agent(["never"]) as service:
        with pytest.raises(AgentError) as error:
            await service.begin(ask(**fields), caller)

        assert (error.value.code, error.value.param) == (code, param)
        assert service.facts().runs_live == 0 and service.backend.prompts == []


async def test_a_key_is_offered_only_the_tools_it_may_use() -> None:
    def other() -> str:
        """Another."""
        return ""

    async with agent(["Done."], [weather, other]) as service:
        run = await finish(service, ask(), Caller("web", frozenset({"weather"})))

    assert [tool.name for tool in run.spec.tools] == ["weather"]


async def test_a_run_without_tool_calls_is_offered_no_tools() -> None:
    async with agent(["Done."]) as service:
        run = await finish(service, ask(limits={"max_tool_calls": 0}))

    assert run.spec.tools == ()


async def test_a_model_that_can_neither_call_nor_score_gets_no_tools() -> None:
    backend = ScriptedBackend(["Fine."], capabilities=Capabilities(score=False))
    async with agent(backend=backend) as service:
        with pytest.raises(AgentError) as error:
            await service.begin(ask())
        assert error.value.code == "tools_unsupported"
        with pytest.raises(AgentError) as error:
            await service.begin(ask(decision=DecisionConfig()))
        assert error.value.code == "decision_unsupported"

        assert (await finish(service, ask(tools=()))).result == "Fine."


async def test_the_number_of_live_runs_is_bounded() -> None:
    gate = Gate()
    async with agent([call("gate"), call("gate"), "Done."], [gate.tool], max_live_runs=2) as service:
        runs = [await service.begin(ask()) for _ in range(2)]
        with pytest.raises(AgentError) as error:
            await service.begin(ask())
        assert (error.value.code, error.value.retry_after) == ("too_many_runs", 1)

        await service.cancel(runs[0].id)
        await service.begin(ask())


async def test_a_run_is_visible_to_its_own_key_and_to_administrators() -> None:
    async with agent(["Done."]) as service:
        run = await finish(service, ask(), Caller("web"))

        for stranger in (Caller(), Caller("other")):
            for attempt in (service.get(run.id, stranger), service.cancel(run.id, stranger)):
                with pytest.raises(AgentError) as error:
                    await attempt
                assert error.value.code == "run_not_found"
        assert (await service.get(run.id, Caller("boss", admin=True))).id == run.id


# a store that fails


class FailingStore(MemoryStore):
    """Does not answer while `down` names what it refuses."""

    down: frozenset[str] = frozenset()

    def _refuse(self, key: str) -> None:
        if key.partition(":")[0] in self.down:
            raise StoreUnavailableError("ConnectionError")

    async def get(self, key):
        self._refuse(key)
        return await super().get(key)

    async def update(self, key, change, ttl_seconds=None):
        self._refuse(key)
        return await super().update(key, change, ttl_seconds)


async def test_without_its_store_a_run_without_a_session_goes_on_and_can_be_asked_for() -> None:
    store = FailingStore()
    store.down = frozenset({"run", "session"})
    async with agent([PAY, "Paid."], [paying()], store=store) as service:
        run = await finish(service, ask())
        await service.answer(run.id, run.awaited.id, True, None)
        await service.wait(run.id)

        assert (await service.get(run.id)).result == "Paid."


class DeafStore(MemoryStore):
    """Writes, and does not tell: what a connection that breaks at the wrong moment looks like."""

    lost = 0

    async def update(self, key, change, ttl_seconds=None):
        value = await super().update(key, change, ttl_seconds)
        if key.startswith("run:") and self.lost > 0:
            self.lost -= 1
            raise StoreUnavailableError("TimeoutError")
        return value


async def test_a_write_whose_answer_was_lost_is_no_conflict() -> None:
    store = DeafStore()
    store.lost = 3
    async with agent([PARIS, "It is sunny."], store=store) as service:
        run = await finish(service, ask())

    assert (run.status, run.result) == ("completed", "It is sunny.")
    assert store.lost == 0


async def test_without_its_store_a_run_with_a_session_is_refused() -> None:
    store = FailingStore()
    store.down = frozenset({"session"})
    async with agent(["Done."], store=store) as service:
        with pytest.raises(StoreUnavailableError):
            await service.begin(ask(session_id="s"))
        assert service.facts().runs_live == 0


async def test_an_answer_whose_session_was_lost_is_a_failure_that_keeps_the_answer() -> None:
    store, gate = FailingStore(), Gate()
    async with agent([call("gate"), "Done."], [gate.tool], store=store) as service:
        run = await service.begin(ask(session_id="s"))
        await gate.called.wait()
        store.down = frozenset({"session"})
        gate.open.set()
        run = await service.wait(run.id)

    assert (run.status, run.error.code, run.result) == ("failed", "session_store_unavailable", "Done.")


async def test_closing_a_service_in_memory_ends_its_runs() -> None:
    gate = Gate()
    async with agent([call("gate")], [gate.tool]) as service:
        run = await service.begin(ask())
        await gate.called.wait()
        following = asyncio.create_task(_last(service.follow(run.id)))
        await asyncio.sleep(0)

    last = await following
    assert (last.type, last.data["error"]["message"]) == ("run.cancelled", "the server is shutting down")
    await patiently(lambda: gate.cancelled == 1)


async def _last(items):
    last = None
    async for item in items:
        last = item
    return last
