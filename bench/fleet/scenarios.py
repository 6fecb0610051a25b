"""What is done to an operator, and what is read off. Layer: tooling.

The one idea: every scenario is the same requests for every side, and its figures are counted from the
audit log afterwards. A scenario ends when the side has written nothing for QUIET_SECONDS.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.fleet import trail
from bench.fleet.client import MERGE, Client, in_parallel, run
from bench.fleet.sides import GO, Running, Side
from bench.peers import children
from tests.support.audit import AuditMark, Request

QUIET_SECONDS = 5.0
READS = ('"verb":"get"', '"verb":"list"', '"verb":"watch"', '"resource":"leases"')
PLURALS = {
    "configmaps": "/api/v1/namespaces/{}/configmaps",
    "services": "/api/v1/namespaces/{}/services",
    "deployments": "/apis/apps/v1/namespaces/{}/deployments",
}


@dataclass
class Watched:
    """What happened between the mark and the quiet, and what it cost."""

    requests: list[Request] = field(default_factory=list)
    cpu_seconds: float = 0.0
    rss_mib: float = 0.0
    reconciles: float | None = None


def name(number: int) -> str:
    return f"a{number:05}"


@contextmanager
def watched(side: Side, operator: Running, namespace: str) -> Iterator[Watched]:
    """Records what a block of requests leads to, until the side is quiet."""
    found = Watched()
    mark, cpu, reconciles = AuditMark(), operator.cpu_seconds(), operator.reconciles()
    yield found
    settle(mark, side, namespace)
    found.cpu_seconds = operator.cpu_seconds() - cpu
    found.rss_mib = operator.rss_mib()
    after = operator.reconciles()
    found.reconciles = None if after is None or reconciles is None else after - reconciles
    found.requests = list(mark.requests(namespace))


def settle(mark: AuditMark, side: Side, namespace: str) -> None:
    """Waits until the side has written nothing for a while. Reads only what the log grew by."""
    offset, since = mark.offset, time.monotonic()
    needles = (f'"username":"{side.user}"', f'"namespace":"{namespace}"')
    while time.monotonic() - since < QUIET_SECONDS:
        time.sleep(0.5)
        with mark.path.open() as log:
            log.seek(offset)
            grown = log.read()
        whole = grown.rpartition("\n")[0]
        offset += len(whole.encode()) + bool(whole)
        wrote = any(
            all(needle in line for needle in needles) and not any(verb in line for verb in READS)
            for line in whole.splitlines()
        )
        if wrote:
            since = time.monotonic()


@dataclass(frozen=True)
class Load:
    """Agents to create: which, with how many replicas, and how fast (None: as fast as it goes)."""

    numbers: range
    replicas: int
    per_second: float | None = None


def create(side: Side, operator: Running, namespace: str, load: Load) -> dict[str, Any]:
    """Creates agents; writes, latencies, CPU and memory."""

    async def session(client: Client) -> None:
        bodies = [side.manifest(name(n), load.replicas) for n in load.numbers]
        jobs = [client.job("POST", side.agents(namespace), body) for body in bodies]
        await in_parallel(jobs, per_second=load.per_second)

    with watched(side, operator, namespace) as found:
        run(session)
    parents = [r for r in found.requests if r.verb == "create" and r.resource in trail.PARENTS]
    writes = trail.by(side.user, found.requests)
    made = [w for w in writes if w.resource in trail.CHILDREN]
    began, ended = parents[0].at, max(w.at for w in writes)
    return {
        "objects": len(parents),
        "created_per_second": round(len(parents) / max(1e-3, parents[-1].at - began), 1),
        "writes_per_object": round(len(writes) / len(parents), 3),
        "writes": trail.counted(writes),
        "reads_per_object": round(_reads(side, found.requests) / len(parents), 2),
        "all_writes_of_the_cluster_per_object": round(
            sum(r.is_write for r in found.requests) / len(parents), 1
        ),
        "parent_to_last_child_seconds": trail.spread(trail.latencies(parents, made)),
        "converged_seconds": round(ended - began, 2),
        "children_converged_seconds": round(max(w.at for w in made) - began, 2),
        "cpu_ms_per_object": round(1000 * found.cpu_seconds / len(parents), 2),
        "rss_mib": round(found.rss_mib, 1),
        "reconciles_per_object": found.reconciles and round(found.reconciles / len(parents), 2),
    }


def _reads(side: Side, requests: list[Request]) -> int:
    return sum(r.user == side.user and r.verb == "get" and r.resource != "leases" for r in requests)


def update_all(side: Side, operator: Running, namespace: str, count: int, replicas: int) -> dict[str, Any]:
    """One field of every agent is changed: its replicas."""

    async def session(client: Client) -> None:
        edit = {"spec": {"replicas": replicas}}
        paths = [f"{side.agents(namespace)}/{name(n)}" for n in range(count)]
        await in_parallel([client.job("PATCH", path, edit, MERGE) for path in paths])

    with watched(side, operator, namespace) as found:
        run(session)
    edits = [
        r for r in found.requests if r.verb == "patch" and r.resource in trail.PARENTS and not r.subresource
    ]
    edits = [r for r in edits if r.user != side.user]
    writes = trail.by(side.user, found.requests)
    made = [w for w in writes if w.resource in trail.CHILDREN]
    return {
        "objects": count,
        "writes_per_object": round(len(writes) / count, 3),
        "writes": trail.counted(writes),
        "last_child_write_seconds": round(max(w.at for w in made) - edits[0].at, 2),
        "edit_to_last_child_seconds": trail.spread(trail.latencies(edits, made)),
        "cpu_ms_per_object": round(1000 * found.cpu_seconds / count, 2),
    }


def quick_edits(
    side: Side, operator: Running, namespace: str, number: int, edits: int = 20
) -> dict[str, Any]:
    """One agent is edited as fast as one client can."""

    async def session(client: Client) -> None:
        for edit in range(edits):
            path = f"{side.agents(namespace)}/{name(number)}"
            await client.send("PATCH", path, {"spec": {"replicas": 2 + edit % 2}}, MERGE)

    with watched(side, operator, namespace) as found:
        run(session)
    writes = trail.counted(trail.by(side.user, found.requests))
    return {"edits": edits, "reconciles": found.reconciles, "writes": writes}


def lose_children(side: Side, operator: Running, namespace: str, count: int) -> dict[str, Any]:
    """Every child of the first `count` agents is deleted; seconds until each is there again."""
    doomed: list[str] = []

    async def session(client: Client) -> None:
        for path in PLURALS.values():
            listing = await client.send("GET", path.format(namespace))
            for item in listing["items"]:
                child = item["metadata"]["name"]
                if child[: trail.NAME_LENGTH] < name(count) and child.startswith("a"):
                    doomed.append(f"{path.format(namespace)}/{child}")
        await in_parallel([client.job("DELETE", path) for path in doomed])

    with watched(side, operator, namespace) as found:
        run(session)
    gone: dict[tuple[str, str], float] = {}
    back: dict[tuple[str, str], float] = {}
    for r in found.requests:
        key = (r.resource, r.name)
        if r.resource in PLURALS and r.verb == "delete" and r.user != side.user:
            gone[key] = r.at
        elif r.resource in PLURALS and r.user == side.user and r.is_write and key in gone:
            back.setdefault(key, r.at)
    repaired = sorted(back[key] - at for key, at in gone.items() if key in back)
    return {
        "children": len(doomed),
        "repaired": len(repaired),
        "repair_seconds": trail.spread(repaired),
        "writes": trail.counted(trail.by(side.user, found.requests)),
    }


def idle(side: Side, namespace: str, seconds: float) -> dict[str, Any]:
    """What is written while nothing happens."""
    mark = AuditMark()
    time.sleep(seconds)
    writes = trail.by(side.user, mark.requests(namespace))
    what = [f"{w.verb} {w.resource}/{w.name} {w.subresource}".rstrip() for w in writes]
    return {"seconds": seconds, "writes": len(writes), "what": what}


def remove(side: Side, namespace: str) -> None:
    """Deletes the side's agents while it runs, so that whoever set finalizers can take them off."""

    async def session(client: Client) -> None:
        path = side.agents(namespace)
        names = [item["metadata"]["name"] for item in (await client.send("GET", path))["items"]]
        await in_parallel([client.job("DELETE", f"{path}/{agent}") for agent in names])
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            left = [await client.send("GET", f"{path}?limit=1") for path in _everything(side, namespace)]
            if not any(listing["items"] for listing in left):
                return
            await asyncio.sleep(1)
        raise AssertionError(f"agents or pods of {side.name} are still there after 900 s")

    run(session)


