"""What is known of every agent beside the cluster's objects. Layer: shell; imports core and observability.

The one idea: one record per agent, filled by whoever samples replicas and gateways, read by the decision as
part of its snapshot. It can be lost: after a restart of the operator the next samples fill it again, and
until then nothing is scaled down. A decision is asked for only when the record would change it.

Silence is believed of a replica that had answered before, and not when most of the others fall silent in the
same moment: then it is more likely the operator that is cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from agent_operator.api.autoscaling import Autoscaling, AutoscalingProvider
from agent_operator.api.names import LABEL_REVISION
from agent_operator.core import autoscale, ledger, load
from agent_operator.core import signals as signals_of
from agent_operator.core.autoscale import EMPTY, Capacity, Memory, Policy
from agent_operator.core.capacity import Places, capacity
from agent_operator.core.children.gateway import asked
from agent_operator.core.ledger import Ledger, Start
from agent_operator.core.policy import policy
from agent_operator.core.reading import at, count, is_ready, mapping, text
from agent_operator.core.sampling import sampled
from agent_operator.core.signals import SILENT_AFTER_SECONDS, UNKNOWN_CAPACITY, PodSample, Signals, totals
from agent_operator.observability.metrics import Measured, Metrics
from agent_operator.shell.kube import Object
from agent_operator.shell.ports import Ports
from agent_operator.shell.snapshots import Key
from agent_runtime.contract import ADMIN_PORT
from agent_runtime.stats import Stats

NO_STARTS = Ledger()
MISSES = 2
"""Attempts in a row without an answer, after which a replica counts as silent."""
MOST_OF_THE_FLEET = 0.5


class Replica(NamedTuple):
    """One ready pod: where its runtime answers."""

    uid: str
    name: str
    address: str

    @property
    def stats_url(self) -> str:
        """Where it tells how it is."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{ADMIN_PORT}/stats"


@dataclass(slots=True)
class _Known:
    """One replica as far as it has told."""

    replica: Replica
    sample: PodSample | None = None
    misses: int = 0
    started: bool = False
    """Its start is in the ledger."""


