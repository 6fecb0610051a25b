"""The agent as a Python object."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from agent_runtime import Agent
from agent_runtime.agent.agent import model_config
from agent_runtime.agent.errors import AgentError
from agent_runtime.agent.tools import function_tool
from agent_runtime.contract import DecisionConfig, RunLimits
from agent_runtime.decision import CVaR
from agent_runtime.llm.base import Capabilities, GenerationError
from agent_runtime.llm.chat import Message
from tests.fakes.scripted_backend import ScriptedBackend
from tests.unit.agent.agents import call, weather

REPOSITORY = Path(__file__).resolve().parents[3]
PARIS = call("weather", '{"city": "Paris"}')


def test_a_prompt_is_answered_in_three_lines() -> None:
    with Agent(ScriptedBackend(["paris"])) as agent:
        assert agent.generate_text("What is the capital of France?") == "paris"
        assert agent.backend.prompts == ["What is the capital of France?"]


def test_sampling_reaches_the_model_and_the_system_prompt_comes_first() -> None:
    with Agent(ScriptedBackend(["paris"]), system_prompt="Be brief.") as agent:
        agent.generate_text("Capital?", max_new_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=["."])

        (sampling,) = agent.backend.samplings
        assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (7, 0.5, 0.9)
        assert (sampling.seed, sampling.stop) == (3, (".",))
        assert agent.backend.prompts == ["Be brief.\nCapital?"]


def test_a_conversation_is_answered() -> None:
    with Agent(ScriptedBackend(["Fine."])) as agent:
        assert agent.chat([{"role": "user", "content": "Hello"}, Message("assistant", "Hi"),
                           {"role": "user", "content": "How are you?"}]) == "Fine."  # fmt: skip
        assert agent.backend.prompts[0].endswith("Assistant: Hi\nUser: How are you?\nAssistant:")


def test_a_decision_comes_with_its_probabilities() -> None:
    backend = ScriptedBackend(scorer=lambda prompt, candidate: -len(candidate))
    with Agent(backend) as agent:
        decision = agent.decide("Shall we?", ["yes", "no"])
        assert (decision.label, decision.probabilities) == ("no", pytest.approx((0.268941, 0.731059), 1e-5))

        averse = agent.decide("Shall we?", ["yes", "no"], policy=CVaR(risk_aversion=0.5), utilities=[10, 1])
        assert averse.policy == CVaR(risk_aversion=0.5)


def test_with_tools_it_is_five_lines() -> None:
    with Agent(ScriptedBackend([PARIS, "It is sunny."]), tools=[weather]) as agent:
        result = agent.run("Weather in Paris?")

        assert result.text == "It is sunny."
        assert result.steps[0].calls[0].observation.text == "sunny in Paris"
        assert (result.usage.tool_calls, result.status) == (1, "completed")
        assert list(agent.tools) == ["weather"]


def test_a_decision_policy_chooses_the_actions() -> None:
    backend = ScriptedBackend(
        ["city: Paris", "It is sunny."],
        lambda prompt, candidate: 0.0 if (candidate == "answer") == ("Result:" in prompt) else -3.0,
        capabilities=Capabilities(),
    )
    with Agent(backend, tools=[weather], decision=DecisionConfig(policy="CVaR", risk_aversion=0.5)) as agent:
        result = agent.run("Weather in Paris?")

    assert [step.decision.label for step in result.steps] == ["weather", "answer"]


def test_runs_of_a_session_share_a_conversation() -> None:
    with Agent(ScriptedBackend(["Hello Ada.", "Ada."])) as agent:
        agent.run("I am Ada.", session="s")
        agent.run("Who am I?", session="s")

        assert "User: I am Ada." in agent.backend.prompts[1]


def paying():
    def pay(euros: int) -> str:
        """Pays."""
        return f"paid {euros}"

    return function_tool(pay, require_approval=True)


def test_a_call_that_needs_approval_is_asked_about_or_waits() -> None:
    says = lambda prompt: "Done." if "Tool pay" in prompt else call("pay", '{"euros": 5}')  # noqa: E731
    asked = []
    with Agent(ScriptedBackend(says), tools=[paying()]) as agent:
        result = agent.run("Pay.", approve=lambda one: asked.append(one.arguments) or True)
        assert (result.text, asked) == ("Done.", ['{"euros": 5}'])

        waiting = agent.run("Pay.")
        assert (waiting.status, waiting.awaiting.name) == ("awaiting_approval", "pay")
        denied = agent.answer(waiting, False, "not now")
        assert denied.steps[0].calls[0].observation.outcome == "denied"
        with pytest.raises(ValueError, match="waits for no approval"):
            agent.answer(denied, True)


def test_what_cannot_be_done_is_raised_and_a_run_that_fails_is_told() -> None:
    with Agent(ScriptedBackend([GenerationError("lost", "generation_failed")] * 2), tools=[weather]) as agent:
        with pytest.raises(AgentError, match="There is no tool 'other'"):
            agent.run("Do it.", tools=["other"])
        with pytest.raises(AgentError, match="can only lower a limit"):
            agent.run("Do it.", limits={"max_steps": 1000})
        with pytest.raises(ValueError, match="max_speed"):
            agent.run("Do it.", limits={"max_speed": 1})

        assert agent.run("Do it.").error.code == "generation_failed"
        with pytest.raises(GenerationError):
            agent.generate_text("Do it.")


def test_limits_of_the_agent_bound_its_runs() -> None:
    with Agent(ScriptedBackend([PARIS] * 3), tools=[weather], limits=RunLimits(max_steps=2)) as agent:
        assert agent.run("Weather?").finish_reason == "max_steps"


@pytest.mark.parametrize("tool", [3, "weather", lambda x: x])
def test_what_is_no_tool_is_refused(tool) -> None:
    with pytest.raises((TypeError, ValueError)):
        Agent(ScriptedBackend(), tools=[tool])


async def test_everything_can_be_awaited_and_used_where_a_loop_runs_already() -> None:
    says = lambda prompt: "It is sunny." if "Tool weather" in prompt else PARIS  # noqa: E731
    with Agent(ScriptedBackend(says), tools=[weather]) as agent:
        assert (await agent.arun("Weather in Paris?")).text == "It is sunny."
        assert await agent.agenerate_text("Weather?") == PARIS
        assert await agent.achat([{"role": "user", "content": "Weather?"}]) == PARIS
        assert (await agent.adecide("Shall we?", ["yes", "no"])).label == "yes"
        assert agent.run("Weather in Paris?").text == "It is sunny."


async def test_cancelling_an_awaited_run_cancels_the_run() -> None:
    backend = ScriptedBackend(["never"])
    with Agent(backend) as agent:
        backend.hold = asyncio.Event()
        task = asyncio.create_task(agent.arun("Wait."))
        while not backend.held.is_set():
            await asyncio.sleep(0.005)

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while agent.service.facts().runs_live:
            await asyncio.sleep(0.005)


def test_closing_closes_the_model_and_can_be_repeated() -> None:
    agent = Agent(ScriptedBackend())

    agent.close()
    agent.close()

    assert agent.backend.closed
    with pytest.raises(RuntimeError):
        agent.generate_text("Too late.")


def test_an_agent_that_is_forgotten_is_closed() -> None:
    agent = Agent(ScriptedBackend(["Fine."]), tools=[weather])
    backend, gone = agent.backend, weakref.ref(agent)
    agent.run("Hello")

    del agent
    gc.collect()

    assert gone() is None
    assert backend.closed


def test_a_program_that_never_closes_its_agent_ends() -> None:
    program = (
        "from agent_runtime import Agent\n"
        "from tests.fakes.scripted_backend import ScriptedBackend\n"
        "agent = Agent(ScriptedBackend(['Fine.']))\n"
        "print(agent.generate_text('Hello'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.stderr, done.returncode) == ("Fine.\n", "", 0)


def test_importing_the_package_and_the_agent_loads_no_torch() -> None:
    program = (
        "import sys, agent_runtime; agent_runtime.Agent; print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("name", "path", "repo_id"),
    [
        ("google/flan-t5-xl", None, "google/flan-t5-xl"),
        ("hf://google/flan-t5-xl", None, "google/flan-t5-xl"),
        ("./model", "model", None),
        ("/models/model", "/models/model", None),
    ],
)
def test_a_models_name_is_a_folder_or_a_hub_id(name, path, repo_id) -> None:
    config = model_config(name)

    assert (config.path, config.repo_id, config.uri) == (path, repo_id, name)
