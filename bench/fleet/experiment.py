"""The measurements of the operator benchmarks, in one go. Layer: tooling.

The one idea: sides take turns on one control plane, each in a namespace of its own that is emptied before
the next one starts, so none of them competes with another or with its leftovers.

`python -m bench.fleet.experiment --objects 50 --nodes 20 --here` tries it small on the cluster that runs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.fleet import nodes, scenarios, trail
from bench.fleet.client import Client, run
from bench.fleet.scenarios import Load
from bench.fleet.sides import GO, NAIVE, OURS, Running, Side, prepare, running
from bench.peers.equality import assert_equal_output
from tests.support.audit import AuditMark, Request
from tests.support.kubectl import Kubectl
from tests.support.processes import free_port

Figures = dict[str, Any]
RESTART_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    objects: int = 1000
    nodes: int = 1000
    rounds: int = 3
    paced: int = 200
    paced_per_second: float = 20.0
    lost: int = 500
    idle_seconds: float = 60.0
    large: int = 5000
    large_idle_seconds: float = 600.0


def say(text: str) -> None:
    print(f"    {time.strftime('%H:%M:%S')} {text}", flush=True)


def noted(who: str, what: str, figures: Figures) -> Figures:
    """The figures, told on the way: a run takes long."""
    say(f"{who}: {what} {json.dumps(figures)}")
    return figures


@contextmanager
def namespace(side: str) -> Iterator[str]:
    """A namespace for one turn."""
    found = f"fleet-{side}-{int(time.time()) % 1_000_000}"
    kubectl = Kubectl(found)
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": found}})
    yield found
    kubectl.run("delete", "namespace", found, "--wait=false")


@contextmanager
def turn(side: Side, folder: Path) -> Iterator[tuple[Running, str]]:
    """One side's turn: it runs in an empty namespace, which is emptied in the end."""
    with (
        namespace(side.name) as space,
        running(side, space, free_port(), folder) as operator,
    ):
        time.sleep(5)  # its caches and, for ours, its lease
        yield operator, space
        scenarios.remove(side, space)


def burst(side: Side, folder: Path, sizes: Sizes) -> Figures:
    """Everything that is measured with one set of objects."""
    with turn(side, folder) as (operator, space):
        found: Figures = {"rss_mib_at_0": round(operator.rss_mib(), 1)}
        load = Load(range(sizes.objects), 0)
        found["burst"] = noted(side.name, "burst", scenarios.create(side, operator, space, load))
    return found


def daily_work(side: Side, folder: Path, sizes: Sizes) -> Figures:
    """What happens to agents that exist."""
    numbers, parts = range(sizes.objects), dict[str, Figures]()
    with turn(side, folder) as (operator, space):

        def note(part: str, figures: Figures) -> None:
            parts[part] = noted(side.name, part, figures)

        paced = Load(numbers[: sizes.paced], 0, sizes.paced_per_second)
        note("paced", scenarios.create(side, operator, space, paced))
        scenarios.create(side, operator, space, Load(numbers[sizes.paced :], 0))
        note("update", scenarios.update_all(side, operator, space, sizes.objects, 1))
        note("edits", scenarios.quick_edits(side, operator, space, 0))
        note("lost", scenarios.lose_children(side, operator, space, sizes.lost))
        note("idle", scenarios.idle(side, space, sizes.idle_seconds))
    return parts


def restart(side: Side, folder: Path, space: str, numbers: int, idle: float) -> Figures:
    """The operator is started beside agents that exist, and one more agent is made at once."""
    mark = AuditMark()
    began = time.time()
    with running(side, space, free_port(), folder) as operator:

        async def session(client: Client) -> None:
            path = side.agents(space)
            await client.send("POST", path, side.manifest(scenarios.name(numbers), 1))

        run(session)
        while not _children_of(side, mark.requests(space), numbers):
            if time.time() - began > RESTART_PATIENCE_SECONDS:
                raise AssertionError(f"{side.name} has not looked at a new agent after a restart")
            time.sleep(0.5)
        scenarios.settle(mark, side, space)
        writes = trail.by(side.user, mark.requests(space))
        first = min(w.at for w in _children_of(side, writes, numbers))
        found: Figures = {
            "objects": numbers,
            "first_useful_reconcile_seconds": round(first - began, 2),
            "writes_to_the_others": sum(trail.agent_of(w) != scenarios.name(numbers) for w in writes),
            "cpu_seconds": round(operator.cpu_seconds(), 1),
            "rss_mib": round(operator.rss_mib(), 1),
        }
        noted(side.name, "restart", found)
        if idle:
            found["idle"] = noted(side.name, "idle", scenarios.idle(side, space, idle))
            found["rss_mib_after_idle"] = round(operator.rss_mib(), 1)
    return found


