"""What the runtime does when things go wrong, as a real process with real weights.

Nothing here waits for a fixed time: the engine is held by a file (controlled.py) until the test has seen
what it wants to see.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from agent_runtime.contract import FailureCode, TerminationReport
from tests.model.training import REPOSITORY
from tests.unit.runtime.harness import CONTINENTS, Background, Server, text, wait_for, write_config

FRANCE = "What is the capital of France?"
CONTROLLED = "tests.unit.runtime.controlled"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, geography: Path) -> Iterator[Server]:
    """One controlled runtime with one slot and a queue of one, which stalls quickly."""
    folder = tmp_path_factory.mktemp("faults")
    parameters = {"max_concurrency": 1, "max_queued_requests": 1}
    config = write_config(folder, geography, parameters=parameters, stall_seconds=0.5)
    with Server(folder, "--config", str(config), module=CONTROLLED) as server:
        yield server.wait_ready()


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The shared runtime, let go and idle after each test."""
    yield shared
    for name in ("hold", "poison"):
        shared.clear(name)
    wait_for("idle", lambda: shared.metric("vllm:num_requests_running") == 0)


def running(server: Server, count: int = 1) -> None:
    """Wait until so many requests generate."""
    wait_for(f"{count} running", lambda: server.metric("vllm:num_requests_running") == count)


def waiting(server: Server, count: int) -> None:
    """Wait until so many requests queue."""
    wait_for(f"{count} waiting", lambda: server.metric("vllm:num_requests_waiting") == count)


def test_past_the_queue_a_request_is_told_when_to_return_and_nobody_else_is_harmed(server: Server) -> None:
    server.touch("hold")
    first = Background(lambda: server.chat(FRANCE))
    running(server)
    second = Background(lambda: server.chat(FRANCE))
    waiting(server, 1)

    refused = server.chat(FRANCE)
    server.clear("hold")

    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "queue_full"
    assert (text(first.result()), text(second.result())) == ("Paris", "Paris")


def test_a_hung_engine_fails_liveness_and_a_busy_one_does_not(server: Server) -> None:
    server.touch("hold")
    asked = Background(lambda: server.chat(CONTINENTS))
    running(server)

    hung = wait_for(
        "liveness false", lambda: (r := server.http.get("/health/live")).status_code == 503 and r.json()
    )
    server.clear("hold")
    asked.result()
    alive = server.http.get("/health/live")

    assert "1 request(s) running and no token" in hung["reason"]
    assert hung["state"] == "READY"
    assert alive.status_code == 200


def test_a_hung_engine_is_not_ready_and_says_so_and_is_ready_again_once_it_goes_on(server: Server) -> None:
    server.touch("hold")
    asked = Background(lambda: server.chat(CONTINENTS))
    running(server)

    hung = wait_for(
        "readiness false", lambda: (r := server.http.get("/health/ready")).status_code == 503 and r.json()
    )
    stalled = server.stats()
    startup = server.http.get("/health/startup").status_code
    server.clear("hold")
    asked.result()

    assert "1 request(s) running and no token" in hung["reason"]
    assert (stalled["progress"], stalled["engine"]["busy"]) == ("Stalled", 1)
    assert startup == 200
    wait_for("idle", lambda: server.stats()["progress"] == "Idle")
    assert server.http.get("/health/ready").status_code == 200


# Polls of /stats that wait


def poll(server: Server, load: int, state: str = "READY") -> httpx2.Response:
    """Waits for news as long as it may: an answer without any would come after a minute, with this load."""
    return server.admin.get("/stats", params={"wait": 60, "load": load, "state": state})


def test_a_first_request_and_its_end_are_news_to_a_poll(server: Server) -> None:
    polling = Background(lambda: poll(server, 0))
    server.touch("hold")
    asked = Background(lambda: server.chat(FRANCE))

    first = polling.result().json()["load"]
    polling = Background(lambda: poll(server, 1))
    server.clear("hold")
    last = polling.result().json()
    while last["load"]["running"]:  # that it had stalled was news, too
        last = poll(server, 1).json()

    assert text(asked.result()) == "Paris"
    assert first["running"] == 1


