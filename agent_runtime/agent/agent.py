"""The agent as a Python object. Layer: agent, façade; torch is loaded by `from_pretrained`, not before.

The one idea: a notebook and the pod run the same code, so an answer seen in one is the answer of the other.
An Agent is three modules and the data between them:

- the LLM module, `Agent.backend`: prompt in, text or P(y|x) out (llm.base.Backend);
- the task execution module, `Agent.service`: plan, decide, act, observe until the run ends (loop, driver,
  live);
- the environment interaction module, `Agent.tools`: a call in, an observation out (environment, tools).

    question -> task execution -> prompt -> LLM -> P(action | context), text
                      ^                                    |
                      '-- observation <- environment <- call

Everything happens on an event loop in a thread of its own, so the plain methods work where a loop is running
already (notebooks), and the methods that begin with `a` can be awaited from any loop.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from agent_runtime.agent.request import RunRequest
from agent_runtime.agent.run import Call, FinishReason, Run, RunError, Status, Step, Use
from agent_runtime.agent.service import AgentService
from agent_runtime.agent.store import MemoryStore, Store
from agent_runtime.agent.tools.base import Tool
from agent_runtime.agent.tools.functions import function_tool
from agent_runtime.agent.tools.registry import ToolRegistry
from agent_runtime.contract import (
    AgentConfig,
    DecisionConfig,
    ModelConfig,
    Parameters,
    Prices,
    RemoteConfig,
    RunLimits,
    ToolConfig,
)
from agent_runtime.decision import Decision, Policy, Utilities, decide
from agent_runtime.llm.base import Backend, Chat, GenerationError, Result, Sampling
from agent_runtime.llm.chat import Message, with_system_prompt

DType = Literal["auto", "float32", "float16", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
Quantization = Literal["none", "int8", "int4"]
AnyTool = Callable[..., Any] | Tool | ToolConfig
AnyMessage = Message | Mapping[str, str]
T = TypeVar("T")
P = ParamSpec("P")

CLOSE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run. `text` is the answer, or the best there is when the run did not complete;
    `awaiting` is the call that waits for `Agent.answer`."""

    id: str
    text: str | None
    status: Status
    finish_reason: FinishReason | None
    steps: tuple[Step, ...]
    usage: Use
    cost: float
    error: RunError | None
    awaiting: Call | None

    @classmethod
    def of(cls, run: Run) -> Self:
        """The result of a run that has ended or waits for a person."""
        return cls(
            run.id,
            run.result,
            run.status,
            run.finish_reason,
            run.steps,
            run.use,
            run.cost,
            run.error,
            run.awaited,
        )


def model_config(
    path_or_id: str,
    revision: str | None = None,
    dtype: DType = "auto",
    device: Device = "auto",
    quantization: Quantization = "none",
) -> ModelConfig:
    """What a person means by a model's name: a folder when it exists or looks like a path, else a hub id."""
    name = path_or_id.removeprefix("hf://")
    is_path = name == path_or_id and (Path(name).is_dir() or name.startswith((".", "/", "~")))
    path = str(Path(name).expanduser()) if is_path else None
    return ModelConfig(
        uri=path_or_id,
        served_name=Path(path).resolve().name if path else name,
        path=path,
        repo_id=None if path else name,
        revision=revision,
        dtype=dtype,
        device=device,
        quantization=quantization,
    )


