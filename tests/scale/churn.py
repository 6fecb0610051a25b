"""Churn: agents are made, edited, scaled, hurt and deleted at a steady rate for a while.

Layer: tests. The one idea: the driver knows what it asked for, so in the end every agent can be judged:
it is what was asked last, or it is stuck. Everything is bounded: rate, time and number of agents.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.contract import ADMIN_PORT
from bench.fleet.client import MERGE, Client
from bench.fleet.scenarios import PLURALS
from bench.fleet.sides import OURS, Running
from tests.support.processes import sample

PER_SECOND = 5.0
MOST_AGENTS = 150
SAMPLE_SECONDS = 5.0
SETTLE_SECONDS = 90.0
KEPT_SECONDS = 25.0
"""A connection to a replica that is gone is closed by then: the client keeps it for 15 s."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The operator at one moment."""

    at: float
    rss_mib: float
    files: int
    """Open files other than the connections to replicas."""
    connections: int
    tasks: float
    depth: float


@dataclass
class Findings:
    """What was done, what was seen, and what is stuck in the end."""

    seconds: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    errors: float = 0.0
    replicas: int = 0
    """Wanted in the end."""


class Churn:
    """One run against one operator in one namespace."""

    def __init__(self, operator: Running, namespace: str, seed: int) -> None:
        self._operator = operator
        self._namespace = namespace
        self._random = random.Random(seed)
        self._path = OURS.agents(namespace)
        self._wanted: dict[str, int] = {}
        """Replicas that were asked for last, by agent."""
        self._made = 0
        self.findings = Findings()

    async def run(self, client: Client, seconds: float) -> None:
        """Churn for so many seconds, then wait until everything has settled, and judge."""
        began = time.monotonic()
        watching = asyncio.create_task(self._watch())
        number = 0
        while (elapsed := time.monotonic() - began) < seconds:
            await self._one(client)
            number += 1
            if number % 300 == 0:
                last = self.findings.samples[-1] if self.findings.samples else None
                print(
                    f"    {elapsed:.0f} s: {number} operations, {len(self._wanted)} agents, {last}",
                    flush=True,
                )
            await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
        self.findings.seconds = round(time.monotonic() - began, 1)
        await self._judge(client)
        self.findings.replicas = sum(self._wanted.values())
        await asyncio.sleep(KEPT_SECONDS)
        watching.cancel()
        self.findings.errors = sample(self._operator.metrics(), "agentoperator_reconcile_errors_total") or 0.0

    async def _one(self, client: Client) -> None:
        kinds = ["create"] * (3 if len(self._wanted) < MOST_AGENTS else 0)
        if self._wanted:
            kinds += ["edit", "scale", "suspend", "kill", "lose", "delete", "delete"]
        kind = self._random.choice(kinds)
        self.findings.done[kind] += 1
        name = self._random.choice(sorted(self._wanted)) if self._wanted else ""
        await getattr(self, f"_{kind}")(client, name)

    async def _create(self, client: Client, _: str) -> None:
        name = f"a{self._made:05}"
        self._made += 1
        self._wanted[name] = 1
        await client.send("POST", self._path, OURS.manifest(name, 1))

    async def _edit(self, client: Client, name: str) -> None:
        prompt = f"Answer in {self._random.randrange(2, 90)} words."
        await self._patch(client, name, {"agent": {"systemPrompt": prompt}})

    async def _scale(self, client: Client, name: str) -> None:
        self._wanted[name] = self._random.choice([0, 1, 1, 2, 3])
        await self._patch(client, name, {"replicas": self._wanted[name], "suspend": False})

    async def _suspend(self, client: Client, name: str) -> None:
        self._wanted[name] = 0
        await self._patch(client, name, {"suspend": True})

    async def _kill(self, client: Client, name: str) -> None:
        """A pod of the agent is deleted, as a node failure or an eviction would."""
        await self._hit(client, f"/api/v1/namespaces/{self._namespace}/pods", name)

    async def _lose(self, client: Client, name: str) -> None:
        """One of the agent's children is deleted by hand."""
        plural = self._random.choice(sorted(PLURALS))
        await self._hit(client, PLURALS[plural].format(self._namespace), name)

    async def _hit(self, client: Client, path: str, name: str) -> None:
        """Deletes the first of the agent's objects in a collection, if there is one."""
        selector = f"labelSelector=agentoperator.dev%2Fagent%3D{name}"
        for found in (await client.send("GET", f"{path}?{selector}&limit=1"))["items"]:
            await client.send("DELETE", f"{path}/{found['metadata']['name']}")

    async def _delete(self, client: Client, name: str) -> None:
        del self._wanted[name]
        await client.send("DELETE", f"{self._path}/{name}")

    async def _patch(self, client: Client, name: str, spec: dict[str, Any]) -> None:
        await client.send("PATCH", f"{self._path}/{name}", {"spec": spec}, MERGE)

    async def _watch(self) -> None:
        began = time.monotonic()
        while True:
            text = await asyncio.to_thread(self._operator.metrics)
            connections = self._operator.connections(ADMIN_PORT)
            self.findings.samples.append(
                Sample(
                    at=round(time.monotonic() - began, 1),
                    rss_mib=round(self._operator.rss_mib(), 1),
                    files=self._operator.files() - connections,
                    connections=connections,
                    tasks=sample(text, "agentoperator_tasks") or 0.0,
                    depth=sample(text, "workqueue_depth") or 0.0,
                )
            )
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _judge(self, client: Client) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            self.findings.stuck = await self._wrong(client)
            if not self.findings.stuck or time.monotonic() > deadline:
                return
            await asyncio.sleep(2)

    async def _wrong(self, client: Client) -> list[str]:
        """Every agent that is not what was asked, and every child of an agent that is gone."""
        agents = {a["metadata"]["name"]: a for a in (await client.send("GET", self._path))["items"]}
        wrong = [f"{name} exists or is missing" for name in agents.keys() ^ self._wanted.keys()]
        wrong += [
            f"{name}: {found}"
            for name, agent in agents.items()
            if name in self._wanted and (found := _unlike(agent, self._wanted[name]))
        ]
        for plural, path in PLURALS.items():
            children = (await client.send("GET", path.format(self._namespace)))["items"]
            counts = Counter(
                (c["metadata"].get("labels") or {}).get("agentoperator.dev/agent") for c in children
            )
            counts.pop(None, None)
            wrong += [
                f"{name}: {counts[name]} {plural}" for name in self._wanted.keys() | counts.keys()
                if counts[name] != (name in self._wanted)
            ]  # fmt: skip
        return wrong


def _unlike(agent: dict[str, Any], replicas: int) -> str:
    """How an agent's status differs from what was asked, "" when it does not."""
    status = agent.get("status") or {}
    if status.get("observedGeneration") != agent["metadata"]["generation"]:
        return "the newest spec was not observed"
    if status.get("ready") != f"{replicas}/{replicas}":
        return f"{status.get('ready')} instead of {replicas}/{replicas}"
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    if conditions["Ready"] != ("True" if replicas else "False") or conditions["Reconciling"] != "False":
        return str(conditions)
    return ""