def bare(namespace: str, load: Load) -> dict[str, Any]:
    """The same writes without an operator: each agent is created, then its children and a status applied."""
    templates = children.load()
    path = GO.agents(namespace)
    status = {"observedGeneration": 1, "replicas": 1, "readyReplicas": 0, "conditions": []}

    async def one(client: Client, agent: str) -> None:
        made = await client.send("POST", path, children.peer_manifest(agent, load.replicas))
        uid = made["metadata"]["uid"]
        for child in children.filled(templates, agent, namespace, uid, load.replicas):
            where = PLURALS[f"{child['kind'].lower()}s"].format(namespace)
            await client.apply(f"{where}/{child['metadata']['name']}", child, "bare")
        body = {**children.peer_manifest(agent), "status": status}
        del body["spec"]
        await client.apply(f"{path}/{agent}/status", body, "bare")

    async def session(client: Client) -> None:
        await in_parallel([partial(one, client, name(n)) for n in load.numbers])

    mark = AuditMark()
    run(session)
    requests = list(mark.requests(namespace))
    me = next(r.user for r in requests if r.verb == "create" and r.resource in trail.PARENTS)
    mine = [r for r in requests if r.resource in trail.CHILDREN | trail.PARENTS and r.user == me]
    seconds = mine[-1].at - mine[0].at
    return {"objects": len(load.numbers), "seconds": round(seconds, 2), "writes": trail.counted(mine)}


def _everything(side: Side, namespace: str) -> list[str]:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    return [side.agents(namespace), PLURALS["deployments"].format(namespace), pods]
