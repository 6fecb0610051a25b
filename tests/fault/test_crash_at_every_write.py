"""Whenever the operator dies, its successor ends where it would have ended. Layer: tests.

The one idea: a scenario is played once undisturbed, its writes are counted, and then it is played again for
every single write: once the process is killed in the moment the write takes effect, once it lives on with the
answer and is killed when it is about to write again, and once only the answer is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from agent_operator.shell.kinds import AUTOSCALER, CHILDREN, DEPLOYMENT, ENDPOINT_SLICE, SERVICE, Kind
from agent_operator.shell.kube import Object
from tests.fakes.virtual_time import run_virtual
from tests.fault.cluster import NAMESPACE, REVISION
from tests.fault.judge import check_arrived
from tests.fault.wire import Fault, Request
from tests.fault.world import NAME, World, model
from tests.property.world import is_ready

Action = Callable[[World], Awaitable[None]]
RESTART_SECONDS = 0.7


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Thousands of reconciles log much, and nobody reads it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@dataclass(frozen=True)
class Scenario:
    """What is there, and what users do then. `replicas` None: there is no agent yet."""

    action: Action
    replicas: int | None = 1
    scaled: Mapping[str, Any] | None = None
    """spec.autoscaling."""


async def create(world: World) -> None:
    world.create_agent(replicas=2)


async def update(world: World) -> None:
    world.change_spec(model=model(2))


async def update_while_the_first_revision_starts(world: World) -> None:
    world.create_agent()
    await asyncio.sleep(0.3)
    world.change_spec(model=model(2))


async def change_back_and_forth(world: World) -> None:
    world.change_spec(model=model(2))
    await asyncio.sleep(0.5)
    world.change_spec(model=model(1))
    await asyncio.sleep(0.5)
    world.change_spec(model=model(3), replicas=2)


async def roll_from_a_broken_revision(world: World) -> None:
    world.cluster.start_seconds = 3.0
    world.change_spec(model=model(2))
    await asyncio.sleep(2.5)
    created = [d["metadata"]["name"][-8:] for d in world.cluster.deployments()]
    world.cluster.broken.update(revision for revision in created if revision != world.selected())
    await asyncio.sleep(100.0)
    world.change_spec(model=model(3))
    await world.at_rest()
    world.cluster.mend()


async def scale(world: World) -> None:
    world.change_spec(replicas=3)
    await asyncio.sleep(20.0)
    world.change_spec(replicas=1)


async def suspend_and_resume(world: World) -> None:
    world.change_spec(suspend=True)
    await asyncio.sleep(20.0)
    world.change_spec(suspend=None)


async def suspend(world: World) -> None:
    world.change_spec(suspend=True)


async def delete(world: World) -> None:
    world.delete_agent()


async def delete_while_it_is_created(world: World) -> None:
    world.create_agent()
    await asyncio.sleep(0.08)
    world.delete_agent()


async def delete_and_create_again(world: World) -> None:
    world.cluster.collector_lag = 2.0
    world.delete_agent()
    await asyncio.sleep(0.1)
    world.create_agent(replicas=2)


def loses(kind: Kind) -> Action:
    async def lose(world: World) -> None:
        for child in world.children():
            if child["kind"] == kind.kind:
                world.delete_object(child)

    return lose


async def hands_over_and_takes_back(world: World) -> None:
    world.change_spec(autoscaling={"provider": "HPA", "maxReplicas": 3})
    await asyncio.sleep(20.0)
    await loses(AUTOSCALER)(world)
    await asyncio.sleep(20.0)
    world.change_spec(autoscaling=None)


async def loses_everything(world: World) -> None:
    for child in world.children():
        world.delete_object(child)


async def scale_no_more(world: World) -> None:
    world.change_spec(autoscaling=None)


async def edits_the_deployment(world: World) -> None:
    def edit(deployment: Object) -> None:
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example.com/own:1"
        deployment["spec"]["replicas"] = 4

    name = f"{NAME}-{world.selected()}"
    world.server.edit(DEPLOYMENT, NAMESPACE, name, edit)


async def edits_the_service(world: World) -> None:
    def edit(service: Object) -> None:
        service["spec"]["selector"][REVISION] = "bcdfghjk"
        service["spec"]["ports"][0]["port"] = 81

    world.server.edit(SERVICE, NAMESPACE, NAME, edit)


async def edits_labels_and_owners(world: World) -> None:
    for child in world.children():
        world.edit_object(child, lambda obj: obj["metadata"].update(labels={"app": "mine"}))


async def is_refused_then_mended(world: World) -> None:
    world.change_spec(tuning={"mode": "Auto"}, model=model(2))
    await asyncio.sleep(20.0)
    world.change_spec(tuning=None)


SCALED: Mapping[Kind, Mapping[str, Any]] = {
    ENDPOINT_SLICE: {"minReplicas": 0, "maxReplicas": 3},
    AUTOSCALER: {"maxReplicas": 3, "provider": "HPA"},
}
"""The spec.autoscaling under which a kind of child exists."""

SCENARIOS: dict[str, Scenario] = {
    "create": Scenario(create, None),
    "update": Scenario(update),
    "update two replicas": Scenario(update, 2),
    "update while the first revision starts": Scenario(update_while_the_first_revision_starts, None),
    "change back and forth": Scenario(change_back_and_forth, 2),
    "roll from a broken revision": Scenario(roll_from_a_broken_revision),
    "scale": Scenario(scale),
    "suspend": Scenario(suspend, 2),
    "suspend and resume": Scenario(suspend_and_resume, 2),
    "delete": Scenario(delete),
    "delete while it is created": Scenario(delete_while_it_is_created, None),
    "delete and create again": Scenario(delete_and_create_again),
    **{f"lose the {kind.kind}": Scenario(loses(kind), 2, SCALED.get(kind)) for kind in CHILDREN},
    "take a scaler away": Scenario(scale_no_more, 2, SCALED[AUTOSCALER]),
    "take the gateway away": Scenario(scale_no_more, 2, SCALED[ENDPOINT_SLICE]),
    "hand over to an autoscaler, lose it and take back": Scenario(hands_over_and_takes_back, 2),
    "lose everything": Scenario(loses_everything, 2),
    "edit the Deployment": Scenario(edits_the_deployment),
    "edit the Service": Scenario(edits_the_service),
    "edit the labels": Scenario(edits_labels_and_owners),
    "refused, then mended": Scenario(is_refused_then_mended),
}
WITHOUT_WRITES = {"delete"}
"""Deleting is the garbage collector's work."""


