"""What is known of agents beside their objects: when a decision is asked for, when silence is believed."""

from __future__ import annotations

from typing import Any

import pytest

from agent_operator.core.capacity import Places
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.monitor import Monitor, Replica
from agent_operator.shell.ports import Ports
from agent_operator.shell.snapshots import GatewayPort, Key
from agent_runtime.stats import AgentFacts, LoadFacts, ModelFacts, Stats

KEY = Key("default", "geography")
SCALED = {"minReplicas": 1, "maxReplicas": 5, "targetConcurrency": 2}


def stats(running: int = 0, **fields: Any) -> Stats:
    return Stats(
        state="READY", since=0.0, uptime_seconds=5.0, model=ModelFacts(served_name="geography"),
        load=LoadFacts(running=running), load_phases={"load": 2.5}, **fields,
    )  # fmt: skip


def pod(name: str, address: str = "10.1.0.1", *, ready: bool = True) -> dict[str, Any]:
    moment = "2026-01-01T00:00:0{}Z"
    conditions = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": moment.format(1)},
        {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": moment.format(9)},
    ]
    running = {"running": {"startedAt": moment.format(3)}}
    return {
        "metadata": {
            "name": name, "namespace": "default", "uid": f"uid-{name}",
            "creationTimestamp": moment.format(0),
        },
        "status": {
            "podIP": address,
            "conditions": conditions,
            "containerStatuses": [{"name": "runtime", "restartCount": 0, "state": running}],
        },
    }  # fmt: skip


def agent(scaling: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"model": {"uri": "oci://r/m:1"}, **more}
    if scaling:
        spec["autoscaling"] = scaling
    status = {
        "scaling": {"desired": 1, "requested": 1},
        "load": {"time": "2100-01-01T00:00:00Z", "requests": 1},
    }
    return {
        "metadata": {"name": "geography", "namespace": "default", "generation": 1},
        "spec": spec,
        "status": status,
    }


class Bench:
    """A monitor on a clock of the test's."""

    def __init__(self, *names: str, scaling: dict[str, Any] | None = None) -> None:
        self.now = 1_000_000.0
        self.woken: list[tuple[Key, bool]] = []
        self.sampled: list[tuple[Replica, ...]] = []
        self.pods = {name: pod(name, f"10.1.0.{n}") for n, name in enumerate(names)}
        self.agent = agent(scaling)
        self.monitor = Monitor(
            Metrics(),
            clock=lambda: self.now,
            wake=lambda key, urgent: self.woken.append((key, urgent)),
            pod=lambda namespace, name: self.pods.get(name),
        )
        self.monitor.on_replicas = lambda key, replicas: self.sampled.append(replicas)
        self.decide()

    def decide(self) -> Any:
        self.woken.clear()
        return self.monitor.of(KEY, self.agent, list(self.pods.values()))

    def hear(self, name: str, running: int = 0, **fields: Any) -> None:
        self.monitor.answered(KEY, name, stats(running, **fields))

    def miss(self, name: str, times: int = 1) -> None:
        for _ in range(times):
            self.monitor.missed(KEY, name)


