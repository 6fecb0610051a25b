"""OpenAI's JavaScript client, as npm installs it, against the runtime as a process."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.clients.install import NODE, SOURCE, installed
from tests.model.training import trained
from tests.unit.runtime.harness import DEADLINE, Background, Server, wait_for, write_config

CONTINENTS = "Africa, Antarctica, Asia, Europe, North America, Oceania and South America"
CONTROLLED = "tests.unit.runtime.controlled"

Ask = Callable[[str], Any]


@pytest.fixture(scope="session")
def folder() -> Path:
    """Where the client is installed."""
    return installed()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A runtime with two slots and no queue that keeps responses; the engine obeys files."""
    control = tmp_path_factory.mktemp("npm")
    parameters = {"max_concurrency": 2, "max_queued_requests": 0, "max_output_tokens": 100_000}
    config = write_config(control, trained(), parameters=parameters, agent={"sessions": {}})
    with Server(control, "--config", str(config), module=CONTROLLED) as server:
        yield server.wait_ready()


@pytest.fixture(scope="module")
def ask(server: Server, folder: Path) -> Ask:
    """Runs one case of client.mjs and gives what it says."""
    script = folder / "client.mjs"
    script.write_bytes((SOURCE / "client.mjs").read_bytes())

    def run(case: str) -> Any:
        ended = subprocess.run(
            [NODE, script, server.url, case], capture_output=True, text=True, check=False, timeout=DEADLINE
        )
        assert ended.returncode == 0, f"{case}: {ended.stdout}{ended.stderr}"
        return json.loads(ended.stdout)

    return run


def test_models_are_listed_and_found(ask: Ask) -> None:
    assert ask("models") == {"listed": ["geography"], "one": "geography"}


def test_a_chat_is_answered_with_its_usage(ask: Ask) -> None:
    answer = ask("chat")

    assert (answer["content"], answer["finish_reason"]) == ("Paris", "stop")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 2


def test_a_streamed_chat_is_the_whole_answer_and_ends_with_usage(ask: Ask) -> None:
    answer = ask("chat_stream")

    assert (answer["roles"], answer["content"], answer["finish_reasons"]) == (
        ["assistant"],
        CONTINENTS,
        ["stop"],
    )
    assert answer["usage"]["completion_tokens"] > 5


def test_the_clients_own_accumulator_accepts_the_stream(ask: Ask) -> None:
    assert ask("chat_stream_helper") == {"content": CONTINENTS, "finish_reason": "stop"}


def test_a_completion_is_answered_whole_and_streamed(ask: Ask) -> None:
    assert ask("completion") == {"text": "Paris", "finish_reason": "stop"}
    assert ask("completion_stream") == {"text": CONTINENTS, "finish_reason": "stop"}


def test_a_response_is_answered_with_its_usage(ask: Ask) -> None:
    answer = ask("response")

    assert (answer["text"], answer["status"]) == ("Paris", "completed")
    assert answer["usage"]["total_tokens"] > 2


def test_a_streamed_response_is_numbered_events_with_the_whole_answer(ask: Ask) -> None:
    answer = ask("response_stream")

    assert (answer["first"], answer["last"]) == ("response.created", "response.completed")
    assert answer["text"] == answer["final"] == CONTINENTS
    assert answer["numbers"] == list(range(len(answer["numbers"])))


def test_a_kept_response_is_found_continued_and_forgotten(ask: Ask) -> None:
    answer = ask("response_chain")

    assert (answer["kept"], answer["status"]) == ("Paris", "completed")
    assert answer["previous"].startswith("resp_")
    assert (answer["gone"]["class"], answer["gone"]["code"]) == ("NotFoundError", "response_not_found")


@pytest.mark.parametrize("case", ["forced_tool", "forced_tool_stream"])
def test_a_forced_tool_is_called_with_arguments_of_its_schema(ask: Ask, case: str) -> None:
    answer = ask(case)

    assert (answer["name"], answer["finish_reason"]) == ("look_up", "tool_calls")
    assert answer["arguments"]["city"] in ("Paris", "Rome")


def test_structured_output_satisfies_its_schema(ask: Ask) -> None:
    answer = ask("structured")

    assert list(answer) == ["capital"]
    assert answer["capital"] in ("Paris", "Rome")


@pytest.mark.parametrize(
    ("case", "kind", "status", "code", "param"),
    [
        ("bad_value", "BadRequestError", 400, "invalid_value", "temperature"),
        ("unknown_field", "BadRequestError", 400, "unsupported_field", "reasoning_effort"),
        ("unknown_model", "NotFoundError", 404, "model_not_found", "model"),
    ],
)
def test_errors_are_the_clients_own_classes_with_code_and_field(
    ask: Ask, case: str, kind: str, status: int, code: str, param: str
) -> None:
    error = ask(case)

    assert (error["class"], error["status"], error["code"], error["param"]) == (kind, status, code, param)
    assert error["type"] == "invalid_request_error"


@pytest.fixture
def full(server: Server) -> Iterator[list[Background]]:
    """Both slots taken until the test ends, or lets go itself."""
    server.touch("hold")
    taken = [Background(lambda: server.chat("What is the capital of France?")) for _ in range(2)]
    wait_for("both slots taken", lambda: server.stats()["load"]["running"] == 2)
    yield taken
    server.clear("hold")
    assert [one.result().status_code for one in taken] == [200, 200]


def test_a_full_server_is_a_rate_limit_error_that_says_when_to_return(
    ask: Ask, full: list[Background]
) -> None:
    error = ask("rate_limited")

    assert (error["class"], error["status"], error["code"]) == ("RateLimitError", 429, "queue_full")
    assert int(error["retryAfter"]) >= 1


def test_the_clients_retries_wait_as_long_as_they_are_told_and_succeed(
    ask: Ask, server: Server, full: list[Background]
) -> None:
    def refused() -> float:
        return server.metric('agent_runtime_requests_refused_total{code="queue_full"')

    def let_go_after_two() -> None:
        wait_for("two refusals", lambda: refused() >= before + 2)
        server.clear("hold")

    before = refused()
    letting_go = threading.Thread(target=let_go_after_two)
    letting_go.start()
    answer = ask("retried")
    letting_go.join()

    waits = [later - earlier for earlier, later in pairwise(answer["attempts"])]
    assert answer["content"] == "Paris"
    assert len(waits) >= 2
    # Its own first waits would be shorter than the second that Retry-After asks for at least.
    assert min(waits) >= 0.99


def test_an_aborted_stream_is_seen_by_the_server_and_frees_its_slot(ask: Ask, server: Server) -> None:
    assert ask("aborted")["chunks"] >= 1

    gone = wait_for("the server saw it", lambda: server.find("client disconnected", request_id="npm-abort"))
    wait_for("the slot is free", lambda: server.stats()["load"]["running"] == 0)
    assert gone["level"] == "info"
    assert server.stats()["engine"]["busy"] == 0
