"""Autoscaling by the operator on the real node: to zero and back, by load, by hand, and without a replica.

Requests go through the Service's cluster address in open loop; one that gets no connection has failed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import SYSTEM
from tests.e2e.test_agent_life import host_process_of
from tests.support.kubectl import Kubectl, wait_for
from tests.support.traffic import Client, Outcome, Traffic, address_of, failures, session, slow

SMALL = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
SLEEPY = {"minReplicas": 0, "maxReplicas": 2, "targetConcurrency": 4, "stableWindowSeconds": 6}
QUICK = SLEEPY | {"scaleDownDelaySeconds": 1}

Build = Callable[..., dict[str, Any]]
Clients = Callable[[str], Client]


@pytest.fixture
def apply(cluster: Kubectl, agent: Build) -> Iterator[Callable[..., str]]:
    """Applies an agent on the CPU under a name of its own and deletes it after the test."""
    names: list[str] = []

    def do(name: str, autoscaling: dict[str, Any], *, ready: bool = True, **spec: Any) -> str:
        name = f"{name}-{uuid.uuid4().hex[:4]}"
        cluster.apply(agent(name, resources=SMALL, autoscaling=autoscaling, **spec))
        names.append(name)
        if ready:
            cluster.wait_ready(name)
        return name

    yield do
    for name in names:
        cluster.run("delete", "agd", name, "--wait=true", "--ignore-not-found")
    wait_for("the pods to go", lambda: not cluster.list("pods"), 120)


@pytest.fixture
async def clients(cluster: Kubectl) -> AsyncIterator[Clients]:
    """A client of the agent with the given name."""
    async with session() as connections:
        yield lambda name: Client(connections, address_of(cluster, name), name)


def pods(kubectl: Kubectl, name: str) -> list[dict[str, Any]]:
    """Those that are not on their way out."""
    found = kubectl.list("pods", f"agentoperator.dev/agent={name}")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def gateways(kubectl: Kubectl, name: str) -> list[str]:
    """Addresses in the agent's slice of the gateway."""
    found = kubectl.get("endpointslice", f"{name}-gateway") or {}
    return [address for one in found.get("endpoints") or [] for address in one["addresses"]]


def scaling(kubectl: Kubectl, name: str) -> dict[str, Any]:
    """status.scaling."""
    status = (kubectl.get("agd", name) or {}).get("status", {})
    return dict(status.get("scaling", {}))


def asleep(kubectl: Kubectl, name: str) -> bool:
    """Nothing runs, and the gateway is there for the next request."""
    ready = kubectl.condition(name)
    return (
        (ready.get("status"), ready.get("reason")) == ("False", "ScaledToZero")
        and bool(gateways(kubectl, name))
        and not kubectl.list("pods", f"agentoperator.dev/agent={name}")
    )


async def until(what: str, look: Callable[[], Any], timeout: float, kubectl: Kubectl, name: str) -> Any:
    """wait_for beside traffic that goes on."""
    return await asyncio.to_thread(wait_for, what, look, timeout, lambda: kubectl.explain(name))


async def until_asleep(kubectl: Kubectl, name: str) -> None:
    await until(f"{name} to sleep", lambda: asleep(kubectl, name), 90, kubectl, name)
    await asyncio.sleep(0.5)  # the node's proxy follows the slices


async def test_an_idle_agent_sleeps_and_every_kind_of_request_wakes_it(
    cluster: Kubectl, apply: Callable[..., str], clients: Clients
) -> None:
    name = apply("sleepy", QUICK)
    client = clients(name)
    await until_asleep(cluster, name)
    assert len(gateways(cluster, name)) == 2

    answer = await client.ask()
    assert answer.answered, answer.told()
    assert "Paris" in answer.body
    assert len(pods(cluster, name)) == 1
    await until("the gateway to step aside", lambda: not gateways(cluster, name), 10, cluster, name)
    direct = await client.ask()
    assert direct.answered, direct.told()
    assert direct.ended - direct.sent < 2, "it goes to the pod at once"

    await until_asleep(cluster, name)
    stream = await client.ask(stream=True)
    assert stream.answered, stream.told()
    assert stream.headers["content-type"].startswith("text/event-stream")
    comments = [line for line in stream.body.splitlines() if line.startswith(":")]
    assert comments, stream.body
    assert stream.body.index(comments[0]) < stream.body.index("data:")
    assert "Paris" in stream.body
    assert stream.body.rstrip().endswith("data: [DONE]")
    assert stream.first_byte - stream.sent < 2, "the head comes before the pod"

    await until_asleep(cluster, name)
    burst = await client.burst(30)
    assert failures(burst) == []
    assert all("Paris" in one.body for one in burst)
    reasons = [entry["reason"] for entry in scaling(cluster, name)["history"]]
    assert any("held" in reason for reason in reasons), reasons