def test_the_replicas_to_be_sampled_are_the_ready_ones_that_do_not_go() -> None:
    bench = Bench("a", "b", "c")
    bench.pods["b"]["status"]["conditions"][1]["status"] = "False"
    bench.pods["c"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    bench.decide()
    assert [replica.name for replica in bench.sampled[-1]] == ["a"]
    assert bench.sampled[-1][0].stats_url == "http://10.1.0.0:8001/stats"
    before = len(bench.sampled)
    bench.decide()
    assert len(bench.sampled) == before, "nothing new"
    bench.monitor.forget(KEY)
    assert bench.sampled[-1] == ()


def test_a_replica_that_fell_silent_is_told_once_it_is_certain_and_again_when_it_is_back() -> None:
    bench = Bench("a", "b")
    bench.hear("a")
    bench.hear("b")
    bench.decide()
    bench.now += 4.0
    bench.miss("a", 2)
    assert bench.woken == [], "not for five seconds yet"
    bench.now += 2.0
    bench.miss("a")
    assert bench.woken == [(KEY, True)]
    assert set(bench.decide().silent) == {"a"}
    bench.hear("a")
    assert bench.woken == [(KEY, True)]
    assert bench.decide().silent == {}


def test_who_has_never_answered_is_not_believed_to_be_lost() -> None:
    bench = Bench("a")
    bench.now += 60.0
    bench.miss("a", 10)
    assert bench.decide().silent == {}


def test_when_most_of_the_fleet_falls_silent_the_operator_doubts_itself() -> None:
    bench = Bench(*"abcde")
    for name in "abcde":
        bench.hear(name)
    bench.now += 10.0
    for name in "abc":
        bench.miss(name, 3)
    assert bench.decide().silent == {}
    for name in "bc":
        bench.hear(name)
    assert set(bench.decide().silent) == {"a"}


@pytest.mark.parametrize("progress", ["Busy", "Stalled"])
def test_a_stall_is_told_when_it_begins_and_when_it_ends(progress: str) -> None:
    bench = Bench("a")
    bench.hear("a", 1)
    bench.decide()
    bench.hear("a", 1, progress=progress)
    assert [urgent for _, urgent in bench.woken] == ([True] if progress == "Stalled" else [])
    assert bench.decide().samples["a"].stalled == (progress == "Stalled")


def test_a_jump_of_load_asks_for_a_decision_at_once_and_only_once() -> None:
    bench = Bench("a", scaling=SCALED)
    for _ in range(20):
        bench.now += 1.0
        bench.hear("a", 1)
    bench.decide()
    for _ in range(3):
        bench.now += 0.3
        bench.hear("a", 9)
    assert bench.woken == [(KEY, True)]


def test_a_steady_load_asks_for_nothing() -> None:
    bench = Bench("a", scaling=SCALED)
    bench.hear("a", 1)
    bench.decide()
    for _ in range(300):
        bench.now += 1.0
        bench.hear("a", 1)
        bench.monitor.tick()
    assert bench.woken == []


def test_a_load_that_is_not_shown_yet_is_told_without_haste() -> None:
    bench = Bench("a")
    bench.agent["status"]["load"] = {}
    bench.hear("a", 1)
    bench.decide()
    bench.hear("a", 1)
    assert bench.woken == [(KEY, False)]


def test_held_requests_reach_the_decision_and_a_first_one_wakes() -> None:
    bench = Bench(scaling={**SCALED, "minReplicas": 0})
    bench.agent["status"]["scaling"]["desired"] = 0
    bench.decide()
    bench.monitor.demand({KEY: 3})
    assert bench.woken == [(KEY, True)]
    assert bench.decide().held == 3
    bench.monitor.demand({})
    assert bench.decide().held == 0


def test_a_start_is_read_once_with_what_the_runtime_tells_of_it() -> None:
    bench = Bench("a")
    bench.hear("a")
    signals = bench.decide()
    assert signals.last_start is not None
    assert (signals.last_start.total_seconds, signals.last_start.load_seconds) == (9.0, 2.5)
    assert signals.lead_seconds == 9.0
    bench.hear("a")
    assert bench.woken == []


def test_the_lead_survives_a_restart_of_the_operator_in_the_status() -> None:
    bench = Bench()
    bench.agent["status"]["lastStart"] = {"readySeconds": "42.5"}
    assert bench.decide().lead_seconds == 42.5


def test_kubectl_scale_is_remembered_by_the_autoscaler() -> None:
    bench = Bench("a", scaling=SCALED)
    bench.hear("a", 1)
    before = bench.decide().memory
    bench.agent["spec"]["replicas"] = 3
    bench.agent["metadata"]["generation"] = 2
    assert bench.decide().memory != before


def test_new_places_ask_for_a_decision_about_scaled_agents_only() -> None:
    bench = Bench("a", scaling=SCALED)
    bench.decide()
    bench.monitor.placed(Places({"nvidia.com/gpu": (4,)}))
    assert bench.woken == [(KEY, True)]
    bench.decide()
    bench.monitor.placed(Places({"nvidia.com/gpu": (4,)}))
    assert bench.woken == []


def test_the_numbers_for_a_scrape_add_up_the_replicas() -> None:
    bench = Bench("a", "b")
    bench.hear("a", 2)
    bench.hear("b", 3, agent=AgentFacts(runs_live=1, tool_waits=1))
    (measured,) = bench.monitor.measured()
    assert (measured.namespace, measured.name) == KEY
    assert (measured.values["requests_running"], measured.values["tool_waits"]) == (5, 1)
    assert "gpu_utilization_ratio" not in measured.values


class Slices:
    """A store in which some ports are taken."""

    def __init__(self, *taken: int) -> None:
        self.taken = set(taken)

    def indexed(self, value: Any) -> list[Any]:
        return [{}] if isinstance(value, GatewayPort) and value.port in self.taken else []


def test_a_port_is_the_same_again_and_never_another_agents() -> None:
    store: Any = Slices()
    first = Ports(store).free(KEY)
    assert first is not None
    assert Ports(store).free(KEY) == first, "after a restart that lost everything"
    store.taken.add(first)
    other = Ports(store).free(KEY)
    assert other == (first + 1 if first < 29_999 else 20_000)
    ports = Ports(Slices())  # type: ignore[arg-type]
    given = {ports.free(Key("default", f"agent-{n}")) for n in range(500)}
    assert len(given) == 500
    ports.forget(Key("default", "agent-1"))
    assert ports.free(Key("default", "agent-1")) is not None
