"""What a run does next, told as data: events in, commands out."""

from __future__ import annotations

from collections.abc import Sequence

from agent_runtime.agent.commands import (
    Answered,
    AwaitApproval,
    CallTool,
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
)
from agent_runtime.agent.loop import ToolRule, advance
from agent_runtime.agent.repetition import WARNING
from agent_runtime.agent.run import Run, RunSpec, new_run
from agent_runtime.contract import Prices, RunLimits
from agent_runtime.llm.chat import Message, ToolSpec

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = ToolSpec("weather", "Weather of a city.", SCHEMA)
CLOCK = ToolSpec("clock", "The time.")
PAY = ToolSpec("pay", "Pays.", {"type": "object", "properties": {"euros": {"type": "number"}}})
RULES = {
    "weather": ToolRule(SCHEMA, lambda arguments: False),
    "clock": ToolRule(CLOCK.parameters, lambda arguments: False, idempotent=True),
    "pay": ToolRule(PAY.parameters, lambda arguments: arguments["euros"] > 10),
}


class Play:
    """A run and the last thing it asked for. A second passes with every event."""

    def __init__(self, mode="native", tools=(WEATHER, CLOCK, PAY), rules=RULES, **spec) -> None:
        self.rules = rules
        self.now = 100.0
        made = RunSpec(mode=mode, tools=tools, approval_seconds=60, **spec)
        self.run: Run = new_run("run_000000000042", made, [Message("user", "Do it.")], self.now)
        self.command = self.take(Started())

    def take(self, *events: Event):
        for event in events:
            self.now += 1
            self.run, self.command = advance(self.run, event, self.now, self.rules)
        return self.command

    def says(self, text: str, complete: bool = True, tokens: int = 1):
        """The model is shown its prompt and says this."""
        assert isinstance(self.command, Plan)
        self.take(Planned(5))
        assert isinstance(self.command, Generate), self.run
        return self.take(Generated(text, 5, tokens, complete))

    def chooses(self, label: str | None):
        self.take(Planned(5, 3))
        assert isinstance(self.command, Decide)
        return self.take(Decided(label, "it is likeliest", {"answer": 0.4, "clock": 0.6}, tokens=8))

    def sees(self, text: str, outcome="ok"):
        assert isinstance(self.command, CallTool)
        return self.take(Observed(self.command.call_id, text, outcome))

    @property
    def roles(self) -> list[str]:
        return [message.role for message in self.run.conversation]


def call(name: str, arguments: str = "{}") -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


def test_a_native_run_calls_what_the_model_asks_for_and_ends_with_its_answer() -> None:
    play = Play()

    command = play.says("Let me see. " + call("weather", '{"city": "Paris"}'))
    assert command == CallTool(call_id="call_000000000042_0_0", name="weather", arguments='{"city": "Paris"}')
    play.sees("sunny")
    command = play.says("It is sunny.")

    assert command == Finish()
    assert (play.run.status, play.run.finish_reason, play.run.result) == (
        "completed",
        "answer",
        "It is sunny.",
    )
    assert play.roles == ["user", "assistant", "tool", "assistant"]
    assert [step.text for step in play.run.steps] == ["Let me see.", "It is sunny."]
    assert play.run.use.model_dump() == {
        "steps": 2, "tool_calls": 1, "input_tokens": 10, "output_tokens": 2, "seconds": 5.0,
    }  # fmt: skip


def test_several_calls_of_one_turn_are_made_one_after_the_other() -> None:
    play = Play()

    first = play.says(call("clock") + call("weather", '{"city": "Rome"}'))
    second = play.sees("noon")
    after = play.sees("rain")

    assert (first.name, second.name) == ("clock", "weather")
    assert after == Plan(purpose="act")
    assert play.roles == ["user", "assistant", "tool", "tool"]


def test_a_scored_run_decides_then_writes_the_arguments_then_answers() -> None:
    play = Play("scored")
    assert play.command == Plan(purpose="decide", candidates=("weather", "clock", "pay", "answer"))

    assert play.chooses("weather") == Plan(purpose="arguments", tool="weather")
    assert play.says("city: Paris").arguments == '{"city": "Paris"}'
    play.sees("sunny")
    assert play.chooses("answer") == Plan(purpose="answer")
    play.says("It is sunny.")

    assert play.run.status == "completed"
    assert play.run.steps[0].decision.label == "weather"
    assert play.run.use.input_tokens == 8 + 5 + 8 + 5


def test_a_scored_call_without_parameters_needs_no_generation() -> None:
    play = Play("scored")

    assert play.chooses("clock").arguments == "{}"


