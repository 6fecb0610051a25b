"""The agent's loop, whatever the world does to it.

The machine plays the world: it answers commands rightly or wrongly, late, twice or not at all, lets people
approve, deny and forget, cancels, lets time pass, and kills the process at any moment. What must hold in
words:

- no budget is ever exceeded;
- a tool that requires approval is never called without one, and a tool that is not idempotent never twice
  for one call, whatever was restarted in between;
- an ended run stays as it is and asks for nothing; every run ends;
- a run's JSON is the run, and going on from it ends too;
- the events only grow; the conversation can always be gone on with.
"""

from __future__ import annotations

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent_runtime.agent.commands import (
    Answered,
    AwaitApproval,
    CallTool,
    Cancelled,
    Command,
    Decide,
    Decided,
    Event,
    Failed,
    Finish,
    Generate,
    Generated,
    Observed,
    Plan,
    Planned,
    Resumed,
    Started,
    Tick,
    TimedOut,
)
from agent_runtime.agent.journal import events
from agent_runtime.agent.loop import ToolRule, advance
from agent_runtime.agent.run import ENDED, Run, RunSpec, new_run
from agent_runtime.contract import Prices, RunLimits
from agent_runtime.llm.chat import Message, ToolSpec

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
TOOLS = {
    "look": ToolRule(SCHEMA, lambda arguments: False, idempotent=True),
    "change": ToolRule(SCHEMA, lambda arguments: False),
    "pay": ToolRule(SCHEMA, lambda arguments: arguments["x"] > 1),
    "launch": ToolRule(SCHEMA, lambda arguments: 1 / 0 > 0),
}
SPECS = tuple(ToolSpec(name, f"To {name}.", SCHEMA) for name in TOOLS)
ADVANCES = 2000
"""More events than any run within these limits can take."""

limits = st.builds(
    RunLimits,
    max_steps=st.integers(1, 6),
    max_tool_calls=st.integers(0, 6),
    max_tokens=st.integers(1, 60) | st.integers(200, 900),
    timeout_seconds=st.floats(5, 200),
    max_cost=st.none() | st.floats(0, 3e-3),
)
prices = st.builds(
    Prices,
    per_million_input_tokens=st.sampled_from([0.0, 1.0, 7.3]),
    per_million_output_tokens=st.sampled_from([0.0, 3.0, 11.1]),
    per_tool_call=st.sampled_from([0.0, 1e-4]),
)
arguments = st.sampled_from(['{"x": 1}', '{"x": 2}', '{"x": 2}', '{"x": "no"}', "{}", '{"x"'])


@st.composite
def calls(draw) -> str:
    found = draw(st.lists(st.tuples(st.sampled_from([*TOOLS, "unknown"]), arguments), min_size=1, max_size=3))
    return "Now: " + "".join(f'<tool_call>{{"name": "{n}", "arguments": {a}}}</tool_call>' for n, a in found)


words = st.sampled_from(["The answer.", "", '{"x": 2}', "x: none"])
results = st.sampled_from(["yes", "no", "still the same"])


