"""Scale to zero, wake and load steps on the real node. Layer: tooling.

Requests go through the Service's cluster address in open loop; one that gets no connection has failed. The
peer of the load step is our own provider HPA, with metrics-server at its usual resolution of 15 s.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from bench.claim import Claim, Runs
from bench.live.watching import Agent, Audit
from tests.support.kubectl import ROOT, Kubectl, wait_for
from tests.support.traffic import Client, Outcome, Traffic, address_of, by_status, session, slow

WAKES = 7
HELD_ROUNDS = 3
HELD = 1000
HELD_RATE = 400.0
STEPS = 8
PEER_STEPS = 3
STEP_REQUESTS = 12
CYCLES_VARIABLE = "BENCH_WAKE_CYCLES"
CYCLES = 100
AGENTS = 4
SECONDS_VARIABLE = "BENCH_WAKE_SECONDS"
SECONDS = 1800.0
"""No cycle begins after so long."""
SLEEPY = {"minReplicas": 0, "maxReplicas": 1, "targetConcurrency": 8, "stableWindowSeconds": 6}
METRICS_SECONDS = 120.0


@contextmanager
def agent(name: str, autoscaling: dict[str, Any], **spec: Any) -> Iterator[Agent]:
    """An agent in a namespace of its own, Ready; all is deleted afterwards."""
    kubectl = Kubectl(f"bench-{name}-{uuid.uuid4().hex[:4]}")
    model = json.loads((ROOT / ".local" / "images.json").read_text())["geography"]
    resources = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
    body = {"model": {"uri": f"oci://{model}"}, "resources": resources, "autoscaling": autoscaling, **spec}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kubectl.namespace}})
    try:
        kind = {"apiVersion": "agentoperator.dev/v1alpha1", "kind": "AgentDeployment"}
        kubectl.apply({**kind, "metadata": {"name": name}, "spec": body})
        kubectl.wait_ready(name)
        yield Agent(kubectl, name)
    finally:
        kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false")


async def ask(one: Agent, number: int = 1, rate: float | None = None, **fields: Any) -> list[Outcome]:
    """Requests to an agent, all at once or at a rate."""
    async with session() as connections:
        return await _client(one, connections).burst(number, rate, **fields)


def _client(one: Agent, connections: Any) -> Client:
    return Client(connections, address_of(one.kubectl, one.name), one.name)


def serving_since(pod: dict[str, Any]) -> float:
    """When the runtime of a pod became ready, Unix seconds, by its own word."""
    with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8001/stats", timeout=5) as response:
        stats = json.load(response)
    assert stats["state"] == "READY", stats
    return float(stats["since"])


def overhead() -> Runs:
    """Milliseconds of a wake that are neither the pod's start nor the model's."""
    rounds: list[dict[str, float]] = []
    with agent("wake", SLEEPY | {"scaleDownDelaySeconds": 5}) as one:
        for _ in range(WAKES):
            one.wait_asleep()
            audit = Audit()
            (answer,) = asyncio.run(ask(one))
            assert answer.answered, answer.told()
            (pod,) = one.pods()
            ready = serving_since(pod)
            (created,) = audit.pods_created(one.kubectl.namespace, 1)
            rounds.append({
                "request to pod object": round((created - answer.sent) * 1000, 1),
                "pod object to runtime ready": round((ready - created) * 1000, 1),
                "runtime ready to first byte": round((answer.first_byte - ready) * 1000, 1),
            })  # fmt: skip
            print(f"    {rounds[-1]}", flush=True)
    return Runs(
        ours=[r["request to pod object"] + r["runtime ready to first byte"] for r in rounds],
        details={"milliseconds": rounds},
    )


def held(bound: int) -> Runs:
    """Requests that got neither an answer nor, beyond the bounds of two gateways, 503 with Retry-After."""
    rounds: list[dict[str, Any]] = []
    access = {"hold": {"maxRequests": bound}}
    with agent("held", SLEEPY | {"scaleDownDelaySeconds": 1}, access=access) as one:
        for _ in range(HELD_ROUNDS):
            one.wait_asleep()
            outcomes = asyncio.run(ask(one, HELD, HELD_RATE))
            declined = [o for o in outcomes if o.status == 503 and int(o.headers.get("retry-after", "0")) > 0]
            other = [o for o in outcomes if not o.answered and o not in declined]
            rounds.append({
                "by status": by_status(outcomes),
                "declined": len(declined),
                "neither": [o.told() for o in other][:5],
                "failed": len(other) if bound < HELD else len(other) + len(declined),
                "seconds to the last answer": round(max(o.ended for o in outcomes) - outcomes[0].sent, 2),
            })  # fmt: skip
            print(f"    {rounds[-1]}", flush=True)
    return Runs(ours=[float(r["failed"]) for r in rounds], details={"rounds": rounds})


async def _cycle(one: Agent, outcomes: list[Outcome]) -> None:
    """From the decision to sleep, with a request every 2 s, until a new pod has answered."""
    async with session() as connections:
        before = {pod["metadata"]["uid"] for pod in await asyncio.to_thread(one.pods)}
        while await asyncio.to_thread(one.desired) != 0:  # noqa: ASYNC110 - kubectl tells no events
            await asyncio.sleep(0.2)
        async with Traffic(_client(one, connections), every=2.0) as traffic:
            while True:
                await asyncio.sleep(0.3)
                now = await asyncio.to_thread(one.pods)
                ready = any(
                    c["type"] == "Ready" and c["status"] == "True" and pod["metadata"]["uid"] not in before
                    for pod in now
                    for c in pod["status"].get("conditions", [])
                )
                if ready:
                    break
        outcomes.extend(traffic.outcomes)


def _cycles_of(name: str, number: int, until: float) -> list[list[Outcome]]:
    """The requests of so many cycles of one agent; none begins after `until`."""
    found: list[list[Outcome]] = []
    with agent(name, SLEEPY | {"scaleDownDelaySeconds": 1}) as one:
        while len(found) < number and time.monotonic() < until:
            outcomes: list[Outcome] = []
            asyncio.run(_cycle(one, outcomes))
            found.append(outcomes)
            bad = _bad(outcomes)
            print(
                f"    {name} {len(found)}: {len(outcomes)} requests, {len(bad)} failed {bad[:1]}", flush=True
            )
    return found


def _bad(outcomes: list[Outcome]) -> list[str]:
    return [o.told() for o in outcomes if not o.answered]


def cycles() -> Runs:
    """Requests that failed in cycles of 1, 0 and 1 replicas, of a few agents side by side."""
    number = int(os.environ.get(CYCLES_VARIABLE, str(CYCLES)))
    begin = time.monotonic()
    until = begin + float(os.environ.get(SECONDS_VARIABLE, str(SECONDS)))
    shares = [number // AGENTS + (index < number % AGENTS) for index in range(AGENTS)]
    with ThreadPoolExecutor(AGENTS) as sides:
        turns = [
            sides.submit(_cycles_of, f"cycles-{index}", share, until) for index, share in enumerate(shares)
        ]
        found = [outcomes for turn in turns for outcomes in turn.result()]
    words = [word for outcomes in found for word in _bad(outcomes)]
    details = {
        "agents": AGENTS, "cycles": len(found), "requests": sum(map(len, found)),
        "seconds": round(time.monotonic() - begin), "failures": words[:20],
        "failed by cycle": [len(_bad(outcomes)) for outcomes in found],
    }  # fmt: skip
    return Runs(ours=[float(len(words))], details=details)


async def _step(one: Agent, audit: Audit) -> float:
    """Seconds from the first request of a step to the next pod object, under the load until it is there."""
    async with session() as connections:
        client = _client(one, connections)
        begin, busy = time.time(), True

        async def user() -> None:
            while busy:
                await client.ask(**slow(1.0))

        users = [asyncio.create_task(user()) for _ in range(STEP_REQUESTS)]
        try:
            (created,) = await asyncio.to_thread(
                audit.pods_created, one.kubectl.namespace, 1, METRICS_SECONDS
            )
        finally:
            busy = False
            await asyncio.gather(*users)
        return created - begin


def steps(name: str, number: int, autoscaling: dict[str, Any]) -> list[float]:
    """The reaction to each of so many load steps, from one replica."""
    found: list[float] = []
    rules = {"minReplicas": 1, "maxReplicas": 2} | autoscaling
    with agent(name, rules) as one:
        if rules.get("provider") == "HPA":
            wait_for("the HPA to see metrics", lambda: _measured(one), METRICS_SECONDS)
        for _ in range(number):
            wait_for("one replica", lambda: _alone(one), 300, lambda: one.kubectl.explain(one.name))
            time.sleep(2.0)
            found.append(round(asyncio.run(_step(one, Audit())), 3))
            print(f"    {name}: {found[-1]} s", flush=True)
    return found


def _alone(one: Agent) -> bool:
    return len(one.pods()) == 1


def _measured(one: Agent) -> bool:
    status = (one.kubectl.get("hpa", one.name) or {}).get("status", {})
    current = status.get("currentMetrics") or [{}]
    value = current[0].get("resource", {}).get("current", {}).get("averageUtilization")
    return value is not None and value < 50


def reaction() -> Runs:
    """Load step to new pod object, both sides at the same time; needs metrics-server."""
    native = {"targetConcurrency": 2, "stableWindowSeconds": 6, "scaleDownDelaySeconds": 1}
    cpu = {"provider": "HPA", "targetCPUUtilizationPercent": 100, "scaleDownDelaySeconds": 0}
    with ThreadPoolExecutor() as sides:
        asked = sides.submit(steps, "step", STEPS, native)
        peer = sides.submit(steps, "step-hpa", PEER_STEPS, cpu).result()
        ours = asked.result()
    return Runs(
        ours=ours, peer=peer, details={side: _spread(s) for side, s in (("ours", ours), ("peer", peer))}
    )


def _spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"p50": round(statistics.median(ordered), 3), "p95": p95, "steps": len(ordered)}


def within_bounds() -> Runs:
    """All are held."""
    return held(HELD)


def beyond_bounds() -> Runs:
    """A fifth is held."""
    return held(HELD // 10)


CLAIMS = (
    Claim(
        "wake-overhead", "scaling", "From a request at zero replicas to its first byte, without the pod's "
        "start and the model's load", "milliseconds", "lower", 300.0, overhead,
    ),
    Claim(
        "wake-held", "scaling", "Of 1,000 requests in 2.5 s at zero replicas, within the bounds of two "
        "gateways, those that fail", "requests", "lower", 0.0, within_bounds,
    ),
    Claim(
        "wake-held-beyond", "scaling", "The same with bounds of 100 for each gateway: those that get neither "
        "an answer nor 503 with Retry-After", "requests", "lower", 0.0, beyond_bounds,
    ),
    Claim(
        "wake-cycles", "scaling", "Requests that fail in cycles of 1, 0 and 1 replicas, one every 2 s from "
        "the decision to sleep to the new pod", "requests", "lower", 0.0, cycles,
    ),
    Claim(
        "step-reaction", "scaling", "From a load step to the new pod object, beside provider HPA with "
        "metrics-server", "seconds", "lower", 0.125, reaction,
        "provider HPA by CPU, metrics-server every 15 s",
    ),
)  # fmt: skip