def test_wrong_arguments_of_a_scored_call_are_shown_to_the_model_once() -> None:
    play = Play("scored")
    play.chooses("weather")

    again = play.says('{"town": "Paris"}')
    assert again.draft.text == '{"town": "Paris"}'
    assert again.draft.error == "'city' is a required property"
    command = play.says('{"town": "Paris"}')

    assert isinstance(command, Plan) and command.purpose == "decide"
    seen = play.run.steps[0].calls[0].observation
    assert (seen.outcome, seen.attempts) == ("invalid_arguments", 0)
    assert play.run.use.tool_calls == 0


def test_an_abstention_completes_the_run_without_a_result() -> None:
    play = Play("scored")

    assert play.chooses(None) == Finish()
    assert (play.run.status, play.run.finish_reason, play.run.result) == ("completed", "abstained", None)


def test_a_scored_run_without_tools_just_answers() -> None:
    assert Play("scored", tools=()).command == Plan(purpose="answer")
    assert Play("scored", rules={}).command == Plan(purpose="answer")


def test_a_failing_tool_is_an_observation_and_not_the_end() -> None:
    play = Play()
    play.says(call("weather", '{"city": "Paris"}'))

    command = play.sees("HTTP 500", "error")

    assert isinstance(command, Plan)
    assert play.run.conversation[-1].content == "HTTP 500"


def test_arguments_that_do_not_fit_the_schema_never_reach_the_tool_or_a_person() -> None:
    play = Play()

    command = play.says(call("weather", '{"city": 7}'))

    assert isinstance(command, Plan)
    assert "city: 7 is not of type 'string'" in play.run.conversation[-1].content


def test_a_call_that_needs_approval_waits_for_it_and_says_that_it_has_it() -> None:
    play = Play()
    command = play.says(call("pay", '{"euros": 100}'))
    assert command == AwaitApproval(call_id="call_000000000042_0_0", expires=play.now + 60)
    assert play.run.status == "awaiting_approval"

    command = play.take(Answered(command.call_id, True, by="boss"))

    assert isinstance(command, CallTool) and command.approved
    assert play.run.status == "running"
    assert play.run.calls[0].approval.by == "boss"


def test_whether_approval_is_needed_depends_on_the_arguments() -> None:
    command = Play().says(call("pay", '{"euros": 5}'))

    assert isinstance(command, CallTool) and not command.approved


def test_a_denied_call_is_not_made_and_the_model_is_told_why() -> None:
    play = Play()
    command = play.says(call("pay", '{"euros": 100}'))

    command = play.take(Answered(command.call_id, False, "boss", "too much"))

    assert isinstance(command, Plan)
    assert play.run.conversation[-1].content == "The call was not made: it was denied. Reason: too much"
    assert play.run.calls[0].observation.outcome == "denied"


def test_an_approval_that_nobody_gives_counts_as_denied_and_waiting_costs_no_time() -> None:
    play = Play()
    play.says(call("pay", '{"euros": 100}'))
    used = play.run.use.seconds

    play.now += 60
    command = play.take(Tick())

    assert isinstance(command, Plan)
    assert play.run.calls[0].approval.verdict == "expired"
    assert play.run.use.seconds == used


def test_an_approval_that_comes_too_late_does_not_count() -> None:
    play = Play()
    command = play.says(call("pay", '{"euros": 100}'))

    play.now += 60
    play.take(Answered(command.call_id, True, "boss"))

    assert play.run.calls[0].observation.outcome == "approval_expired"


def repeat(play: Play, calls: Sequence[str], results: Sequence[str]) -> None:
    for one, result in zip(calls, results, strict=True):
        play.says(one)
        play.sees(result)
        if play.run.ended:
            return


def test_the_same_call_with_the_same_result_is_pointed_out_and_then_ends_the_run() -> None:
    play = Play()
    ask = call("weather", '{"city": "Paris"}')

    repeat(play, [ask] * 3, ["sunny"] * 3)
    assert play.run.conversation[-1].content == f"sunny\n{WARNING}"
    repeat(play, [ask], ["sunny"])

    assert (play.run.status, play.run.finish_reason) == ("failed", "loop_detected")
    assert play.run.result == "sunny"


def test_a_cycle_of_two_or_three_calls_is_a_loop_too() -> None:
    for size in (2, 3):
        play = Play()
        cycle = [call("weather", f'{{"city": "{city}"}}') for city in "ABC"[:size]]
        repeat(play, cycle * 2, ["sunny"] * size * 2)
        assert WARNING in play.run.conversation[-1].content


def test_asking_again_is_no_loop_while_the_answer_changes() -> None:
    play = Play()

    repeat(play, [call("clock")] * 6, ["1", "2", "3", "4", "5", "6"])

    assert not play.run.warned


