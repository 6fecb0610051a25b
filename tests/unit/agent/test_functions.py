"""Typed Python functions as tools."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from agent_runtime.agent.tools import ToolError, function_tool
from agent_runtime.agent.tools.functions import MAX_THREADS


class Point(BaseModel):
    x: float
    y: float = 0.0


def forecast(
    city: Annotated[str, Field(description="Where.")], days: int = 1, unit: Literal["C", "F"] = "C"
) -> str:
    """Forecast for a city."""
    return f"{city}/{days}/{unit}"


async def call(function, arguments, **options):
    return await function_tool(function, **options).call(arguments)


def test_the_signature_is_the_schema_and_the_docstring_the_description() -> None:
    tool = function_tool(forecast)

    assert (tool.name, tool.description) == ("forecast", "Forecast for a city.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where."},
            "days": {"type": "integer", "default": 1},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


async def test_arguments_arrive_in_the_types_of_the_signature() -> None:
    def length(point: Point, json: int, copy: bool = False) -> dict[str, object]:
        """Names of BaseModel's methods are allowed."""
        return {"is": type(point).__name__, "x": point.x, "json": json, "copy": copy}

    output = await call(length, {"point": {"x": 3}, "json": 1})

    assert output.text == '{"is":"Point","x":3.0,"json":1,"copy":false}'


async def test_a_coroutine_is_awaited_and_a_string_is_taken_as_it_is() -> None:
    async def greet(name: str) -> str:
        """Greets."""
        await asyncio.sleep(0)
        return f"Hello, {name}"

    assert (await call(greet, {"name": "Ada"})).text == "Hello, Ada"


async def test_a_plain_function_runs_in_another_thread() -> None:
    def where() -> bool:
        """Where it runs."""
        return threading.current_thread() is threading.main_thread()

    assert (await call(where, {})).text == "false"


@pytest.mark.parametrize(
    "arguments", [{}, {"city": 3}, {"city": "Paris", "days": "x"}, {"city": "Paris", "z": 1}]
)
async def test_wrong_arguments_never_reach_the_function(arguments) -> None:
    with pytest.raises(ToolError):
        await call(forecast, arguments)


async def test_what_a_function_raises_becomes_the_tools_failure() -> None:
    def divide(a: int, b: int) -> float:
        """Divides."""
        return a / b

    def exhaust() -> str:
        """Raises what no future can hold."""
        return next(iter(()))

    with pytest.raises(ToolError, match="ZeroDivisionError: division by zero"):
        await call(divide, {"a": 1, "b": 0})
    with pytest.raises(ToolError, match="StopIteration"):
        await call(exhaust, {})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: function_tool(lambda x: x, name="f", description="F."), "annotate the parameter 'x'"),
        (lambda: function_tool(print), "name every parameter"),
        (lambda: function_tool(lambda: 1, name="f"), "docstring"),
        (lambda: function_tool(forecast, name="answer"), "this name stands for answering"),
        (lambda: function_tool(forecast, name="with blank"), "letters, digits"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused_by_name(make, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        make()


async def test_a_hanging_function_is_given_up_and_its_thread_stays_counted() -> None:
    """A thread cannot be stopped, so it counts until it ends by itself."""
    release, begun = threading.Event(), threading.Semaphore(0)

    def hang() -> str:
        """Hangs."""
        begun.release()
        release.wait()
        return "done"

    tool = function_tool(hang)
    hanging = [asyncio.create_task(tool.call({})) for _ in range(MAX_THREADS)]
    for _ in hanging:
        await asyncio.to_thread(begun.acquire)
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)

    waiting = asyncio.create_task(tool.call({}))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done() and not begun.acquire(blocking=False)
    release.set()

    assert (await waiting).text == "done"