async def test_what_cannot_be_held_is_told_when_to_come_again(
    cluster: Kubectl, apply: Callable[..., str], clients: Clients
) -> None:
    hold = {"seconds": 5, "maxRequests": 2}
    lost = {"image": "127.0.0.1:5000/agent-operator/no-such-image:v0"}
    name = apply("stuck", QUICK, ready=False, runtime=lost, access={"hold": hold})
    await until("the gateways to be asked", lambda: gateways(cluster, name), 60, cluster, name)
    await asyncio.sleep(3)  # the node's proxy does not know the new Service before

    outcomes = await clients(name).burst(8)

    assert {one.status for one in outcomes} == {503}, failures(outcomes)
    assert all(int(one.headers["retry-after"]) > 0 for one in outcomes)
    full = [one for one in outcomes if "hold_queue_full" in one.body]
    expired = [one for one in outcomes if "agent_not_ready" in one.body]
    assert len(full) + len(expired) == 8
    assert 2 <= len(expired) <= 4, "two for each gateway"
    assert max(one.ended - one.sent for one in full) < 2
    assert all(4 < one.ended - one.sent < 8 for one in expired)


async def test_nobody_is_held_for_an_agent_whose_keys_the_gateway_may_not_read(
    cluster: Kubectl, apply: Callable[..., str], clients: Clients
) -> None:
    keys = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}}
    cluster.apply({**keys, "stringData": {"tester": "a-key-of-the-test-and-long-enough"}})
    name = apply("locked", QUICK, access={"apiKeysSecretRef": {"name": "keys"}})
    await until_asleep(cluster, name)

    for key in (None, "a-key-of-the-test-and-long-enough"):
        refused = await clients(name).ask(key=key)
        assert refused.status in {401, 503}, refused.told()
        assert refused.ended - refused.sent < 3, "it was not held"
        assert "key" in refused.body.lower(), refused.body
    assert asleep(cluster, name), "nobody without a key wakes an agent"


async def test_load_brings_replicas_and_its_end_takes_them_without_a_failed_request(
    cluster: Kubectl, apply: Callable[..., str], clients: Clients
) -> None:
    rules = {"minReplicas": 1, "maxReplicas": 3, "targetConcurrency": 2, "stableWindowSeconds": 6}
    name = apply("busy", rules | {"scaleDownDelaySeconds": 8})
    client = clients(name)
    async with Traffic(client, every=0.5) as steady:
        stop = asyncio.Event()
        heavy = [asyncio.create_task(_user(client, stop)) for _ in range(8)]
        await until(
            "more replicas wanted", lambda: scaling(cluster, name).get("desired", 0) >= 2, 20, cluster, name
        )
        await until("them to serve", lambda: _ready(cluster, name) >= 2, 90, cluster, name)
        stop.set()
        spent = [outcome for user in heavy for outcome in await user]
        ended = time.monotonic()
        await until("one replica wanted", lambda: scaling(cluster, name)["desired"] == 1, 90, cluster, name)
        waited = time.monotonic() - ended
        await until("one replica", lambda: len(pods(cluster, name)) == 1, 60, cluster, name)
        await until("the others to end", lambda: _all(cluster, name) == 1, 60, cluster, name)
    assert steady.failed == []
    assert failures(spent) == []
    assert len(steady.outcomes) > 20
    history = scaling(cluster, name)["history"]
    assert any(e["toReplicas"] > e["fromReplicas"] and "in flight" in e["reason"] for e in history), history
    assert waited >= 7, f"the delay is 8 s, the first step down came after {waited:.1f}"


async def test_the_replica_without_a_live_request_goes_first(
    cluster: Kubectl, apply: Callable[..., str], clients: Clients
) -> None:
    rules = {"minReplicas": 1, "maxReplicas": 2, "targetConcurrency": 4, "stableWindowSeconds": 6}
    name = apply("chosen", rules | {"scaleDownDelaySeconds": 20})  # the number asked for lasts so long
    cluster.run("scale", f"agd/{name}", "--replicas=2")
    await until("two replicas", lambda: _ready(cluster, name) == 2, 60, cluster, name)
    busy, idle = sorted(pods(cluster, name), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))[::-1]
    stop = asyncio.Event()
    async with session() as connections:
        direct = Client(connections, f"{busy['status']['podIP']}:8000", name)
        user = asyncio.create_task(_user(direct, stop))
        await until("one replica", lambda: len(pods(cluster, name)) == 1, 60, cluster, name)
        stop.set()
        outcomes = await user
    (left,) = pods(cluster, name)
    assert left["metadata"]["uid"] == busy["metadata"]["uid"], f"{idle['metadata']['name']} had nothing to do"
    assert failures(outcomes) == []