def test_the_run_ends_before_a_step_too_many_with_the_best_answer_so_far() -> None:
    play = Play(limits=RunLimits(max_steps=1))
    play.says("I think " + call("clock"))

    command = play.sees("noon")

    assert command == Finish()
    assert (play.run.status, play.run.finish_reason, play.run.result) == ("exhausted", "max_steps", "I think")
    assert play.run.error.message == "The run's budget max_steps (1) is used up."


def test_a_tool_call_too_many_is_not_made() -> None:
    play = Play(limits=RunLimits(max_tool_calls=1))
    play.says(call("clock") + call("clock"))

    command = play.sees("noon")

    assert command == Finish()
    assert play.run.finish_reason == "max_tool_calls"
    assert [c.observation.outcome for c in play.run.calls] == ["ok", "not_called"]
    assert play.run.result == "noon"


def test_a_generation_gets_the_tokens_that_are_left_and_is_not_begun_without_any() -> None:
    play = Play(limits=RunLimits(max_tokens=20))

    command = play.take(Planned(12))
    assert (command.max_tokens, command.limited_by) == (8, "max_tokens")
    play.take(Generated("a long answ", 12, 8, complete=False))

    assert (play.run.status, play.run.finish_reason, play.run.result) == (
        "exhausted",
        "max_tokens",
        "a long answ",
    )
    assert Play(limits=RunLimits(max_tokens=20)).take(Planned(20)) == Finish()


def test_a_generation_costs_no_more_than_the_money_that_is_left() -> None:
    prices = Prices(per_million_input_tokens=1, per_million_output_tokens=4, per_tool_call=1)
    play = Play(limits=RunLimits(max_cost=100e-6), prices=prices)

    command = play.take(Planned(60))

    assert (command.max_tokens, command.limited_by) == (10, "max_cost")
    play.take(Generated(call("clock"), 60, 10))
    assert play.run.finish_reason == "max_cost"  # one call costs more than is left
    assert play.run.cost <= 100e-6


def test_an_answer_cut_at_the_usual_length_is_complete_as_far_as_it_goes() -> None:
    play = Play(max_output_tokens=8)

    play.says("a long answ", complete=False, tokens=8)

    assert (play.run.status, play.run.finish_reason, play.run.result) == (
        "completed",
        "length",
        "a long answ",
    )


def test_a_remote_model_that_fails_for_a_moment_is_asked_again_twice() -> None:
    play = Play()
    overloaded = Failed("remote_overloaded", "busy", retry_after=7)

    assert play.take(overloaded) == Plan(purpose="act", delay=7)
    assert play.take(Planned(5), Failed("remote_unreachable", "down")) == Plan(purpose="act", delay=2)
    assert play.take(overloaded) == Finish()
    assert (play.run.status, play.run.error.code) == ("failed", "remote_overloaded")


def test_a_model_that_cannot_answer_this_prompt_is_not_asked_again() -> None:
    play = Play()

    play.take(Failed("generation_failed", "no"))

    assert (play.run.status, play.run.finish_reason) == ("failed", "error")


def test_after_a_restart_a_call_in_flight_is_not_made_again() -> None:
    play = Play()
    play.says(call("weather", '{"city": "Paris"}'))

    play.now += 1000
    command = play.take(Resumed())

    assert isinstance(command, Plan)
    seen = play.run.calls[0].observation
    assert seen.outcome == "outcome_unknown" and "may or may not" in seen.text
    assert play.run.use.seconds < 10


def test_after_a_restart_an_idempotent_call_is_made_again() -> None:
    play = Play()
    play.says(call("clock"))

    command = play.take(Resumed())

    assert isinstance(command, CallTool) and command.name == "clock"
    assert play.run.use.tool_calls == 2


def test_after_a_restart_a_prompt_is_planned_anew_with_the_tools_there_are() -> None:
    play = Play("scored")
    play.take(Planned(5))
    play.rules = {"clock": RULES["clock"]}

    assert play.take(Resumed()) == Plan(purpose="decide", candidates=("clock", "answer"))


def test_a_call_of_a_tool_that_has_gone_is_told_to_the_model() -> None:
    play = Play()
    play.rules = {}

    command = play.says(call("clock"))

    assert isinstance(command, Plan)
    assert play.run.conversation[-1].content == "There is no tool 'clock' at the moment."


def test_whatever_ends_a_run_its_conversation_can_be_gone_on_with() -> None:
    play = Play(limits=RunLimits(max_tool_calls=1, max_steps=3))
    play.says(call("clock") + call("weather", '{"city": "Paris"}'))

    play.sees("noon")

    assert play.roles == ["user", "assistant", "tool", "tool", "assistant"]
    assert play.run.conversation[-1].content == "(The run ended without an answer: max_tool_calls.)"
