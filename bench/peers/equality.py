"""Do the operators make the same children? Read back from the API server and compared field by field.

Layer: tooling. The one idea: a benchmark of two operators is fair only where both have done the same
work, so everything that was asked for must be equal. Left out is what cannot be: identities the API
server gives out, the status, the owner, and two checksums over text that names the owner or the agent.
The pod template that our operator records in an annotation is compared, since every side stores it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from agent_operator.shell.kinds import CHILDREN, ENDPOINT_SLICE
from bench.peers.children import AGENT_LABEL, HASH_ANNOTATION, POD_TEMPLATE_ANNOTATION

KINDS = tuple(kind.plural for kind in CHILDREN if kind != ENDPOINT_SLICE)
"""EndpointSlices are left out: Kubernetes makes some of every Service, under names that differ."""
CHECKSUM = "<checksum>"
NAMESPACE = "<namespace>"
_GIVEN = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "namespace")
_ADDRESSES = ("clusterIP", "clusterIPs")
_OF_OTHERS = ("deployment.kubernetes.io/revision",)
"""Annotations that controllers of Kubernetes write."""

Children = dict[str, dict[str, Any]]


class Driver(Protocol):
    """What is needed of tests.support.kubectl.Kubectl: kubectl bound to one namespace."""

    namespace: str

    def run(self, *arguments: str) -> str: ...


def assert_equal_output(sides: Mapping[str, Driver], agent: str) -> None:
    """Fails unless the agent has the same children on every side; the first side is the reference."""
    found = {name: read(driver, agent) for name, driver in sides.items()}
    reference, *others = found
    assert found[reference], f"{reference} has made no children of {agent}"
    complaints = [
        f"{other}: {difference}"
        for other in others
        for difference in differences(found[reference], found[other])
    ]
    assert not complaints, f"not what {reference} made:\n" + "\n".join(complaints)


def read(driver: Driver, agent: str) -> Children:
    """The agent's children in the driver's namespace, normalised, by kind and name."""
    listed = driver.run("get", ",".join(KINDS), "-l", f"{AGENT_LABEL}={agent}", "-o", "json")
    return {
        f"{item['kind']} {item['metadata']['name']}": normalised(item, driver.namespace)
        for item in json.loads(listed)["items"]
    }


def differences(reference: Children, other: Children) -> list[str]:
    """What is missing, too much or of another value in `other`, one line each."""
    found = [f"{key} is missing" for key in reference.keys() - other.keys()]
    found += [f"{key} should not be there" for key in other.keys() - reference.keys()]
    for key in reference.keys() & other.keys():
        found += [f"{key}{line}" for line in _differences(reference[key], other[key], "")]
    return sorted(found)


def normalised(child: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """A child without what may differ between two namespaces and two owners."""
    result: dict[str, Any] = json.loads(json.dumps(child))
    result.pop("status", None)
    metadata = result["metadata"]
    for field in _GIVEN:
        metadata.pop(field, None)
    # Of the owner only this must be equal: that there is one, and that it is the controller.
    metadata["ownerReferences"] = [
        {key: owner.get(key) for key in ("name", "controller", "blockOwnerDeletion")}
        for owner in metadata.get("ownerReferences") or ()
    ]
    annotations = metadata.get("annotations") or {}
    for name in _OF_OTHERS:
        annotations.pop(name, None)
    if annotations.get(HASH_ANNOTATION):
        annotations[HASH_ANNOTATION] = CHECKSUM
    if recorded := annotations.get(POD_TEMPLATE_ANNOTATION):
        annotations[POD_TEMPLATE_ANNOTATION] = f"{CHECKSUM} {recorded.partition(' ')[2]}"
    for field in _ADDRESSES:
        (result.get("spec") or {}).pop(field, None)
    # The runtime's configuration names the namespace inside of JSON that is text.
    for key, value in (result.get("data") or {}).items():
        result["data"][key] = value.replace(json.dumps(namespace), json.dumps(NAMESPACE))
    return result


def _differences(one: Any, two: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted(one.keys() | two.keys()):
            if key not in one or key not in two:
                yield f"{path}.{key} is {'missing' if key in one else 'too much'}"
            else:
                yield from _differences(one[key], two[key], f"{path}.{key}")
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for index, (a, b) in enumerate(zip(one, two, strict=True)):
            yield from _differences(a, b, f"{path}[{index}]")
    elif one != two or type(one) is not type(two):
        yield f"{path} is {two!r}, not {one!r}"
