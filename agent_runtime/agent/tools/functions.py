"""Python functions as tools. Layer: agent; pydantic and anyio.

The one idea: the signature is the schema and the docstring is the description, so a tool is written once.
The arguments are validated by pydantic into the types of the signature before the function sees them. A
plain function runs in a thread; a thread cannot be stopped, so at most MAX_THREADS of them exist, and a
call that finds none waits within its time limit.

The functions are the programmer's. Nothing here compiles, evaluates or imports what a model wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_type_hints

from anyio.lowlevel import RunVar
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticSchemaGenerationError,
    ValidationError,
    create_model,
)
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticSerializationError, to_json

from agent_runtime.agent.tools.base import Tool, ToolError, ToolOutput, ToolPolicy

MAX_THREADS = 32

_free_threads: RunVar[asyncio.Semaphore] = RunVar("agent_tool_threads")


def function_tool(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_seconds: float = 10.0,
    retries: int = 0,
    require_approval: bool | Callable[[Mapping[str, Any]], bool] = False,
    max_result_bytes: int = 16_384,
    idempotent: bool = False,
) -> Tool:
    """The function as a tool; with defaults for everything but its types and its docstring.

    A str result reaches the model as it is, anything else as JSON. Raises TypeError or ValueError naming
    what the function lacks.
    """
    called = str(name or getattr(function, "__name__", "function"))
    described = description or inspect.getdoc(function) or ""
    if not described.strip():
        raise ValueError(f"tool '{called}': give the function a docstring; the model chooses by it")
    model = _arguments_model(called, function)
    policy = ToolPolicy(timeout_seconds, retries, require_approval, max_result_bytes, idempotent)
    return Tool(called, described, _schema(called, model), _caller(function, model), policy)


def _caller(
    function: Callable[..., Any], model: type[BaseModel]
) -> Callable[[dict[str, Any]], Awaitable[ToolOutput]]:
    async def call(arguments: dict[str, Any]) -> ToolOutput:
        try:
            known = model.model_validate(arguments)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ToolError(f"{where}: {first['msg']}") from None
        given = {field.alias or key: getattr(known, key) for key, field in type(known).model_fields.items()}
        try:
            if inspect.iscoroutinefunction(function):
                result = await function(**given)
            else:
                result = await _in_thread(lambda: function(**given))
        except ToolError:
            raise
        except Exception as error:
            raise ToolError(f"{type(error).__name__}: {error}") from error
        return ToolOutput(result if isinstance(result, str) else _json(result))

    return call


async def _in_thread(function: Callable[[], Any]) -> Any:
    """The function's result, from a thread of its own that is given up when the caller is cancelled.

    anyio.to_thread would do, but its limiter counts an abandoned thread as free.
    """
    free = _threads()
    await free.acquire()
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        free.release()
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def work() -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = function()
        except BaseException as error:
            # A future cannot hold StopIteration.
            failure = RuntimeError("StopIteration") if isinstance(error, StopIteration) else error
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it everybody who waited
            loop.call_soon_threadsafe(settle, result, failure)

    context = contextvars.copy_context()
    try:
        threading.Thread(target=context.run, args=(work,), name="tool", daemon=True).start()
    except RuntimeError:
        free.release()
        raise
    return await done


def _threads() -> asyncio.Semaphore:
    """This event loop's threads."""
    try:
        return _free_threads.get()
    except LookupError:
        free = asyncio.Semaphore(MAX_THREADS)
        _free_threads.set(free)
        return free


def _arguments_model(name: str, function: Callable[..., Any]) -> type[BaseModel]:
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"tool '{name}': the annotation {error.name!r} is not known where it is defined"
        ) from None
    fields: dict[str, Any] = {}
    # The names are aliases, because a parameter may be called like a method of pydantic's BaseModel.
    for number, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"tool '{name}': '{parameter}' cannot be given by name; name every parameter")
        if parameter.name not in hints:
            raise TypeError(f"tool '{name}': annotate the parameter '{parameter.name}'")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"field_{number}"] = (hints[parameter.name], Field(default=default, alias=parameter.name))
    config = ConfigDict(extra="forbid")
    try:
        return create_model(f"{name}_arguments", __config__=config, **fields)
    except (PydanticSchemaGenerationError, NameError) as error:
        raise TypeError(f"tool '{name}': {error}") from None


def _schema(name: str, model: type[BaseModel]) -> dict[str, Any]:
    try:
        schema = model.model_json_schema()
    except PydanticInvalidForJsonSchema as error:
        raise TypeError(f"tool '{name}': {error}") from None
    for part in (schema, *schema.get("properties", {}).values()):
        part.pop("title", None)  # made from the names, which the model sees anyway
    return schema


def _json(result: Any) -> str:
    try:
        return to_json(result, inf_nan_mode="constants").decode()
    except (PydanticSerializationError, UnicodeDecodeError):
        return str(result)
