"""The remote backend against the runtime itself, as a second process with the example model.

The one idea: two ends written to one specification by different hands agree only when they have met.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent_runtime.contract import FailureCode, RemoteConfig
from agent_runtime.llm.base import Chat, Delta, GenerationError, Result, Sampling, Text
from agent_runtime.llm.chat import Message
from agent_runtime.llm.failures import LoadError
from agent_runtime.llm.remote import RemoteBackend
from tests.model.training import trained
from tests.unit.runtime.harness import Server, text, wait_for, write_config

KEY = "ao-for-this-test-only-0123456789"
QUESTION = "What is the capital of France?"
CHAT = Chat((Message("user", QUESTION),))
LONG = Chat((Message("user", "List the continents."),))


@pytest.fixture(scope="session")
def geography() -> Path:
    """The example model; about a minute the first time, then cached."""
    return trained()


@pytest.fixture(scope="module")
def runtime(geography: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The runtime, ready; it wants a key."""
    folder = tmp_path_factory.mktemp("runtime")
    (folder / "keys").mkdir()
    (folder / "keys" / "front").write_text(KEY)
    config = write_config(folder, geography, access={"api_keys_path": str(folder / "keys")})
    with Server(folder, "--config", str(config)) as server:
        server.http.headers["Authorization"] = f"Bearer {KEY}"
        yield server.wait_ready()


@pytest.fixture
async def backend(runtime: Server) -> AsyncIterator[RemoteBackend]:
    """A backend that calls it."""
    made = connect(runtime)
    yield made
    await made.aclose()


def connect(runtime: Server, model: str = "geography", key: str | None = KEY) -> RemoteBackend:
    """A backend for a runtime."""
    config = RemoteConfig(base_url=f"{runtime.url}/v1", model=model, timeout_seconds=60)
    return RemoteBackend(config, "front", api_key=key)


async def collect(
    backend: RemoteBackend, prompt: Chat | Text = CHAT, sampling: Sampling | None = None
) -> tuple[list[Delta], Result]:
    """All events of one answer."""
    running = backend.generate(backend.encode(prompt), sampling or Sampling(max_tokens=32))
    events = [event async for event in running.events()]
    assert isinstance(events[-1], Result)
    return [event for event in events if isinstance(event, Delta)], events[-1]


async def test_the_check_passes_for_the_served_model_and_names_it_for_another(
    backend: RemoteBackend, runtime: Server
) -> None:
    await backend.check()

    with pytest.raises(LoadError) as caught:
        await connect(runtime, model="other").check()
    assert caught.value.report.code is FailureCode.MODEL_NOT_FOUND
    assert "it has 'geography'" in caught.value.report.message


async def test_an_answer_through_the_backend_is_the_runtimes_own(
    backend: RemoteBackend, runtime: Server
) -> None:
    direct = runtime.chat(QUESTION, max_tokens=32)

    deltas, result = await collect(backend)

    counts = direct.json()["usage"]
    assert result.text == text(direct) != ""
    assert "".join(delta.text for delta in deltas) == result.text
    assert (result.prompt_tokens, result.completion_tokens) == (
        counts["prompt_tokens"],
        counts["completion_tokens"],
    )
    assert result.finish_reason == direct.json()["choices"][0]["finish_reason"]


async def test_raw_text_is_completed(backend: RemoteBackend, runtime: Server) -> None:
    direct = runtime.http.post("/v1/completions", json={"prompt": QUESTION, "max_tokens": 32}).json()

    _, result = await collect(backend, Text(QUESTION))

    assert result.text == direct["choices"][0]["text"]


async def test_a_length_limit_and_a_stop_string_end_the_answer_as_asked(backend: RemoteBackend) -> None:
    _, short = await collect(backend, LONG, Sampling(max_tokens=2))
    _, whole = await collect(backend, LONG, Sampling(max_tokens=64))
    word = whole.text.split()[1]
    _, stopped = await collect(backend, LONG, Sampling(max_tokens=64, stop=(word,)))

    assert short.finish_reason == "length"
    assert (whole.finish_reason, stopped.finish_reason) == ("stop", "stop")
    assert stopped.text == whole.text[: whole.text.index(word)]


async def test_the_runtimes_refusal_is_passed_on_with_its_words(backend: RemoteBackend) -> None:
    with pytest.raises(GenerationError) as caught:
        await collect(backend, Text("word " * 100_000))

    assert caught.value.code == "remote_refused"
    assert "tokens" in str(caught.value)


async def test_fifty_answers_at_once_are_all_right(backend: RemoteBackend) -> None:
    _, alone = await collect(backend)

    answers = await asyncio.gather(*(collect(backend) for _ in range(50)))

    assert {result.text for _, result in answers} == {alone.text}


async def test_cancelling_stops_the_runtimes_work(backend: RemoteBackend, runtime: Server) -> None:
    running = backend.generate(backend.encode(LONG), Sampling(max_tokens=512))
    await anext(running.events())

    running.cancel()
    await running.ended()

    await asyncio.to_thread(
        wait_for, "the runtime is idle", lambda: runtime.metric("vllm:num_requests_running") == 0
    )
    assert (await collect(backend))[1].text


async def test_a_runtime_that_dies_fails_its_answers_and_then_is_unreachable(
    geography: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, "--config", str(write_config(tmp_path, geography))) as server:
        server.wait_ready()
        backend = connect(server)
        running = backend.generate(backend.encode(LONG), Sampling(max_tokens=512))
        events = running.events()
        await anext(events)
        server.process.kill()
        server.wait_exit()

        with pytest.raises(GenerationError) as caught:
            async for event in events:
                if isinstance(event, Result):  # it may have been quicker than the signal
                    raise GenerationError("finished", "remote_failed")
        with pytest.raises(GenerationError) as gone:
            await collect(backend)
        await backend.aclose()

    assert caught.value.code == "remote_failed"
    assert gone.value.code == "remote_unreachable"


async def test_log_probabilities_come_through(backend: RemoteBackend) -> None:
    deltas, result = await collect(backend, CHAT, Sampling(max_tokens=8, top_logprobs=3))

    tokens = [token for delta in deltas for token in delta.logprobs]
    assert len(tokens) in (result.completion_tokens, result.completion_tokens - 1)  # the end has no text
    for token in tokens:
        assert token.logprob <= 0.0
        assert len(token.top) == 3
        assert max(value for _, _, value in token.top) >= token.logprob - 1e-6  # temperature 0


async def test_candidates_are_scored_or_refused_by_name(backend: RemoteBackend) -> None:
    encoded = backend.encode(Text(QUESTION))
    try:
        scores = await backend.score(encoded, ["Paris", "Lyon", "Madrid"])
    except GenerationError as error:
        # The example model knows no letters, so that question may have no answer; it must be said.
        assert error.code == "remote_failed"
        assert "no letter" in str(error)
    else:
        assert [score.candidate for score in scores] == ["Paris", "Lyon", "Madrid"]
        assert all(score.logprob <= 0.0 for score in scores)


async def test_a_wrong_key_is_access_denied(runtime: Server) -> None:
    with pytest.raises(LoadError) as caught:
        await connect(runtime, key="ao-wrong-0123456789-0123456789").check()

    assert caught.value.report.code is FailureCode.MODEL_ACCESS_DENIED
