"""Whatever providers are chosen one after the other: never two scalers, and in the end the one asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent_operator.core.snapshot import Defaults, Snapshot
from tests.property.world import World, agent

SCALERS = {"HPA": "HorizontalPodAutoscaler", "KEDA": "ScaledObject"}
PROVIDERS = st.sampled_from([None, "Native", "HPA", "KEDA"])
CHOICES = st.lists(st.tuples(PROVIDERS, st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=6)


class KedaWorld(World):
    """A world in which KEDA can be had, or not."""

    prometheus: str | None = None

    def snapshot(self) -> Snapshot:
        return replace(super().snapshot(), defaults=Defaults(self.image, self.prometheus))

    def scalers(self) -> list[str]:
        return [kind for kind, _ in self.objects if kind in SCALERS.values()]


def autoscaling(provider: str | None, most: int) -> dict[str, Any] | None:
    return {"provider": provider, "maxReplicas": most} if provider else None


@given(CHOICES, st.booleans())
def test_one_scaler_at_most_and_in_the_end_the_one_that_was_asked_for(
    choices: list[tuple[str | None, int, int]], keda: bool
) -> None:
    world = KedaWorld(agent(replicas=2))
    world.prometheus = "http://prometheus" if keda else None
    for provider, most, steps in choices:
        world.change(autoscaling=autoscaling(provider, most))
        for _ in range(steps):
            world.step()
            assert len(world.scalers()) <= 1

    world.settle(10)

    wanted = SCALERS.get(choices[-1][0] or "")
    available = wanted if keda or wanted != "ScaledObject" else None
    assert world.scalers() == ([available] if available else [])
    if available:
        assert world.condition("ScalingActive")["reason"] == "ExternalScaler"
        bounds = world.objects[available, "geography"]["spec"]
        assert choices[-1][1] in (bounds.get("maxReplicas"), bounds.get("maxReplicaCount"))
