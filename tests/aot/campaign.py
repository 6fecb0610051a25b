"""Applies every mutation and its reversal under a running operator. Layer: tests.

The one idea: agents side by side, each with one base; each takes the next mutation of its base, sees that the
effect is the predicted one, goes back, and sees that everything is as it was. What is wrong is collected,
the agent made anew, and the campaign goes on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.aot.bases import BASES
from tests.aot.cluster import Answer, Cluster, Mirror, connected
from tests.aot.effects import REVISION, ROLLING, Effect, predict
from tests.aot.mutations import Mutation
from tests.aot.process import Operator
from tests.aot.state import State, parts, state_of
from tests.support.audit import AuditMark

IN_FLIGHT = 20
SETTLE_SECONDS = 30.0
"""The longest wait for one effect; the usual one is a second or two."""
STEADY_SECONDS = 1.5
IDLE_SECONDS = 10.0
PROGRESS_SECONDS = 15.0
AT_BASE = {"running": "Unschedulable", "native": "Progressing", "hpa": "ScaledToZero"}
"""Reason of condition Ready that a base comes to rest with; the others are suspended."""
SCALED_AT_BASE = {"native": "Autoscaling", "hpa": "ScalingDisabled"}
"""Reason of condition ScalingActive; for an HPA it says that its controller, which looks every 15 s, did."""
UNTOUCHED = ("FeatureNotSupported", "InvalidSpec")
"""Refusals of the whole specification: not one child may change."""


@dataclass
class Finding:
    """Something that is not as predicted."""

    mutation: str
    stage: str
    told: str

    def __str__(self) -> str:
        return f"[{self.stage}] {self.mutation}: {self.told}"


@dataclass
class Outcome:
    """What the campaign saw."""

    findings: list[Finding] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """Mutations by what became of them."""
    unhealthy: list[str] = field(default_factory=list)
    reconcile_errors: float = 0
    alarming: list[str] = field(default_factory=list)
    expected_refusals: set[tuple[str, int]] = field(default_factory=set)
    """Agents and generations whose Deployment must be refused, which the log may tell."""
    idle_writes: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    seconds: float = 0
    slowest: float = 0

    def of(self, *stages: str) -> list[str]:
        """The findings of some stages, as text."""
        return [str(finding) for finding in self.findings if finding.stage in stages]


class SettleError(AssertionError):
    """An agent did not get where it should."""


class Campaign:
    """All mutations over one namespace."""

    def __init__(self, cluster: Cluster, mirror: Mirror, mutations: list[Mutation], outcome: Outcome) -> None:
        self._cluster = cluster
        self._mirror = mirror
        self._outcome = outcome
        self._waiting: defaultdict[str, deque[Mutation]] = defaultdict(deque)
        for mutation in mutations:
            self._waiting[mutation.base].append(mutation)
        self._total = len(mutations)
        self.agents = self._agents()

    def _agents(self) -> dict[str, str]:
        """Names of the agents and their bases, in proportion to the work; one at least."""
        found: dict[str, str] = {}
        for base, waiting in self._waiting.items():
            for number in range(max(1, round(IN_FLIGHT * len(waiting) / self._total))):
                found[f"{base}-{number}"] = base
        return found

    async def run(self) -> None:
        """Everything there is to do."""
        async with asyncio.TaskGroup() as group:
            reporter = group.create_task(self._report())
            workers = [group.create_task(self._work(name, base)) for name, base in self.agents.items()]
            await asyncio.gather(*workers)
            reporter.cancel()

    async def _report(self) -> None:
        begin = time.monotonic()
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            done, wrong = sum(self._outcome.done.values()), len(self._outcome.findings)
            spent = time.monotonic() - begin
            print(
                f"  … {spent:.0f} s: {done}/{self._total} mutations, {wrong} findings",
                file=sys.stderr,
                flush=True,
            )

    async def _work(self, name: str, base: str) -> None:
        rest = await self._founded(name, base)
        waiting = self._waiting[base]
        while waiting:
            mutation = waiting.popleft()
            stage = "effect"
            try:
                kind, changed = await self._mutate(name, rest, mutation)
                stage = "reversal"
                if changed:
                    await self._revert(name, rest)
            except (SettleError, TimeoutError, OSError) as error:
                self._outcome.findings.append(Finding(mutation.name, stage, str(error) or repr(error)))
                kind = "failed"
                await self._buried(name)
                rest = await self._founded(name, base)
            self._outcome.done[kind] += 1

    async def _founded(self, name: str, base: str) -> State:
        """The agent as its base, at rest."""
        answer = await self._cluster.create(name, BASES[base])
        if not answer.accepted:
            raise RuntimeError(f"base {base} is refused: {answer.message}")
        wanted = (AT_BASE.get(base, "Suspended"), SCALED_AT_BASE.get(base, "FixedReplicas"))

        def at_rest(state: State) -> str:
            found = (state.ready[1], state.scaling_active)
            return "" if found == wanted else f"Ready and ScalingActive say {found}, not {wanted}"

        state = await self._until(name, at_rest, 1)
        while await self._mirror.wait(name, STEADY_SECONDS):
            state = await self._until(name, at_rest, 1)
        return state

    async def _buried(self, name: str) -> None:
        """The agent and its children gone."""
        await self._cluster.delete(name)
        end = time.monotonic() + SETTLE_SECONDS
        while name in self._mirror.agents or self._mirror.children[name]:
            if time.monotonic() > end:
                raise RuntimeError(f"{name} is deleted and leaves {list(self._mirror.children[name])}")
            await self._mirror.wait(name, 1)

    async def _mutate(self, name: str, rest: State, mutation: Mutation) -> tuple[str, bool]:
        """What became of the mutation, and whether there is something to take back."""
        old = self._mirror.agents[name]["spec"]
        answer = await self._cluster.respecify(name, mutation.spec)
        if mutation.refused is not None:
            self._check_refusal(mutation, answer)
            return "refused by the API server", answer.accepted
        if not answer.accepted:
            told = f"refused by the API server with {answer.code}: {answer.message[:400]}"
            self._outcome.findings.append(Finding(mutation.name, "verdict", told))
            return "failed", False
        generation = answer.body["metadata"]["generation"]
        if generation == rest.generation and old == answer.body["spec"]:
            return "the same to the API server", False
        effect = mutation.effect or predict(old, answer.body["spec"])
        if effect.reason and effect.reason not in UNTOUCHED:
            self._outcome.expected_refusals.add((f"{self._cluster.namespace}/{name}", generation))
        await self._until(name, lambda state: amiss(effect, rest, state), generation)
        return effect.reason or ("changed children" if effect.parts else "without effect"), True

    def _check_refusal(self, mutation: Mutation, answer: Answer) -> None:
        leaf = mutation.field.rpartition(".")[2].removesuffix("[]")
        wanted = [text for text in (mutation.refused, mutation.place or leaf) if text]
        missing = [text for text in wanted if text not in answer.message]
        if answer.accepted or answer.code not in (400, 422):
            told = f"answered with {answer.code} {answer.message[:300]} instead of a refusal"
        elif missing:
            told = f"the refusal does not say {missing}: {answer.message[:600]}"
        else:
            return
        self._outcome.findings.append(Finding(mutation.name, "verdict", told))

    async def _revert(self, name: str, rest: State) -> None:
        """Back to the base: every child and the status must be what they were."""
        answer = await self._cluster.respecify(name, BASES[name.rpartition("-")[0]])
        if not answer.accepted:
            raise SettleError(f"the base is refused: {answer.message[:400]}")

        def as_it_was(state: State) -> str:
            return difference(rest.children, state.children) or difference(rest.status, state.status)

        await self._until(name, as_it_was, answer.body["metadata"]["generation"])

    async def _until(self, name: str, problem: Callable[[State], str], generation: int) -> State:
        """Waits until an observed generation has no problem left."""
        begin = time.monotonic()
        while True:
            state = state_of(self._mirror, name)
            told = "there is no such agent" if state is None else ""
            if state is not None:
                told = f"generation {state.observed} is observed, not {generation}"
                if state.generation >= generation and state.observed >= generation:
                    told = problem(state)
                if not told:
                    self._outcome.slowest = max(self._outcome.slowest, time.monotonic() - begin)
                    return state
            left = begin + SETTLE_SECONDS - time.monotonic()
            if left <= 0:
                raise SettleError(f"after {SETTLE_SECONDS:.0f} s {told}")
            await self._mirror.wait(name, left)


def amiss(effect: Effect, rest: State, state: State) -> str:
    """What of an effect is not there yet, or is there and should not be; "" when all is well."""
    if effect.reason:
        return _refusal_amiss(effect, rest, state)
    if state.ready[1] in ("FeatureNotSupported", "InvalidSpec", "ChildInvalid", "ReconcileError"):
        return f"the operator says {state.ready}"
    differ, fresh = parts(rest, state)
    expected = effect.parts - {REVISION}
    if differ != expected:
        return f"parts that differ: {sorted(differ)}, predicted: {sorted(expected)}"
    rolled, rolls = state.revision != rest.revision, bool(effect.parts & (ROLLING | {REVISION}))
    if rolled != rolls:
        return (
            f"revision {rest.revision} -> {state.revision}, predicted {'a new' if rolls else 'the same'} one"
        )
    known = [_number(value) for value in fresh]
    if missing := [value for value in effect.shown if _number(value) not in known]:
        return f"{missing} is not in the changed configuration {fresh}"
    if told := _scaling_amiss(effect, state):
        return told
    if not effect.parts:
        before, after = _besides_scaling(rest.status), _besides_scaling(state.status)
        return difference(rest.children, state.children) or difference(before, after)
    return ""


def _scaling_amiss(effect: Effect, state: State) -> str:
    """What the status says of the number of replicas."""
    scaling = state.status.get("scaling", {})
    if effect.scaling is not None and scaling != effect.scaling:
        return f"status.scaling says {scaling}, predicted: {effect.scaling}"
    if effect.active not in ("", state.scaling_active):
        return f"ScalingActive says {state.scaling_active}, predicted: {effect.active}"
    return ""


def _besides_scaling(status: dict[str, Any]) -> dict[str, Any]:
    conditions = {kind: told for kind, told in status["conditions"].items() if kind != "ScalingActive"}
    return {**status, "scaling": {}, "conditions": conditions}


def _refusal_amiss(effect: Effect, rest: State, state: State) -> str:
    """Stalled tells it, and Ready too unless nothing is to be ready; nothing that exists is touched."""
    conditions = state.status["conditions"]
    stalled, ready = conditions.get("Stalled", ("", "", "")), state.ready
    hidden = rest.ready[1] == "Suspended" and effect.reason not in UNTOUCHED
    wanted = {stalled[:2] == ("True", effect.reason), hidden or ready[:2] == ("False", effect.reason)}
    if wanted != {True} or effect.named not in stalled[2] + ready[2]:
        return f"{conditions} instead of {effect.reason} that names {effect.named!r}"
    return difference(rest.children, state.children) if effect.reason in UNTOUCHED else ""


def _number(value: object) -> object:
    try:
        return float(value) if isinstance(value, str | int) and not isinstance(value, bool) else value
    except ValueError:
        return value


def difference(before: object, after: object, path: str = "") -> str:
    """Where two values differ first, "" when they do not."""
    if before == after:
        return ""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            if key not in after:
                return f"{path}/{key} is gone"
            if key not in before:
                return f"{path}/{key} is there and was not: {str(after[key])[:200]}"
            if found := difference(before[key], after[key], f"{path}/{key}"):
                return found
    return f"{path} was {str(before)[:300]} and is {str(after)[:300]}"


async def _guard(operator: Operator, outcome: Outcome) -> None:
    """The operator lives and says that it is healthy, asked once a second."""
    while True:
        code, text = await asyncio.to_thread(operator.answer, "/healthz")
        if code != 200 or not operator.alive:
            outcome.unhealthy.append(f"/healthz: {code} {text}, alive: {operator.alive}")
            if not operator.alive:
                return
        await asyncio.sleep(1)


async def conduct(operator: Operator, mutations: list[Mutation]) -> Outcome:
    """The whole campaign: the mutations, then idleness, then the deletion of every agent."""
    outcome = Outcome()
    before = operator.metric("agentoperator_reconcile_errors_total")
    begin = time.monotonic()
    async with connected(operator.namespace) as cluster, Mirror(cluster).running() as mirror:
        guard = asyncio.create_task(_guard(operator, outcome))
        campaign = Campaign(cluster, mirror, mutations, outcome)
        await campaign.run()
        outcome.seconds = time.monotonic() - begin
        mark = AuditMark()
        await asyncio.sleep(IDLE_SECONDS)
        outcome.idle_writes = mark.writes(user=operator.user)
        outcome.left = await _all_deleted(cluster, mirror, list(campaign.agents))
        guard.cancel()
    outcome.reconcile_errors = operator.metric("agentoperator_reconcile_errors_total") - before
    outcome.alarming = operator.alarming_lines(outcome.expected_refusals)
    return outcome


async def _all_deleted(cluster: Cluster, mirror: Mirror, agents: list[str]) -> list[str]:
    """Deletes all agents; what is still there after the longest wait."""
    await asyncio.gather(*(cluster.delete(agent) for agent in agents))
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        left = [f"AgentDeployment/{name}" for name in mirror.agents]
        left += [key for agent in agents for key in mirror.children[agent]]
        if not left or time.monotonic() > end:
            return left
        await asyncio.sleep(0.3)