def test_polls_whose_clients_left_leave_nothing_behind(server: Server) -> None:
    before = server.tasks()
    host, port = server.admin_url.removeprefix("http://").split(":")
    leavers = [socket.create_connection((host, int(port))) for _ in range(16)]
    for leaver in leavers:
        leaver.sendall(b"GET /stats?wait=60&load=0 HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for("all of them wait", lambda: len([t for t in server.tasks() if "LongPoll.hold" in t]) == 16)

    for leaver in leavers:
        leaver.close()

    wait_for("they are gone", lambda: not [task for task in server.tasks() if "LongPoll.hold" in task])
    wait_for("nothing is left", lambda: len(server.tasks()) <= len(before))


def test_an_idle_engine_is_alive_longer_than_the_stall_time(server: Server) -> None:
    steps = server.metric("agent_runtime_decode_steps")
    until = time.monotonic() + 1.5  # three times stall_seconds
    answers = set()
    while time.monotonic() < until:
        answers.add(server.http.get("/health/live").status_code)

    assert answers == {200}
    assert server.metric("agent_runtime_decode_steps") == steps


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_generation(server: Server, stream: bool) -> None:
    before = server.metric("agent_runtime_decode_steps")
    identity = f"leaver-{stream}"
    server.touch("hold")
    body = json.dumps({"stream": stream, "messages": [{"role": "user", "content": CONTINENTS}]}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-request-id: {identity}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        running(server)
    wait_for("the server noticed", lambda: server.find("request", request_id=identity))
    server.clear("hold")
    wait_for("the slot is free", lambda: server.metric("vllm:num_requests_running") == 0)

    assert server.metric("agent_runtime_decode_steps") - before <= 3  # its whole answer takes 40
    assert text(server.chat(FRANCE)) == "Paris"


def test_a_client_that_leaves_the_queue_gives_its_place_back(server: Server) -> None:
    server.touch("hold")
    first = Background(lambda: server.chat(FRANCE))
    running(server)
    body = json.dumps({"messages": [{"role": "user", "content": FRANCE}]}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        waiting(server, 1)
    waiting(server, 0)
    server.clear("hold")

    assert text(first.result()) == "Paris"


def test_a_poisoned_request_fails_alone(server: Server) -> None:
    server.touch("hold")
    running_one = Background(lambda: server.chat(FRANCE))
    running(server)
    server.admin.patch("/admin/parameters", json={"max_concurrency": 2})
    poisoned = Background(lambda: server.chat("poison"))
    running(server, 2)
    server.clear("hold")

    failed = poisoned.result()
    server.admin.patch("/admin/parameters", json={"max_concurrency": 1})

    assert failed.status_code == 500
    assert failed.json()["error"]["code"] == "generation_failed"
    assert text(running_one.result()) == "Paris"


def test_the_death_of_the_engines_thread_costs_nobody_an_answer(server: Server) -> None:
    server.touch("death")

    assert text(server.chat(FRANCE)) == "Paris"
    assert server.stats()["engine"]["restarts"] >= 1


def start(folder: Path, model: Path, **settings: object) -> Server:
    """A controlled runtime of the test's own, to be ended by it."""
    return Server(folder, "--config", str(write_config(folder, model, **settings)), module=CONTROLLED)


def test_sigterm_lets_running_requests_finish_and_turns_new_ones_away(
    tmp_path: Path, geography: Path
) -> None:
    with start(tmp_path, geography) as server:
        server.wait_ready().touch("hold")
        whole = Background(lambda: server.chat(FRANCE))
        streamed = Background(lambda: server.chat(FRANCE, stream=True))
        running(server, 2)

        server.process.send_signal(signal.SIGTERM)
        wait_for("not ready", lambda: server.http.get("/health/ready").status_code == 503)
        turned_away = server.chat(FRANCE)
        live = server.http.get("/health/live").status_code
        server.clear("hold")

        assert turned_away.status_code == 503
        assert turned_away.headers["retry-after"] == "1"
        assert turned_away.json()["error"]["code"] == "server_draining"
        assert live == 200
        assert text(whole.result()) == "Paris"
        assert streamed.result().text.endswith("data: [DONE]\n\n")
        assert server.wait_exit() == 0
        assert not server.report.exists()


def test_polls_are_answered_at_sigterm_and_hold_up_no_exit(tmp_path: Path, geography: Path) -> None:
    with start(tmp_path, geography) as server:
        server.wait_ready().touch("hold")
        asked = Background(lambda: server.chat(FRANCE))
        running(server)
        waiting = Background(lambda: poll(server, 1))
        wait_for("it waits", lambda: any("LongPoll.hold" in task for task in server.tasks()))

        server.process.send_signal(signal.SIGTERM)
        told = waiting.result().json()
        until_the_end = Background(lambda: poll(server, 1, "DRAINING"))
        wait_for("it waits", lambda: any("LongPoll.hold" in task for task in server.tasks()))
        server.clear("hold")

        assert (told["state"], told["load"]["running"]) == ("DRAINING", 1)
        assert until_the_end.result().json()["load"]["running"] == 0
        assert text(asked.result()) == "Paris"
        assert server.wait_exit() == 0


def test_a_drain_is_bounded_even_when_the_engine_hangs(tmp_path: Path, geography: Path) -> None:
    with start(tmp_path, geography, drain_seconds=0.2) as server:
        server.wait_ready().touch("hold")
        Background(lambda: server.chat(FRANCE))
        running(server)

        server.process.send_signal(signal.SIGTERM)

        assert server.wait_exit() == 0
        assert server.find("drain bound reached", in_flight=1)


def test_an_engine_that_cannot_recover_ends_the_process_with_a_report(
    tmp_path: Path, geography: Path
) -> None:
    with start(tmp_path, geography) as server:
        server.wait_ready().touch("broken")

        failed = server.chat(FRANCE)

        assert failed.status_code == 500
        assert server.wait_exit() == 1
        report = TerminationReport.decode(server.report.read_text())
        assert report is not None
        assert report.code is FailureCode.INTERNAL
        assert "the device is lost" in report.message


def test_probes_answer_while_loading_and_sigterm_ends_it(tmp_path: Path) -> None:
    (tmp_path / "loading").touch()
    with start(tmp_path, tmp_path) as server:
        probes = {name: server.http.get(f"/health/{name}") for name in ("startup", "ready", "live")}
        refused = server.chat(FRANCE)
        metrics = server.metric('agent_runtime_state{state="LOADING"}')
        server.process.send_signal(signal.SIGTERM)

        assert {name: probe.status_code for name, probe in probes.items()} == {
            "startup": 503,
            "ready": 503,
            "live": 200,
        }
        assert probes["ready"].json()["state"] == "LOADING"
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_loading")
        assert metrics == 1
        assert server.wait_exit() == 0


def test_a_model_that_is_not_there_is_reported_with_its_path_and_exit_code_1(tmp_path: Path) -> None:
    server = Server(tmp_path, "--config", str(write_config(tmp_path, tmp_path / "no-such-model")))

    assert server.wait_exit() == 1
    report = TerminationReport.decode(server.report.read_text())
    assert report is not None
    assert report.code is FailureCode.MODEL_NOT_FOUND
    assert str(tmp_path / "no-such-model") in report.message
    assert report.remedy
    assert any(line.get("code") == "ModelNotFound" for line in server.log())


@pytest.mark.parametrize(
    ("content", "field"),
    [("{", "the file"), ('{"name": "a"}', "namespace"), ('{"name": 5}', "name")],
)
def test_a_wrong_configuration_is_reported_by_field(tmp_path: Path, content: str, field: str) -> None:
    (tmp_path / "config.json").write_text(content)
    server = Server(tmp_path, "--config", str(tmp_path / "config.json"))

    assert server.wait_exit() == 1
    report = TerminationReport.decode(server.report.read_text())
    assert report is not None
    assert report.code is FailureCode.CONFIG_INVALID
    assert f"config.json: {field}:" in report.message


def test_a_port_that_is_taken_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        server = Server(tmp_path, str(tmp_path), "--port", port)

        assert server.wait_exit() == 1
    report = TerminationReport.decode(server.report.read_text())
    assert report is not None
    assert f"127.0.0.1:{port}" in report.message


def test_ask_prints_the_answer_and_nothing_else(geography: Path) -> None:
    command = [sys.executable, "-m", "agent_runtime", "ask", str(geography), FRANCE]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "Paris\n", "")


def test_importing_the_package_and_the_contract_loads_nothing_heavy() -> None:
    program = (
        "import sys, agent_runtime, agent_runtime.contract\n"
        "heavy = {'torch', 'transformers', 'starlette', 'uvicorn', 'prometheus_client'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert agent_runtime.__all__ == ['Agent']\n"
    )

    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, check=False)

    assert ended.returncode == 0, ended.stderr.decode()
