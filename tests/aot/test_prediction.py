"""The predicted effects, held against the decision core in memory: what the campaign will see, in a second.

The one idea: a mistake in the tables and a mistake in the operator look alike on the cluster; here the whole
list is judged before one is started. What only an API server or a controller can say is left to the campaign.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent_operator.core import autoscale
from agent_operator.core.signals import NOTHING
from tests.aot import schema
from tests.aot.bases import BASES
from tests.aot.campaign import amiss, difference
from tests.aot.cluster import Mirror
from tests.aot.effects import GATEWAY, Effect, predict
from tests.aot.mutations import Mutation, generate
from tests.aot.schema import Spec
from tests.aot.state import State, state_of
from tests.property.world import START, World, agent

NAME = "x"
PORT = 20_000
ACCEPTED = [mutation for mutation in generate() if mutation.refused is None]
NORMALISED = ("bare: template.metadata.annotations = {}", "local: the same quantity in other words")
"""Other words that the real API server stores as the same."""
JUDGED = [
    mutation for mutation in ACCEPTED
    if mutation.name not in NORMALISED and (mutation.effect or Effect()).reason != "ChildInvalid"
]  # fmt: skip
"""A model of an API server that refused children as it does would be an API server."""


def _founded(base: str, port: int | None) -> tuple[World, State]:
    return copy.deepcopy(_at_rest(base, port))


@cache
def _at_rest(base: str, port: int | None) -> tuple[World, State]:
    world = World(agent(NAME))
    world.agent["spec"] = schema.stored(BASES[base])
    world.signals = replace(NOTHING, free_port=port)
    return world, _settled(world)


def _settled(world: World) -> State:
    # The monitor remembers what was asked for by hand until a replica answers, and none does.
    memory = autoscale.requested(world.signals.memory, world.agent["spec"]["replicas"], START.timestamp())
    world.signals = replace(world.signals, memory=memory)
    world.settle()
    world.run_controllers()
    world.settle()
    children = {f"{kind}/{name}": child for (kind, name), child in world.objects.items()}
    seen = SimpleNamespace(agents={NAME: world.agent}, children={NAME: children})
    state = state_of(cast(Mirror, seen), NAME)
    assert state is not None
    return state


def _respecified(world: World, spec: Spec) -> State:
    world.agent["spec"] = schema.stored(spec)
    world.agent["metadata"]["generation"] += 1
    return _settled(world)


@pytest.mark.parametrize("mutation", JUDGED, ids=lambda mutation: mutation.name)
def test_the_core_does_what_is_predicted_and_takes_it_back(mutation: Mutation) -> None:
    world, rest = _founded(mutation.base, PORT)
    effect = mutation.effect or predict(world.agent["spec"], schema.stored(mutation.spec))

    assert amiss(effect, rest, _respecified(world, mutation.spec)) == ""

    back = _respecified(world, BASES[mutation.base])
    assert difference(rest.children, back.children) == ""
    assert difference(rest.status, back.status) == ""


BY_GATEWAY = [
    mutation for mutation in JUDGED
    if mutation.effect is None
    and GATEWAY in predict(schema.stored(BASES[mutation.base]), schema.stored(mutation.spec)).parts
]  # fmt: skip


@pytest.mark.parametrize("mutation", BY_GATEWAY, ids=lambda mutation: mutation.name)
def test_where_no_gateway_is_configured_nothing_leads_to_one(mutation: Mutation) -> None:
    world, rest = _founded(mutation.base, None)
    effect = predict(world.agent["spec"], schema.stored(mutation.spec))

    state = _respecified(world, mutation.spec)

    assert amiss(replace(effect, parts=effect.parts - {GATEWAY}, shown=()), rest, state) == ""
    assert not [key for key in state.children if key.startswith("EndpointSlice") or key.endswith("-pods")]


def test_most_of_the_mutations_are_judged() -> None:
    assert len(JUDGED) > 0.9 * len(ACCEPTED)
    assert set(NORMALISED) <= {mutation.name for mutation in ACCEPTED}
    assert len(BY_GATEWAY) >= 20


def test_a_wrong_prediction_is_noticed() -> None:
    world, rest = _founded("native", PORT)
    spec: dict[str, Any] = schema.put(BASES["native"], ("autoscaling", "minReplicas"), 3)
    effect = predict(world.agent["spec"], schema.stored(spec))
    state = _respecified(world, spec)

    assert amiss(effect, rest, state) == ""
    for wrong in (
        replace(effect, parts=frozenset()),
        replace(effect, scaling={"desired": 4}),
        replace(effect, active="Suspended"),
        replace(effect, shown=(7,)),
    ):
        assert amiss(wrong, rest, state)
