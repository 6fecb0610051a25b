"""The probes over real HTTP on loopback."""

from __future__ import annotations

import aiohttp

from agent_operator.observability.metrics import Metrics
from agent_operator.observability.probes import ProbeServer


async def test_probes_say_what_is_wrong_and_metrics_are_served() -> None:
    problem = ""
    metrics = Metrics()
    server = ProbeServer(
        metrics.registry, healthy=lambda: "", ready=lambda: problem, host="127.0.0.1", port=0
    )
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:

            async def get(path: str) -> tuple[int, str]:
                async with client.get(path) as response:
                    return response.status, await response.text()

            assert await get("/healthz") == (200, "ok")
            assert await get("/readyz") == (200, "ok")
            problem = "the API server does not answer"
            assert await get("/readyz") == (503, problem)
            status, text = await get("/metrics")
            assert status == 200
            assert 'workqueue_depth{name="agentdeployment"} 0.0' in text
            assert (await get("/"))[0] == 404
    finally:
        await server.stop()