class AgentLoop(RuleBasedStateMachine):
    """One run in a hostile world."""

    run: Run
    command: Command | None

    @initialize(
        mode=st.sampled_from(["native", "scored"]),
        limits=limits,
        prices=prices,
        seed=st.none() | st.integers(0, 9),
        tools=st.sets(st.sampled_from(list(TOOLS)), min_size=1),
    )
    def begin(self, mode, limits, prices, seed, tools) -> None:
        self.now = 1000.0
        self.sent: dict[str, int] = {}
        self.told: tuple = ()
        self.command = None
        offered = tuple(spec for spec in SPECS if spec.name in tools) if limits.max_tool_calls else ()
        spec = RunSpec(
            mode=mode,
            tools=offered,
            limits=limits,
            prices=prices,
            seed=seed,
            max_output_tokens=30,
            approval_seconds=60,
        )
        self.run = new_run("run_0123456789abcdef", spec, [Message("user", "Do it.")], self.now)
        self.take(Started())

    def take(self, event: Event, rules=TOOLS) -> None:
        before = self.run
        self.run, command = advance(before, event, self.now, rules)
        if before.ended:
            assert self.run is before and command is None
            return
        assert (self.run.version == before.version) == (self.run is before)
        if command is not None:
            self.command = command
            self.check_command(command)
        if self.run.ended:
            assert isinstance(self.command, Finish)

    def check_command(self, command: Command) -> None:
        if isinstance(command, CallTool):
            self.sent[command.call_id] = self.sent.get(command.call_id, 0) + 1
            rule = TOOLS[command.name]
            assert self.sent[command.call_id] == 1 or rule.idempotent
            call = next(call for call in self.run.calls if call.id == command.call_id)
            arguments = json.loads(command.arguments)
            if command.name == "launch" or (command.name == "pay" and arguments["x"] > 1):
                assert command.approved and call.approval.verdict == "approved"

    def passes(self, seconds: float) -> None:
        self.now += seconds

    # the world does as it is told

    @precondition(lambda self: not self.run.ended)
    @rule(data=st.data(), times=st.integers(1, 4))
    def obey(self, data, times) -> None:
        for _ in range(times):
            match self.command:
                case Plan():
                    self.read, self.scored = data.draw(st.integers(1, 60)), 3 * len(self.command.candidates)
                    self.take(Planned(self.read, self.scored, data.draw(st.none() | st.integers(1, 50))))
                case Decide():
                    label = data.draw(st.sampled_from([*self.command.candidates, None]))
                    tokens = self.read + data.draw(st.integers(0, self.scored))
                    self.take(Decided(label, "because", {label or "": 1.0}, tokens=tokens))
                case Generate():
                    self.generate(data)
                case CallTool():
                    outcome = data.draw(st.sampled_from(["ok", "error", "timeout", "unavailable"]))
                    self.take(Observed(self.command.call_id, data.draw(results), outcome))
                case AwaitApproval():
                    self.passes(data.draw(st.sampled_from([1, 1, 61])))
                    self.take(Answered(self.command.call_id, data.draw(st.booleans()), "somebody"))
            if self.run.ended:
                return

    def generate(self, data) -> None:
        assert isinstance(self.command, Generate)
        self.passes(data.draw(st.floats(0, 5)))
        wanted = calls() | words if self.command.purpose == "act" else arguments | words
        cut = data.draw(st.sampled_from([False, False, True]))
        most = self.command.max_tokens
        generated = most if cut else data.draw(st.integers(0, most))
        self.take(Generated(data.draw(wanted), self.read, generated, complete=not cut))

    # the world does not

    @precondition(lambda self: not self.run.ended)
    @rule(data=st.data(), kind=st.sampled_from(["fail", "tick", "tick", "stray", "stray", "over", "cancel"]))
    def meddle(self, data, kind) -> None:
        match kind:
            case "fail":
                codes = ["generation_failed", "remote_overloaded", "remote_unreachable", "deadline_exceeded"]
                self.take(Failed(data.draw(st.sampled_from(codes)), "no"))
            case "tick":
                self.passes(data.draw(st.floats(0, 30)))
                self.take(Tick())
            case "stray":
                self.stray(data)
            case "over" if self.run.status == "running":
                self.take(TimedOut())
                assert self.run.status == "exhausted" and self.run.finish_reason == "timeout_seconds"
            case "cancel":
                self.take(Cancelled())
                assert self.run.status == "cancelled"

    def stray(self, data) -> None:
        """What does not belong to what is being carried out changes nothing."""
        before = self.run
        strays: list[Event] = [
            Observed("call_of_another", "late"),
            Answered("call_of_another", True),
            Started(),
        ]
        if not isinstance(self.command, Generate):
            strays.append(Generated("late", 5, 5))
        if not isinstance(self.command, Plan):
            strays.append(Planned(5))
        self.take(data.draw(st.sampled_from(strays)))
        assert self.run is before

    @precondition(lambda self: not self.run.ended)
    @rule(tools=st.sampled_from([TOOLS, TOOLS, {"look": TOOLS["look"]}, {}]))
    def die_and_go_on(self, tools) -> None:
        in_flight = self.command if isinstance(self.command, CallTool) else None
        self.run = Run.model_validate_json(self.run.model_dump_json())
        self.passes(500)
        used = self.run.use.seconds
        self.take(Resumed(), tools)
        assert self.run.use.seconds == used
        if in_flight is not None and not (in_flight.name in tools and TOOLS[in_flight.name].idempotent):
            call = next(call for call in self.run.calls if call.id == in_flight.call_id)
            assert call.observation.outcome == "outcome_unknown"

    @precondition(lambda self: self.run.ended)
    @rule(
        event=st.sampled_from(
            [Cancelled(), Tick(), Resumed(), Started(), Planned(1), Generated("more", 1, 1)]
        )
    )
    def come_too_late(self, event) -> None:
        self.take(event)

    # what must hold

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        use, bounds = self.run.use, self.run.spec.limits
        assert use.steps == len(self.run.steps) <= bounds.max_steps
        assert use.tool_calls == sum(self.sent.values()) <= bounds.max_tool_calls
        assert use.tokens <= bounds.max_tokens
        if bounds.max_cost is not None:
            assert self.run.cost <= bounds.max_cost

    @invariant()
    def the_json_is_the_run(self) -> None:
        assert Run.model_validate_json(self.run.model_dump_json()) == self.run

    @invariant()
    def events_only_grow(self) -> None:
        now = events(self.run)
        assert now[: len(self.told)] == self.told
        assert [event.number for event in now] == list(range(1, len(now) + 1))
        self.told = now

    @invariant()
    def the_ended_are_complete(self) -> None:
        run = self.run
        if not run.ended:
            assert run.finish_reason is None
            assert (run.awaited is not None) == (run.status == "awaiting_approval")
            return
        assert run.pending is None and run.finish_reason is not None and run.awaited is None
        assert (run.error is not None) == (run.status != "completed")
        answered = {message.tool_call_id for message in run.conversation if message.role == "tool"}
        asked = {call.id for message in run.conversation for call in message.tool_calls}
        assert answered == asked == {call.id for call in run.calls}
        assert run.conversation[-1].role == "assistant"

    def teardown(self) -> None:
        """A world that answers at all brings every run to an end, from its checkpoint."""
        if not hasattr(self, "run"):
            return
        self.run = Run.model_validate_json(self.run.model_dump_json())
        self.take(Resumed())
        for _ in range(ADVANCES):
            if self.run.ended:
                break
            self.passes(0.01)
            match self.command:
                case Plan():
                    self.take(Planned(1, 0))
                case Decide():
                    self.take(Decided(self.command.candidates[0], "first", tokens=1))
                case Generate():
                    call = '<tool_call>{"name": "look", "arguments": {"x": 1}}</tool_call>'
                    self.take(Generated(call if self.command.purpose == "act" else "x: 1", 1, 1))
                case CallTool():
                    self.take(Observed(self.command.call_id, f"at {self.now}"))
                case AwaitApproval():
                    self.take(Answered(self.command.call_id, True))
        assert self.run.status in ENDED
        self.no_budget_is_exceeded()
        self.the_ended_are_complete()


TestAgentLoop = AgentLoop.TestCase
TestAgentLoop.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)