def _children_of(side: Side, requests: Iterable[Request], number: int) -> list[Request]:
    """What the side wrote of one agent's children."""
    agent, writes = scenarios.name(number), trail.by(side.user, requests)
    return [w for w in writes if trail.agent_of(w) == agent and w.resource in trail.CHILDREN]


def many(side: Side, folder: Path, sizes: Sizes, *, remove: bool) -> Figures:
    """The large fleet: creation, then a restart, then for ours a long quiet."""
    with namespace(side.name) as space:
        with running(side, space, free_port(), folder) as operator:
            time.sleep(5)
            before = nodes.footprint()
            creation = scenarios.create(side, operator, space, Load(range(sizes.large), 1))
            found = {"creation": noted(side.name, str(sizes.large), creation)}
            found["control_plane_mib"] = {"before": before, "after": nodes.footprint()}
        idle = sizes.large_idle_seconds if side is OURS else 0.0
        found["restart"] = restart(side, folder, space, sizes.large, idle)
        if remove:
            with running(side, space, free_port(), folder):
                scenarios.remove(side, space)
    return found


def compare_children(folder: Path) -> None:
    """Before anything is measured: all sides make the same children."""
    with ExitStack() as stack:
        spaces = {}
        for side in (OURS, NAIVE, GO):
            operator, space = stack.enter_context(turn(side, folder))
            scenarios.create(side, operator, space, Load(range(1), 2))
            spaces[side.name] = Kubectl(space)
        assert_equal_output(spaces, scenarios.name(0))
    say("all sides make the same children")


def bare_turn(load: Load, *, remove: bool = True) -> Figures:
    """The same writes by a bare client, in a namespace of its own."""
    with namespace("bare") as space:
        found = scenarios.bare(space, load)
        if remove:
            scenarios.remove(GO, space)
    return noted("bare client", "the same writes", found)


@contextmanager
def cluster(sizes: Sizes, *, here: bool) -> Iterator[Path]:
    """A fresh control plane with simulated nodes, or the cluster that runs; gives a folder for logs."""
    with nullcontext() if here else nodes.control_plane(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare((OURS, NAIVE, GO), folder)
        with nodes.simulated(sizes.nodes, folder):
            yield folder


@cache
def standard(sizes: Sizes = Sizes(), here: bool = False) -> Figures:
    """A burst of `objects` in rounds for every side, then the daily work of ours and the nearest peer."""
    found: Figures = {"ours": [], "naive-kopf": [], "controller-runtime": [], "bare": [], "daily": {}}
    with cluster(sizes, here=here) as folder:
        compare_children(folder)
        for number in range(sizes.rounds):
            say(f"round {number + 1} of {sizes.rounds}")
            found["bare"].append(bare_turn(Load(range(sizes.objects), 0)))
            # The naive peer takes three times as long as everything else and is no near race: one round.
            for side in (OURS, GO, NAIVE)[: 3 if number == 0 else 2]:
                found[side.name].append(burst(side, folder, sizes))
        for side in (OURS, GO):
            found["daily"][side.name] = daily_work(side, folder, sizes)
    return found


@cache
def large(sizes: Sizes = Sizes(), here: bool = False) -> Figures:
    """The large fleet, ours and the Go peer, beside the bare client; each on a control plane of its own."""
    found: Figures = {}
    with cluster(sizes, here=here):
        found["bare"] = bare_turn(Load(range(sizes.large), 1), remove=here)
    for side in (OURS, GO):
        with cluster(sizes, here=here) as folder:
            found[side.name] = many(side, folder, sizes, remove=here)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--here", action="store_true", help="use the cluster that runs")
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    small = Sizes(
        objects=options.objects, nodes=options.nodes, rounds=1, paced=options.objects // 2,
        lost=options.objects // 2, idle_seconds=10, large=options.objects, large_idle_seconds=10,
    )  # fmt: skip
    found = large(small, options.here) if options.large else standard(small, options.here)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
