"""Twenty thousand requests made from the runtime's own OpenAPI description: nobody is harmed by any."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator

import pytest

from tests.fuzz.campaign import Campaign, run
from tests.model.training import trained
from tests.unit.runtime.crowd import idle
from tests.unit.runtime.harness import Server, write_config

COUNT = int(os.environ.get("FUZZ_REQUESTS", "20000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
GROWTH = 192 * 2**20
"""Bytes that memory may grow by from the first twentieth to the last: caches of grammars and what is kept of
runs and responses, both bounded, fill meanwhile."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A runtime with everything on, whose answers are short and which keeps little."""
    folder = tmp_path_factory.mktemp("fuzz")
    parameters = {"max_output_tokens": 8, "max_input_tokens": 512, "max_queued_requests": 256}
    agent = {
        "sessions": {"store": "Memory", "ttl_seconds": 60, "max_sessions": 200},
        "limits": {"max_steps": 2, "timeout_seconds": 20},
    }
    config = write_config(folder, trained(), parameters=parameters, agent=agent)
    with Server(folder, "--config", str(config)) as server:
        yield server.wait_ready()


@pytest.fixture(scope="module")
def campaign(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """The campaign, run once."""
    document = server.http.get("/openapi.json").json()
    return asyncio.run(run(server, document, tmp_path_factory.mktemp("requests"), SEED, COUNT))


def test_no_answer_breaks_a_rule(campaign: Campaign, server: Server) -> None:
    errors = [json.dumps(line) for line in server.log() if line["level"] in ("error", "critical")]
    assert not campaign.defects, "\n".join([*campaign.defects, *errors])
    assert campaign.sent >= 0.99 * COUNT
    assert {"positive", "negative"} <= set(campaign.modes)


def test_every_operation_was_asked_and_both_kinds_of_answer_came(campaign: Campaign, server: Server) -> None:
    document = server.http.get("/openapi.json").json()
    every = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}

    assert every <= set(campaign.operations)
    assert campaign.statuses[200] > COUNT // 20
    assert campaign.statuses[400] > COUNT // 20


def test_a_witness_got_the_right_answer_every_time(campaign: Campaign) -> None:
    assert campaign.witnesses.wrong == []
    assert campaign.witnesses.answered > 100


def test_the_server_is_as_before(campaign: Campaign, server: Server) -> None:
    idle(server)

    assert server.http.get("/health/live").status_code == 200
    assert server.stats()["engine"]["restarts"] == 0
    assert [line for line in server.log() if line["level"] in ("error", "critical")] == []


def test_memory_does_not_grow_with_the_requests(campaign: Campaign) -> None:
    assert campaign.rss[-1] - campaign.rss[0] < GROWTH
