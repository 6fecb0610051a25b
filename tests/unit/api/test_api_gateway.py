"""The contract between the operator and the gateway."""

from __future__ import annotations

from agent_operator.api.gateway import AgentDemand, Demand, Route, slice_name


def test_a_route_survives_its_annotation() -> None:
    route = Route(namespace="team", agent="geo", backend_service="geo", api_keys_secret="keys", mode="Always")
    assert Route.decode(route.encode()) == route
    assert route.key == "team/geo"


def test_a_field_of_a_newer_operator_is_ignored_and_a_newer_meaning_is_not_obeyed() -> None:
    known = Route.decode('{"v":1,"namespace":"a","agent":"b","backend_service":"b","colour":"red"}')
    assert known is not None
    assert known.max_held_requests == 1000
    assert Route.decode('{"v":2,"namespace":"a","agent":"b","backend_service":"b"}') is None
    assert Route.decode("not json") is None


def test_a_demand_survives_its_answer() -> None:
    demand = Demand(version="x.1", agents={"team/geo": AgentDemand(held=3, held_bytes=900, held_total=7)})
    assert Demand.decode(demand.encode()) == demand
    assert Demand.decode('{"version":"x","agents":{"a/b":{"held":-1}}}') is None


def test_the_slice_of_an_agent_is_named_after_it() -> None:
    assert slice_name("geo") == "geo-gateway"
