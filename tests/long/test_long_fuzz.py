"""The schema fuzzer for as long as a night: ten times the requests, another seed."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.fuzz.campaign import run
from tests.fuzz.test_schema_fuzz import GROWTH, server
from tests.unit.runtime.crowd import idle
from tests.unit.runtime.harness import Server

COUNT = int(os.environ.get("FUZZ_REQUESTS", "200000"))
SEED = int(os.environ.get("FUZZ_SEED", "2"))

pytestmark = pytest.mark.long
__all__ = ["server"]


def test_two_hundred_thousand_requests_harm_nobody(
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    document = server.http.get("/openapi.json").json()

    found = asyncio.run(run(server, document, tmp_path_factory.mktemp("requests"), SEED, COUNT))
    idle(server)

    assert found.defects == []
    assert found.witnesses.wrong == []
    assert found.sent >= 0.99 * COUNT
    assert found.rss[-1] - found.rss[0] < GROWTH
    assert server.http.get("/health/live").status_code == 200