class Agent:
    """A language model that answers, decides, and with tools acts.

    >>> agent = Agent.from_pretrained("google/flan-t5-xl")          # doctest: +SKIP
    >>> agent.generate_text("What is the capital of France?")       # doctest: +SKIP
    'paris'

    With tools in five lines:

    >>> def get_weather(city: str) -> str:                          # doctest: +SKIP
    ...     "The weather in a city."
    ...     return requests.get(f"https://weather.example/{city}").text
    >>> agent = Agent.from_pretrained("Qwen/Qwen2.5-7B-Instruct", tools=[get_weather])  # doctest: +SKIP
    >>> agent.run("What shall I wear in Paris today?").text         # doctest: +SKIP
    """

    def __init__(
        self,
        backend: Backend,
        *,
        tools: Sequence[AnyTool] = (),
        system_prompt: str | None = None,
        decision: DecisionConfig | None = None,
        limits: RunLimits | None = None,
        prices: Prices | None = None,
        parameters: Parameters | None = None,
        store: Store | None = None,
    ) -> None:
        """`tools` are typed functions with a docstring, Tool objects, or configurations of HTTP tools and
        MCP servers. With `decision` every action is chosen by that policy from the exact P(action |
        context). `store` keeps sessions, by default in memory. Raises TypeError or ValueError for a tool
        that cannot be.
        """
        self.backend = backend
        self.system_prompt = system_prompt
        self.parameters = parameters or Parameters()
        config = AgentConfig(
            system_prompt=system_prompt,
            decision=decision,
            limits=limits or RunLimits(),
            prices=prices or Prices(),
        )
        made = [_tool(tool) for tool in tools if not isinstance(tool, ToolConfig)]
        configured = [tool for tool in tools if isinstance(tool, ToolConfig)]
        self._loop = _Loop()
        try:
            self.service = self._loop.run(self._open, config, made, configured, store)
        except BaseException:
            self._loop.close()
            raise
        # Also at the interpreter's exit, while the loop's thread can still answer.
        self._closer = weakref.finalize(self, _close, self._loop, self.service, backend)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str,
        *,
        revision: str | None = None,
        dtype: DType = "auto",
        device: Device = "auto",
        quantization: Quantization = "none",
        parameters: Parameters | None = None,
        **agent: Any,
    ) -> Self:
        """Load a model from a `save_pretrained` folder or by its hub id (the token is read from HF_TOKEN);
        the other arguments are the constructor's.

        Raises `agent_runtime.llm.failures.LoadError`, whose text says what failed and how to mend it.
        """
        from agent_runtime.llm.local import load_backend

        config = model_config(path_or_id, revision, dtype, device, quantization)
        parameters = parameters or Parameters()
        return cls(load_backend(config, parameters), parameters=parameters, **agent)

    @classmethod
    def remote(cls, base_url: str, model: str, *, api_key: str | None = None, **agent: Any) -> Self:
        """An agent whose model is behind an OpenAI-compatible API, for example "https://host/v1"; the other
        arguments are the constructor's."""
        from agent_runtime.llm.remote import RemoteBackend

        backend = RemoteBackend(RemoteConfig(base_url=base_url, model=model), model, api_key=api_key)
        return cls(backend, **agent)

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The tools that can be called now."""
        return self.service.registry.snapshot()

    # ask

    def generate_text(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> str:
        """The answer to one prompt, as `POST /v1/chat/completions` with one user message would give it.

        `temperature` 0 takes the likeliest token each time; above it, `seed` makes the answer repeatable.
        Raises GenerationError.
        """
        sampling = Sampling(max_new_tokens, temperature, top_p, seed=seed, stop=tuple(stop))
        return self._loop.run(self._text, [Message("user", prompt)], sampling)

    async def agenerate_text(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> str:
        """`generate_text`, to be awaited."""
        sampling = Sampling(max_new_tokens, temperature, top_p, seed=seed, stop=tuple(stop))
        return await self._loop.arun(self._text, [Message("user", prompt)], sampling)

    def chat(
        self, messages: Sequence[AnyMessage], *, max_new_tokens: int = 128, temperature: float = 0.0
    ) -> str:
        """The answer to a conversation of Messages or of mappings with `role` and `content`."""
        return self._loop.run(self._text, _messages(messages), Sampling(max_new_tokens, temperature))

    async def achat(
        self, messages: Sequence[AnyMessage], *, max_new_tokens: int = 128, temperature: float = 0.0
    ) -> str:
        """`chat`, to be awaited."""
        return await self._loop.arun(self._text, _messages(messages), Sampling(max_new_tokens, temperature))

    # decide

    def decide(
        self,
        prompt: str,
        candidates: Sequence[str],
        *,
        policy: Policy | None = None,
        utilities: Utilities | Sequence[float] | None = None,
        seed: int | None = None,
    ) -> Decision:
        """Which candidate is the answer, by the policy over the exact P(candidate | prompt); greedy without
        one.

        Raises ValueError when policy, utilities and candidates do not fit together, GenerationError when the
        model cannot score.
        """
        return self._loop.run(self._decide, prompt, tuple(candidates), policy, utilities, seed)

    async def adecide(
        self,
        prompt: str,
        candidates: Sequence[str],
        *,
        policy: Policy | None = None,
        utilities: Utilities | Sequence[float] | None = None,
        seed: int | None = None,
    ) -> Decision:
        """`decide`, to be awaited."""
        return await self._loop.arun(self._decide, prompt, tuple(candidates), policy, utilities, seed)

    # act

    def run(
        self,
        task: str | Sequence[AnyMessage],
        *,
        session: str | None = None,
        tools: Sequence[str] | None = None,
        limits: Mapping[str, float] | None = None,
        seed: int | None = None,
        approve: Callable[[Call], bool] | None = None,
    ) -> RunResult:
        """Does a task with the tools and tells what came of it.

        Runs with the same `session` share a conversation. `tools` names those that may be used, `limits`
        lowers limits of the agent. `approve` is asked about each call that requires approval; without it
        the result's status is then `awaiting_approval`, and `answer` goes on. Raises AgentError for a
        request that cannot be done; a run that fails does not raise.
        """
        return self._loop.run(self._run, _request(task, session, tools, limits, seed), approve)

    async def arun(
        self,
        task: str | Sequence[AnyMessage],
        *,
        session: str | None = None,
        tools: Sequence[str] | None = None,
        limits: Mapping[str, float] | None = None,
        seed: int | None = None,
        approve: Callable[[Call], bool] | None = None,
    ) -> RunResult:
        """`run`, to be awaited; cancelling it cancels the run."""
        return await self._loop.arun(self._run, _request(task, session, tools, limits, seed), approve)

    def answer(self, result: RunResult, approve: bool, reason: str | None = None) -> RunResult:
        """Approves or denies the call that a run waits with, and goes on with the run."""
        return self._loop.run(self._answer, result, approve, reason)

    async def aanswer(self, result: RunResult, approve: bool, reason: str | None = None) -> RunResult:
        """`answer`, to be awaited."""
        return await self._loop.arun(self._answer, result, approve, reason)

    def close(self) -> None:
        """Ends runs, connections and the model. Harmless when done before."""
        self._closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # on the loop

    async def _open(
        self, config: AgentConfig, tools: list[Tool], configured: list[ToolConfig], store: Store | None
    ) -> AgentService:
        store = MemoryStore() if store is None else store
        registry, parameters = ToolRegistry(tools, configured), self.parameters
        # A reference to self in here would keep the agent for ever: the closer below holds the service.
        service = AgentService(self.backend, registry, store, config, parameters=lambda: parameters)
        await service.start()
        return service

    async def _text(self, messages: Sequence[Message], sampling: Sampling) -> str:
        encoded = self.backend.encode(Chat(with_system_prompt(messages, self.system_prompt)))
        generation = self.backend.generate(encoded, sampling, stream=False)
        try:
            async for event in generation.events():
                if isinstance(event, Result):
                    return event.text
        finally:
            generation.cancel()
        raise GenerationError("the model's answer ended without a result")

    async def _decide(
        self,
        prompt: str,
        candidates: tuple[str, ...],
        policy: Policy | None,
        utilities: Utilities | Sequence[float] | None,
        seed: int | None,
    ) -> Decision:
        messages = with_system_prompt([Message("user", prompt)], self.system_prompt)
        scores = await self.backend.score(self.backend.encode(Chat(messages)), candidates)
        return decide(candidates, scores, policy, utilities=utilities, seed=seed)

    async def _run(self, request: RunRequest, approve: Callable[[Call], bool] | None) -> RunResult:
        run = await self.service.begin(request)
        try:
            run = await self.service.wait(run.id)
            while approve is not None and run.awaited is not None:
                verdict = await asyncio.to_thread(approve, run.awaited)
                await self.service.answer(run.id, run.awaited.id, verdict, None)
                run = await self.service.wait(run.id)
        except asyncio.CancelledError:
            await self.service.cancel(run.id)
            raise
        return RunResult.of(run)

    async def _answer(self, result: RunResult, approve: bool, reason: str | None) -> RunResult:
        if result.awaiting is None:
            raise ValueError(f"the run {result.id} waits for no approval")
        await self.service.answer(result.id, result.awaiting.id, approve, reason)
        return RunResult.of(await self.service.wait(result.id))


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._portal: BlockingPortal = self._stack.enter_context(start_blocking_portal(name="agent"))

    def run(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """The coroutine's result, from any other thread; interrupting it cancels the coroutine."""
        future = self._start(work, *args, **kwargs)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def arun(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """The coroutine's result, from any loop; cancelling it cancels the coroutine."""
        return await asyncio.wrap_future(self._start(work, *args, **kwargs))

    def close(self) -> None:
        """Stops the loop. From its own thread nothing can be waited for, and the thread is a daemon."""
        with suppress(RuntimeError):
            self._stack.close()

    def _start(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        async def call() -> T:
            return await work(*args, **kwargs)

        return self._portal.start_task_soon(call)


def _close(loop: _Loop, service: AgentService, backend: Backend) -> None:
    """Everything an agent holds; refers to no Agent, which may be gone."""

    async def close() -> None:
        async with asyncio.timeout(CLOSE_SECONDS):
            await service.close()
            backend.close()
            if (aclose := getattr(backend, "aclose", None)) is not None:
                await aclose()

    with suppress(RuntimeError, TimeoutError):
        loop.run(close)
    loop.close()


def _tool(tool: AnyTool) -> Tool:
    if isinstance(tool, Tool):
        return tool
    if callable(tool):
        return function_tool(tool)
    raise TypeError(f"a tool is a function, a Tool or a ToolConfig, not {type(tool).__name__}")


def _messages(messages: Sequence[AnyMessage]) -> tuple[Message, ...]:
    return tuple(
        message if isinstance(message, Message) else Message(message["role"], message["content"])  # type: ignore[arg-type]
        for message in messages
    )


def _request(
    task: str | Sequence[AnyMessage],
    session: str | None,
    tools: Sequence[str] | None,
    limits: Mapping[str, float] | None,
    seed: int | None,
) -> RunRequest:
    messages = (Message("user", task),) if isinstance(task, str) else _messages(task)
    return RunRequest(
        messages, session, None if tools is None else tuple(tools), dict(limits or {}), seed=seed
    )