@dataclass(slots=True)
class _Agent:
    """Everything known of one agent."""

    known: dict[str, _Known] = field(default_factory=dict)
    """By pod name."""
    held: int = 0
    policy: Policy | None = None
    """None where the operator does not scale."""
    generation: int | None = None
    """For which the policy was read."""
    memory: Memory = EMPTY
    requested: int | None = None
    """spec.replicas that the memory knows of."""
    desired: int | None = None
    """What the last decision wanted, by the status."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """status.load."""
    starts: Ledger = NO_STARTS
    revision: str = ""
    """Whose starts these are."""
    last_start: Start | None = None
    capacity: Capacity = UNKNOWN_CAPACITY
    ready: int = 0
    behind_gateway: bool = False
    told: bool | None = None
    """A decision was asked for and has not been made yet; True: urgently."""

    def samples(self) -> dict[str, PodSample]:
        """What the replicas that answered said last, by pod name."""
        return {name: known.sample for name, known in self.known.items() if known.sample is not None}


class Monitor:
    """The records of all agents.

    `clock` gives Unix seconds; `wake` asks for a decision about a key and says whether somebody waits for it;
    `pod` looks a pod up by namespace and name; without `ports` there is no gateway.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        wake: Callable[[Key, bool], None],
        pod: Callable[[str, str], Object | None],
        ports: Ports | None = None,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._wake = wake
        self._pod = pod
        self._ports = ports
        self._agents: dict[Key, _Agent] = {}
        self._places = Places()
        self.gateways: tuple[str, ...] | None = None if ports is not None else ()
        """None until they were looked for."""
        self.on_replicas: Callable[[Key, tuple[Replica, ...]], None] = lambda key, replicas: None
        """Called when the replicas to be sampled have changed."""

    def of(self, key: Key, agent: Object, pods: Sequence[Object]) -> Signals:
        """What is known now, after taking note of the pods and of the specification."""
        record = self._agents.setdefault(key, _Agent())
        record.told = None
        self._note_pods(key, record, pods)
        self._note_spec(record, agent)
        record.behind_gateway = self._ports is not None and asked(agent)
        if record.policy is not None:
            record.capacity = capacity(agent, pods, self._places)
        starts = record.starts
        return Signals(
            samples=record.samples(),
            silent=self._silent(record),
            held=record.held,
            gateways=self.gateways,
            free_port=self._ports.free(key) if self._ports and record.behind_gateway else None,
            memory=record.memory,
            capacity=record.capacity,
            last_start=record.last_start,
            lead_seconds=ledger.lead_seconds(starts) or _remembered_lead(agent),
            startup_deadline=ledger.startup_deadline(starts),
        )

    def forget(self, key: Key) -> None:
        """The agent is gone."""
        if self._agents.pop(key, None) is not None:
            self.on_replicas(key, ())
        if self._ports is not None:
            self._ports.forget(key)

    def answered(self, key: Key, name: str, stats: Stats) -> None:
        """A replica told how it is."""
        record, known = self._find(key, name)
        if record is None or known is None:
            return
        was_lost = known.misses >= MISSES or (known.sample is not None and known.sample.stalled)
        known.sample, known.misses = sampled(stats, self._clock()), 0
        if not known.started:
            self._note_start(key, record, known, stats)
            self._tell(key, record, urgent=False)
        if was_lost != known.sample.stalled:
            self._tell(key, record)
        self._look(key, record)

    def missed(self, key: Key, name: str) -> bool:
        """A replica did not answer; whether it is to be asked again soon."""
        record, known = self._find(key, name)
        if record is None or known is None or known.sample is None:
            return False
        known.misses += 1
        if known.misses >= MISSES and self._clock() - known.sample.at >= SILENT_AFTER_SECONDS:
            self._tell(key, record)
        return True

    def demand(self, held: Mapping[Key, int]) -> None:
        """What all gateways together hold, of every agent of which they hold anything."""
        for key, record in self._agents.items():
            number = held.get(key, 0)
            if number != record.held:
                first = record.held == 0
                record.held = number
                self._look(key, record)
                if first and record.ready == 0:
                    self._tell(key, record)  # the condition says that it wakes

    def tick(self) -> None:
        """Time passed: what depends on it is looked at again. Call it about every second."""
        for key, record in self._agents.items():
            if record.policy is not None:
                self._look(key, record)

    def placed(self, places: Places) -> None:
        """What the cluster can place."""
        if places == self._places:
            return
        self._places = places
        for key in self.scaled():
            self._tell(key, self._agents[key])

    def scaled(self) -> list[Key]:
        """The agents that the operator scales itself."""
        return [key for key, record in self._agents.items() if record.policy is not None]

    def measured(self) -> Iterator[Measured]:
        """The numbers of every agent of which anything is known, for a scrape."""
        for key, record in self._agents.items():
            samples = record.samples()
            if samples or record.held:
                yield Measured(*key, {**totals(samples.values()), "requests_held": record.held})

    def behind_gateway(self) -> list[Key]:
        """The agents that gateways have something to do with."""
        return [key for key, record in self._agents.items() if record.behind_gateway]

    def is_scaled(self, key: Key) -> bool:
        """Whether the operator scales this agent itself, and so wants to know at once."""
        record = self._agents.get(key)
        return record is not None and record.policy is not None

    def load_of(self, key: Key, name: str) -> int:
        """Requests at a replica when it answered last."""
        _, known = self._find(key, name)
        return known.sample.load if known is not None and known.sample is not None else 0

    def _find(self, key: Key, name: str) -> tuple[_Agent | None, _Known | None]:
        record = self._agents.get(key)
        return record, record.known.get(name) if record is not None else None

    def _note_pods(self, key: Key, record: _Agent, pods: Iterable[Object]) -> None:
        ready = {replica.name: replica for pod in pods if (replica := _replica(pod)) is not None}
        before = {known.replica for known in record.known.values()}
        record.ready = len(ready)
        for name in [n for n, k in record.known.items() if n not in ready or k.replica != ready[n]]:
            del record.known[name]
        for name, replica in ready.items():
            if name not in record.known:
                record.known[name] = _Known(replica)
        if before != {known.replica for known in record.known.values()}:
            self.on_replicas(key, tuple(known.replica for known in record.known.values()))

    def _note_spec(self, record: _Agent, agent: Object) -> None:
        record.shown = mapping(agent, "status", "load")
        record.desired = at(agent, "status", "scaling", "desired")
        generation = agent["metadata"].get("generation")
        if generation == record.generation:
            return
        record.generation = generation
        record.policy = _policy(agent)
        replicas = agent["spec"].get("replicas", 1)
        if record.policy is None or replicas == record.requested:
            return
        if record.requested is not None or count(agent, "status", "scaling", "requested") != replicas:
            record.memory = autoscale.requested(record.memory, replicas, self._clock())
        record.requested = replicas

    def _note_start(self, key: Key, record: _Agent, known: _Known, stats: Stats) -> None:
        known.started = True
        pod = self._pod(key.namespace, known.replica.name)
        start = ledger.read_start(pod, stats) if pod is not None else None
        if start is None:
            return
        if (revision := text(pod, "metadata", "labels", LABEL_REVISION)) != record.revision:
            record.revision, record.starts = revision, NO_STARTS
        record.starts = ledger.add(record.starts, start)
        if record.last_start is None or start.at >= record.last_start.at:
            record.last_start = start
        self._metrics.started(ledger.phases(start))

    def _silent(self, record: _Agent) -> dict[str, float]:
        silent = {
            name: known.sample.at
            for name, known in record.known.items()
            if known.sample is not None and known.misses >= MISSES
        }
        return silent if silent and not self._cut_off() else {}

    def _cut_off(self) -> bool:
        """Whether so many replicas are silent that it is rather us who cannot hear."""
        heard = [k for r in self._agents.values() for k in r.known.values() if k.sample is not None]
        missing = sum(known.misses >= MISSES for known in heard)
        return len(heard) >= 4 and missing > MOST_OF_THE_FLEET * len(heard)

    def _look(self, key: Key, record: _Agent) -> None:
        """Fold the newest samples into the autoscaler's memory; ask for a decision if it would change one."""
        now = self._clock()
        moment = datetime.fromtimestamp(now, UTC)
        seen = Signals(samples=record.samples(), held=record.held)
        if load.is_due(seen, record.shown, moment):
            self._tell(key, record, urgent=False)
        if record.policy is None or record.desired is None:
            return
        if (observed := signals_of.observation(seen, record.ready, record.desired, now)) is not None:
            record.memory = autoscale.observe(record.memory, observed, record.policy)
        lead = ledger.lead_seconds(record.starts) or 0.0
        found = autoscale.recommend(
            record.memory, record.policy, record.desired, record.capacity, lead, moment
        )
        if found.desired != record.desired:
            self._tell(key, record)

    def _tell(self, key: Key, record: _Agent, *, urgent: bool = True) -> None:
        if record.told is None or (urgent and not record.told):
            record.told = urgent
            self._wake(key, urgent)


def _policy(agent: Object) -> Policy | None:
    given = agent["spec"].get("autoscaling")
    if not given or agent["spec"].get("suspend"):
        return None
    try:
        rules = Autoscaling.model_validate(given)
    except ValueError:
        return None  # the decision says what is wrong with it
    return policy(rules) if rules.provider is AutoscalingProvider.NATIVE else None


def _replica(pod: Object) -> Replica | None:
    """A pod as a replica to be sampled, None while it is not ready or goes."""
    address = text(pod, "status", "podIP")
    if not address or at(pod, "metadata", "deletionTimestamp") is not None:
        return None
    if not is_ready(pod):
        return None
    return Replica(text(pod, "metadata", "uid"), text(pod, "metadata", "name"), address)


def _remembered_lead(agent: Object) -> float | None:
    """The last start in the status: all that is left after a restart of the operator."""
    try:
        return float(text(agent, "status", "lastStart", "readySeconds"))
    except ValueError:
        return None
