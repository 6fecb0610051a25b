"""The prompts of scored runs, word for word: models are trained on them."""

from __future__ import annotations

from agent_runtime.agent.commands import Draft, Plan
from agent_runtime.agent.prompts import prompt
from agent_runtime.agent.run import RunSpec
from agent_runtime.llm.base import Chat
from agent_runtime.llm.chat import Message, ToolCall, ToolSpec, render_plain

CAPITAL = ToolSpec(
    "capital",
    "Capital of a country.",
    {
        "type": "object",
        "properties": {
            "country": {"type": "string", "description": "A country's name."},
            "year": {"type": "integer"},
            "form": {"enum": ["short", "long"]},
        },
        "required": ["country"],
    },
)
ASKED = (Message("system", "Be brief."), Message("user", "What is the capital of France?"))
CALLED = (
    *ASKED,
    Message("assistant", "", (ToolCall("c0", "capital", '{"country": "France", "year": 1990}'),)),
    Message("tool", "Paris", tool_call_id="c0", name="capital"),
)
SPEC = RunSpec(mode="scored", tools=(CAPITAL,))


def shown(plan: Plan, messages, spec: RunSpec = SPEC) -> str:
    """What T5 reads."""
    chat = prompt(plan, messages, spec)
    assert isinstance(chat, Chat)
    return render_plain(chat.messages, chat.tools)


def test_the_choice_of_an_action_lists_the_candidates_and_ends_where_they_follow() -> None:
    assert shown(Plan(purpose="decide", candidates=("capital", "answer")), CALLED) == (
        "Be brief.\n"
        "User: What is the capital of France?\n"
        "Action: capital (country: France; year: 1990)\n"
        "Result: Paris\n"
        "Actions: capital - Capital of a country. | answer - Answer the user.\n"
        "Action:"
    )


def test_arguments_are_asked_for_by_name_and_type() -> None:
    assert shown(Plan(purpose="arguments", tool="capital"), ASKED) == (
        "Be brief.\n"
        "User: What is the capital of France?\n"
        "Tool: capital - Capital of a country.\n"
        "Parameters: country (string) - A country's name. | year (integer, optional) | "
        "form (short or long, optional)\n"
        "Arguments:"
    )


def test_a_mistake_is_shown_once_more_with_its_reason() -> None:
    draft = Draft(text="Paris\nFrance", error="'country' is a required property")

    assert shown(Plan(purpose="arguments", tool="capital", draft=draft), ASKED).endswith(
        "Arguments: Paris France\nError: 'country' is a required property\nArguments:"
    )


def test_with_a_grammar_the_schema_is_shown_as_it_is() -> None:
    text = shown(Plan(purpose="arguments", tool="capital"), ASKED, SPEC.model_copy(update={"grammar": True}))

    assert 'Schema: {"type": "object", "properties": {"country": {"type": "string"' in text
    assert "Parameters:" not in text


def test_a_single_question_reaches_the_model_unchanged() -> None:
    question = Message("user", "What is the capital of France?")

    assert shown(Plan(purpose="answer"), [question]) == "What is the capital of France?"


def test_the_answer_after_tool_calls_follows_their_results() -> None:
    assert shown(Plan(purpose="answer"), CALLED) == (
        "Be brief.\n"
        "User: What is the capital of France?\n"
        "Action: capital (country: France; year: 1990)\n"
        "Result: Paris\n"
        "Answer:"
    )


def test_a_native_run_leaves_the_rendering_to_the_model() -> None:
    assert prompt(Plan(purpose="act"), CALLED, SPEC) == Chat(CALLED, (CAPITAL,))