class Crash:
    """Lets the process die around its k-th write, and starts another one a moment later."""

    def __init__(self, world: World, k: int, how: str) -> None:
        self._world = world
        self._left = k
        self._how = how
        self.happened = False

    def sent(self, request: Request) -> None:
        if not request.writes or self.happened:
            return
        if self._left == 0 and self._how == "answer lost":
            request.wire.faults.append(Fault(request.verb, "timeout", landed=True, times=1))
            self.happened = True
        elif self._left < 0:
            self._die()

    def landed(self, request: Request) -> None:
        if not self.happened and self._left == 0 and self._how == "killed at once":
            self._die()
        self._left -= 1

    def _die(self) -> None:
        self.happened = True
        (process,) = self._world.processes
        self._world.kill(process)
        asyncio.get_running_loop().call_later(RESTART_SECONDS, self._world.start_process)


async def play(scenario: Scenario, crash_at: int | None = None, how: str = "") -> tuple[int, Any, bool]:
    """Play to the end; the number of writes, the final state, and whether the crash happened."""
    world = World(elects=False)
    world.start_process()
    await asyncio.sleep(1.0)
    if scenario.replicas is not None:
        scaling = {"autoscaling": dict(scenario.scaled)} if scenario.scaled else {}
        world.create_agent(replicas=scenario.replicas, **scaling)
        await world.at_rest()
    before = len(world.written)
    crash = Crash(world, crash_at if crash_at is not None else 10**9, how)
    world.on_sent, world.on_written = crash.sent, crash.landed
    await scenario.action(world)
    await world.at_rest()
    check_arrived(world)
    writes, state = len(world.written) - before, final_state(world)
    await restart(world)
    return writes, state, crash.happened


async def restart(world: World) -> None:
    """A new process finds nothing to write."""
    for process in list(world.processes):
        world.kill(process)
    before = len(world.sent)
    world.start_process()
    await world.at_rest()
    assert world.writes_since(before) == []


def final_state(world: World) -> Any:
    """All that is there, but for uids, versions, times and the number of times something was changed."""
    names = {o["metadata"]["uid"]: o["metadata"]["name"] for o in world.server.objects.values()}
    objects = [o for o in world.server.objects.values() if o["kind"] not in ("Event", "Lease", "Pod")]
    state: dict[Any, Any] = {(o["kind"], o["metadata"]["name"]): _plain(o, names) for o in objects}
    pods = [(p["metadata"]["labels"][REVISION], is_ready(p)) for p in world.cluster.pods()]
    return state, sorted(pods)


_FORGOTTEN = frozenset({"resourceVersion", "creationTimestamp", "lastTransitionTime", "firstSeen"})
_COUNTED = frozenset({"generation", "observedGeneration"})


def _plain(value: Any, names: dict[str, str], kind: str = "") -> Any:
    if isinstance(value, dict):
        kind = kind or value.get("kind", "")
        # How often a child was changed on the way is not where it arrived.
        left_out = _FORGOTTEN | (set() if kind == "AgentDeployment" else _COUNTED)
        return {key: _plain(item, names, kind) for key, item in value.items() if key not in left_out}
    if isinstance(value, list):
        items = [_plain(item, names, kind) for item in value]
        typed = all(isinstance(item, dict) and "type" in item for item in items)
        return sorted(items, key=lambda item: str(item["type"])) if typed else items
    return names.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", SCENARIOS)
def test_after_a_crash_at_any_write_the_end_is_the_same(name: str) -> None:
    scenario = SCENARIOS[name]
    writes, undisturbed, _ = run_virtual(play(scenario))
    assert (writes == 0) == (name in WITHOUT_WRITES)
    crashes = 0
    for how in ("killed at once", "killed before the next write", "answer lost"):
        for k in range(writes):
            _, state, happened = run_virtual(play(scenario, k, how))
            assert state == undisturbed, f"{how}, write {k} of {writes}"
            crashes += happened
    # After the last write there may be no next one to be killed at.
    assert crashes >= 3 * writes - 1 if writes else crashes == 0
