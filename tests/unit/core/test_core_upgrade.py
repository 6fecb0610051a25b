"""A later operator leaves alone what an earlier one made: no pod restarts because of an upgrade."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from tests.property.world import UID, World, kinds

FOLDER = Path(__file__).parent / "upgrade"


def earlier() -> World:
    """A world in which an agent was made by the first operator and serves."""
    manifest: dict[str, Any] = yaml.safe_load((FOLDER / "agent.yaml").read_text())
    manifest["metadata"] |= {"namespace": "default", "uid": UID, "generation": 1}
    world = World(manifest)
    for child in yaml.safe_load_all((FOLDER / "children.yaml").read_text()):
        child["metadata"] |= {"uid": world.uid(), "generation": 1, "resourceVersion": "1"}
        world.objects[child["kind"], child["metadata"]["name"]] = child
    world.run_controllers()
    world.all_ready()
    return world


def test_nothing_that_an_earlier_operator_made_is_written_again() -> None:
    world = earlier()
    before = deepcopy(world.objects)
    plans = world.settle()
    assert [plan.writes for plan in plans] == [()] * len(plans)
    assert world.objects == before
    assert world.condition("Ready")["status"] == "True"


def test_an_edit_of_what_an_earlier_operator_made_is_undone_in_its_own_words() -> None:
    world = earlier()
    (deployment,) = world.deployments()
    before = deepcopy(deployment["spec"]["template"])
    deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = 9000
    assert kinds(world.step().writes) == ["Deployment"]
    assert [p["containerPort"] for p in before["spec"]["containers"][0]["ports"]] == [
        p["containerPort"]
        for p in world.deployments()[0]["spec"]["template"]["spec"]["containers"][0]["ports"]
    ]


def test_the_next_change_takes_the_new_rendering_beside_the_old_one() -> None:
    world = earlier()
    (old,) = world.deployments()
    spec = world.agent["spec"]
    world.change(agent={**spec["agent"], "systemPrompt": "Be brief."})
    assert kinds(world.step().writes) == ["ConfigMap", "Deployment"]
    new = next(d for d in world.deployments() if d is not old)
    ports = new["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert [port["name"] for port in ports] == ["http", "admin"]
    assert old["metadata"]["name"] in {d["metadata"]["name"] for d in world.deployments()}
