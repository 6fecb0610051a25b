"""Random histories: drawn from a seed, played, shortened and printed. Layer: tests.

The one idea: a history is a list of plain tuples, (seconds to wait, what happens, arguments). Drawing it
needs a seed, playing it only the list, so a failure is printed as steps that can be shortened, read and
replayed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent_operator.controller.leader import LeaderElector
from agent_operator.shell.kinds import CONFIG_MAP, DEPLOYMENT, DISRUPTION_BUDGET, SERVICE, WATCHED, Kind
from agent_operator.shell.kube import Object
from tests.fakes.virtual_time import run_virtual
from tests.fault.cluster import NAMESPACE, REVISION
from tests.fault.journal import Stream
from tests.fault.judge import check_arrived, check_rest
from tests.fault.process import TIMING, Process
from tests.fault.wire import ERRORS, Fault
from tests.fault.world import NAME, World, model

Step = tuple[Any, ...]

WAITS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 1.0, 3.0, 20.0)
_KINDS = [kind.kind for kind in WATCHED]
_FOREIGN = {"Service": SERVICE, "PodDisruptionBudget": DISRUPTION_BUDGET}
_FOREIGN |= {"ConfigMap": CONFIG_MAP, "Deployment": DEPLOYMENT}
_TEAM = "example.com/team"


@dataclass(frozen=True)
class History:
    """What happens, and the seed of everything that is left to chance while it does."""

    seed: int
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        lines = "".join(f"    {step!r},\n" for step in self.steps)
        return f"replay(History({self.seed}, (\n{lines})))"


def draw(seed: int) -> History:
    """The history of a seed."""
    rng = random.Random(seed)
    # Calm and wild histories: most bugs need some quiet between two faults, a few need none.
    waits = WAITS[rng.choice((0, 0, 3, 6)) :]
    steps = [_create(rng, 0.0)]
    for _ in range(rng.randint(4, 24)):
        draws = rng.choices(list(_DRAWS.values()), weights=[weight for weight, _ in _DRAWS.values()])
        steps.append((rng.choice(waits), *draws[0][1](rng)))
    return History(seed, tuple(steps))


def replay(history: History) -> World:
    """Play a history to its end in virtual time.

    Raises:
        AssertionError: something happened that must never happen, or it did not converge.
    """
    return run_virtual(_play(history))


def shortened(history: History, fails: Callable[[History], bool]) -> History:
    """A history that still fails, from which no single step can be left out."""
    steps, size = list(history.steps), max(1, len(history.steps) // 2)
    while size:
        start = 0
        while start < len(steps):
            fewer = [*steps[:start], *steps[start + size :]]
            if fails(History(history.seed, tuple(fewer))):
                steps = fewer
            else:
                start += size
        size //= 2
    return History(history.seed, tuple(steps))


def failure_of(history: History) -> str:
    """What a history breaks, empty if nothing."""
    try:
        replay(history)
    except AssertionError as error:
        return f"{type(error).__name__}: {error}"
    return ""


async def _play(history: History) -> World:
    world = World(history.seed)
    world.start_process()
    await asyncio.sleep(0.2)
    for wait, what, *arguments in history.steps:
        await asyncio.sleep(wait)
        STEPS[what](world, *arguments)
        world.check()
    await asyncio.gather(*world.background)
    await _calm(world)
    await world.at_rest()
    check_rest(world)
    _remove_obstacles(world)
    await world.at_rest()
    check_arrived(world)
    await _check_restart(world)
    return world


async def _calm(world: World) -> None:
    """All faults stop; somebody leads again; what was delayed arrives."""
    world.latency = world.lag = 0.02
    world.cluster.deployment_lag = world.cluster.collector_lag = 0.02
    for process in list(world.processes):
        process.wire.faults.clear()
        process.wire.cut_until = process.wire.lease_cut_until = process.wire.slow_until = 0.0
        process.watches.calm()
    if not any(not process.task.done() for process in world.processes):
        await world.free_lease()
        world.start_process()
    await asyncio.sleep(3 * TIMING.lease)
    if all(process.task.done() for process in world.processes):
        world.start_process()


def _remove_obstacles(world: World) -> None:
    """Nothing is in the way of the newest spec any more."""
    world.cluster.mend()
    world.annotate_agent("agentoperator.dev/paused", None)
    world.change_spec(tuning=None)
    _remove_foreign(world)


async def _check_restart(world: World) -> None:
    """After a restart there is nothing to write."""
    for process in list(world.processes):
        world.kill(process)
    await world.free_lease()
    before = len(world.sent)
    world.start_process()
    await world.at_rest()
    written = world.writes_since(before)
    assert written == [], f"written after a restart: {written}"


# Users.


def _create(rng: random.Random, wait: float) -> Step:
    return (wait, "create agent", rng.choice((1, 1, 2)), rng.randint(1, 3))


def _create_agent(world: World, replicas: int, number: int) -> None:
    world.create_agent(replicas=replicas, model=model(number))


def _replace_agent(world: World, replicas: int, number: int) -> None:
    world.delete_agent()
    _create_agent(world, replicas, number)


def _child(world: World, number: int) -> Object | None:
    children = world.children()
    return children[number % len(children)] if children else None


def _delete_child(world: World, number: int) -> None:
    if (child := _child(world, number)) is not None:
        world.delete_object(child)


def _edit_child(world: World, number: int, what: str) -> None:
    if (child := _child(world, number)) is not None:
        world.edit_object(child, _EDITS[what])


def _edit_ours(obj: Object) -> None:
    """Something that the operator applies."""
    if obj["kind"] == "Deployment":
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example.com/hijacked:1"
        obj["spec"]["replicas"] = 5
    elif obj["kind"] == "Service":
        obj["spec"]["selector"][REVISION] = "bcdfghjk"
    elif obj["kind"] == "PodDisruptionBudget":
        obj["spec"]["maxUnavailable"] = 7
    else:
        obj["metadata"]["annotations"] = {}


def _edit_theirs(obj: Object) -> None:
    """Something of another manager, which the operator has to leave alone."""
    obj["metadata"].setdefault("annotations", {})[_TEAM] = "blue"
    obj["metadata"].setdefault("labels", {})[_TEAM] = "blue"
    if obj["kind"] == "Service":
        obj["spec"]["sessionAffinity"] = "ClientIP"
    elif obj["kind"] == "Deployment":
        annotations = obj["spec"]["template"]["metadata"].setdefault("annotations", {})
        annotations["kubectl.kubernetes.io/restartedAt"] = "2026-01-01T00:00:00Z"


_EDITS: dict[str, Callable[[Object], Any]] = {
    "ours": _edit_ours,
    "theirs": _edit_theirs,
    "labels": lambda obj: obj["metadata"].update(labels={"app": "mine"}),
    "owners": lambda obj: obj["metadata"].update(ownerReferences=[]),
    "port": lambda obj: obj["kind"] == "Service" and obj["spec"]["ports"][0].update(port=81),
}


def _put_foreign(world: World, kind: str, bare: bool) -> None:
    """Somebody else takes the name and the place of a child; `bare`: nothing in it contradicts ours."""
    name = NAME
    if kind in ("ConfigMap", "Deployment"):
        status = (world.agent() or {}).get("status") or {}
        name = f"{NAME}-{status.get('updateRevision', 'bcdfghjk')}"
    where = _FOREIGN[kind]
    if (where, NAMESPACE, name) in world.server.objects:
        world.server.drop(where, NAMESPACE, name)
    if bare:
        place = {"name": name, "namespace": NAMESPACE}
        world.server.add({"apiVersion": where.api_version, "kind": kind, "metadata": place})
        return
    spec: Object = {"selector": {"matchLabels": {"app": "theirs"}}, "replicas": 0}
    spec["template"] = {"metadata": {"labels": {"app": "theirs"}}, "spec": {"containers": []}}
    if kind == "Service":
        spec = {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}
    labels = {"app.kubernetes.io/managed-by": "Helm", _TEAM: "foreign"}
    meta = {"name": name, "namespace": NAMESPACE, "labels": labels}
    world.server.add({"apiVersion": where.api_version, "kind": kind, "metadata": meta, "spec": spec})


def _remove_foreign(world: World) -> None:
    for (kind, _, _), obj in list(world.server.objects.items()):
        if kind in _FOREIGN.values() and not obj["metadata"].get("ownerReferences"):
            world.delete_object(obj)


# The cluster.


def _pod(world: World, number: int, state: str) -> None:
    pods = world.cluster.pods()
    if pods:
        world.cluster.set_pod(pods[number % len(pods)], state)


def _delete_pod(world: World, number: int) -> None:
    pods = world.cluster.pods()
    if pods:
        world.delete_object(pods[number % len(pods)])


def _break_target(world: World) -> None:
    """Pods of what the spec asks for now will crash."""
    status = (world.agent() or {}).get("status") or {}
    if "updateRevision" in status:
        world.cluster.broken.add(status["updateRevision"])


def _set_lags(world: World, deployments: float, collector: float, start: float) -> None:
    cluster = world.cluster
    cluster.deployment_lag, cluster.collector_lag, cluster.start_seconds = deployments, collector, start


# The wire, the watches and the processes.


def _fail(world: World, verb: str, error: str, landed: bool, times: int) -> None:
    for process in world.processes:
        process.wire.faults.append(Fault(verb, error, landed, times))


def _cut(world: World, seconds: float) -> None:
    for process in world.processes:
        process.wire.cut_until = asyncio.get_running_loop().time() + seconds


def _streams(world: World, kind: str) -> list[Stream]:
    wanted: Kind = next(k for k in WATCHED if k.kind == kind)
    return [process.watches.streams[wanted] for process in world.processes]


def _lose_events(world: World, kind: str, count: int) -> None:
    for stream in _streams(world, kind):
        stream.lose += count


def _repeat_events(world: World, kind: str, count: int) -> None:
    for stream in _streams(world, kind):
        stream.repeat += count


def _stall(world: World, kind: str, seconds: float) -> None:
    """Silence, and then everything at once, what was superseded left out."""
    for stream in _streams(world, kind):
        stream.merge = True
        stream.stalled_until = asyncio.get_running_loop().time() + seconds


def _break_watch(world: World, kind: str) -> None:
    """The server forgot the version from which we watch (410): list anew."""
    for stream in _streams(world, kind):
        stream.broken.set()


def _restart(world: World, stale: int) -> None:
    """The leader dies and a new process takes over; `stale`: its lists are so many versions behind."""
    if (leader := world.leader()) is not None:
        world.kill(leader)

    async def start() -> None:
        await world.free_lease()
        world.start_process(stale=stale)

    world.background.append(asyncio.create_task(start()))


def _hand_over(world: World) -> None:
    """A new process stands by while the old one stops in good order."""
    leader = world.leader()
    world.start_process()
    if leader is not None:
        leader.stopping.set()


def _partition(world: World, seconds: float) -> None:
    """The leader cannot renew its lease any more, its writes are slow, and there is something to write just
    before it gives up; then a standby that has been looking on takes over."""
    leader = world.leader()
    world.start_process()

    async def cut_off(leader: Process, elector: LeaderElector) -> None:
        await asyncio.sleep(2 * TIMING.retry)
        end = asyncio.get_running_loop().time() + seconds
        leader.wire.lease_cut_until = leader.wire.slow_until = end
        slack = TIMING.lease - TIMING.renew
        await asyncio.sleep(max(0.0, elector.write_seconds() - slack - 0.8))
        _delete_child(world, 0)
        await asyncio.sleep(TIMING.lease)

    if leader is not None and leader.elector is not None:
        world.background.append(asyncio.create_task(cut_off(leader, leader.elector)))


def _slow_network(world: World, latency: float, lag: float) -> None:
    world.latency, world.lag = latency, lag


STEPS: dict[str, Callable[..., None]] = {
    "create agent": _create_agent,
    "delete agent": lambda world: world.delete_agent(),
    "replace agent": _replace_agent,
    "model": lambda world, number: world.change_spec(model=model(number)),
    "replicas": lambda world, count: world.change_spec(replicas=count),
    "suspend": lambda world, yes: world.change_spec(suspend=True if yes else None),
    "refused spec": lambda world, yes: world.change_spec(tuning={"mode": "Auto"} if yes else None),
    "own image": lambda world, yes: world.change_spec(
        runtime={"image": "registry.example.com/own:1"} if yes else None
    ),
    "pause": lambda world, yes: world.annotate_agent("agentoperator.dev/paused", "true" if yes else None),
    "annotate": lambda world, value: world.annotate_agent(_TEAM, value),
    "delete child": _delete_child,
    "edit child": _edit_child,
    "foreign object": _put_foreign,
    "foreign objects go": _remove_foreign,
    "pod": _pod,
    "delete pod": _delete_pod,
    "break target": _break_target,
    "mend pods": lambda world: world.cluster.mend(),
    "lags": _set_lags,
    "fail": _fail,
    "cut": _cut,
    "lose events": _lose_events,
    "repeat events": _repeat_events,
    "stall": _stall,
    "break watch": _break_watch,
    "restart": _restart,
    "hand over": _hand_over,
    "partition": _partition,
    "network": _slow_network,
    "wait": lambda world: None,
}


def _draw_foreign(rng: random.Random) -> tuple[str, bool]:
    # Only of a ConfigMap: what the API server lets exist of the other kinds contradicts ours.
    kind = rng.choice(list(_FOREIGN))
    return kind, kind == "ConfigMap" and rng.random() < 0.5


_VERBS = ("apply", "apply", "apply/status", "delete", "get", "list")


def _draw_fault(rng: random.Random) -> Step:
    verb, landed = rng.choice(_VERBS), rng.random() < 0.4
    errors = list(ERRORS) if verb not in ("get", "list") else ["429", "500", "timeout"]
    return ("fail", verb, "timeout" if landed else rng.choice(errors), landed, rng.choice((1, 1, 1, 2, 5)))


_DRAWS: dict[str, tuple[int, Callable[[random.Random], Step]]] = {
    "create agent": (2, lambda rng: _create(rng, 0.0)[1:]),
    "delete agent": (1, lambda rng: ("delete agent",)),
    "replace agent": (1, lambda rng: ("replace agent", rng.choice((1, 2)), rng.randint(1, 3))),
    "model": (8, lambda rng: ("model", rng.randint(1, 3))),
    "replicas": (4, lambda rng: ("replicas", rng.randint(0, 3))),
    "suspend": (3, lambda rng: ("suspend", rng.random() < 0.5)),
    "refused spec": (2, lambda rng: ("refused spec", rng.random() < 0.5)),
    "own image": (1, lambda rng: ("own image", rng.random() < 0.5)),
    "pause": (2, lambda rng: ("pause", rng.random() < 0.4)),
    "annotate": (1, lambda rng: ("annotate", rng.choice(("red", "blue")))),
    "delete child": (4, lambda rng: ("delete child", rng.randrange(12))),
    "edit child": (5, lambda rng: ("edit child", rng.randrange(12), rng.choice(list(_EDITS)))),
    "foreign object": (2, lambda rng: ("foreign object", *_draw_foreign(rng))),
    "foreign objects go": (1, lambda rng: ("foreign objects go",)),
    "pod": (6, lambda rng: ("pod", rng.randrange(6), rng.choice(("ready", "unready", "crash")))),
    "delete pod": (2, lambda rng: ("delete pod", rng.randrange(6))),
    "break target": (2, lambda rng: ("break target",)),
    "mend pods": (2, lambda rng: ("mend pods",)),
    "lags": (2, lambda rng: ("lags", *(rng.choice((0.0, 0.05, 1.0, 5.0)) for _ in range(3)))),
    "fail": (8, _draw_fault),
    "cut": (2, lambda rng: ("cut", rng.choice((0.05, 1.0, 20.0)))),
    "lose events": (4, lambda rng: ("lose events", rng.choice(_KINDS), rng.choice((1, 3, 20)))),
    "repeat events": (2, lambda rng: ("repeat events", rng.choice(_KINDS), rng.choice((1, 3, 20)))),
    "stall": (5, lambda rng: ("stall", rng.choice(_KINDS), rng.choice((0.1, 1.0, 10.0)))),
    "break watch": (3, lambda rng: ("break watch", rng.choice(_KINDS))),
    "restart": (3, lambda rng: ("restart", 0)),
    "stale restart": (2, lambda rng: ("restart", rng.choice((1, 3, 10, 30)))),
    "hand over": (2, lambda rng: ("hand over",)),
    "partition": (3, lambda rng: ("partition", rng.choice((10.0, 100.0)))),
    "network": (2, lambda rng: ("network", rng.choice((0.0, 0.02, 0.3)), rng.choice((0.0, 0.02, 0.5, 3.0)))),
    "wait": (3, lambda rng: ("wait",)),
}
"""What may happen, how often, and how its arguments are drawn."""


def describe(failures: Sequence[tuple[History, str]]) -> str:
    """Failures as text: what broke and how to see it again."""
    return "\n\n".join(f"{failure}\n{history}" for history, failure in failures)