async def test_kubectl_scale_is_followed_and_suspend_wins(
    cluster: Kubectl, apply: Callable[..., str]
) -> None:
    rules = {"minReplicas": 1, "maxReplicas": 3, "targetConcurrency": 4, "scaleDownDelaySeconds": 300}
    name = apply("asked", rules)

    cluster.run("scale", f"agd/{name}", "--replicas=2")

    await until("two pods", lambda: len(pods(cluster, name)) == 2, 20, cluster, name)
    noted = scaling(cluster, name)
    assert (noted["desired"], noted["requested"]) == (2, 2)
    assert "spec.replicas was set to 2" in noted["history"][0]["reason"]

    cluster.run("patch", "agd", name, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    await until("no pod", lambda: not pods(cluster, name), 30, cluster, name)
    assert cluster.condition(name)["reason"] == "Suspended"
    assert cluster.condition(name, "ScalingActive")["reason"] == "Suspended"


async def test_a_runtime_that_falls_silent_is_not_ready_within_ten_seconds(
    cluster: Kubectl, apply: Callable[..., str]
) -> None:
    name = apply("mute", {"minReplicas": 1, "maxReplicas": 1, "targetConcurrency": 4})
    (pod,) = pods(cluster, name)
    await asyncio.sleep(3)  # it has to have answered once
    process = host_process_of(pod, b"agent_runtime")
    os.kill(process, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        await until("Ready to be False", lambda: _not_ready(cluster, name), 15, cluster, name)
        took = time.monotonic() - stopped
        told = cluster.condition(name)
        assert told["reason"] in {"ReplicaSilent", "PodNotReady", "Progressing"}, told
        assert took < 10, f"{took:.1f} s"
    finally:
        os.kill(process, signal.SIGCONT)
    cluster.wait_ready(name, 90)


async def test_always_through_the_gateway_and_back_without_a_failed_request(
    cluster: Kubectl, apply: Callable[..., str], clients: Clients
) -> None:
    rules = {"minReplicas": 1, "maxReplicas": 1, "targetConcurrency": 4}
    name = apply("fronted", rules)
    async with Traffic(clients(name), every=0.25) as traffic:
        await asyncio.sleep(2)
        await _switched(cluster, name, "Always", lambda: len(gateways(cluster, name)) == 2)
        before = await asyncio.to_thread(_passed, cluster, name)
        await asyncio.sleep(4)
        through = await asyncio.to_thread(_passed, cluster, name) - before
        await _switched(cluster, name, "OnDemand", lambda: not gateways(cluster, name))
        await asyncio.sleep(3)
    assert traffic.failed == []
    assert through >= 10, f"{through} of about 16 requests went through the gateway"


async def _switched(kubectl: Kubectl, name: str, mode: str, done: Callable[[], bool]) -> None:
    patch = f'{{"spec":{{"access":{{"gateway":"{mode}"}}}}}}'
    await asyncio.to_thread(kubectl.run, "patch", "agd", name, "--type=merge", "-p", patch)
    await until(f"gateway {mode}", done, 30, kubectl, name)
    await asyncio.sleep(1)


async def _user(client: Client, stop: asyncio.Event) -> list[Outcome]:
    """Somebody who asks again as soon as the answer is there."""
    outcomes = []
    while not stop.is_set():
        outcomes.append(await client.ask(**slow(0.8)))
    return outcomes


def _passed(kubectl: Kubectl, name: str) -> int:
    """Requests that the gateways have given to replicas of the agent."""
    system, total = Kubectl(SYSTEM), 0.0
    for pod in system.list("pods", "app.kubernetes.io/component=gateway"):
        path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}:8082/proxy/metrics"
        wanted = f'agent="{name}",namespace="{kubectl.namespace}"'
        for line in system.run("get", "--raw", path).splitlines():
            if line.startswith("agentoperator_gateway_passed_total{") and wanted in line:
                total += float(line.rsplit(" ", 1)[1])
    return int(total)


def _all(kubectl: Kubectl, name: str) -> int:
    return len(kubectl.list("pods", f"agentoperator.dev/agent={name}"))


def _not_ready(kubectl: Kubectl, name: str) -> bool:
    return kubectl.condition(name).get("status") == "False"


def _ready(kubectl: Kubectl, name: str) -> int:
    conditions = [
        {c["type"]: c["status"] for c in p["status"].get("conditions", [])} for p in pods(kubectl, name)
    ]
    return sum(found.get("Ready") == "True" for found in conditions)
