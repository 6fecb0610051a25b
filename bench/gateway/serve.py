"""Our gateway as a process, told of its agent by arguments instead of a watch. Layer: tooling.

`python -m bench.gateway.serve PORT BACKEND_PORT ADDRESS...` serves one agent in mode Always. Everything from
the cache of slices on is what runs in a cluster, on the same event loop.
"""

from __future__ import annotations

import sys

import uvloop

from agent_operator.api.gateway import Route
from agent_operator.controller.cache import Cache
from agent_operator.controller.informer import Informer
from agent_operator.controller.queue import WorkQueue
from agent_operator.gateway.directory import Key, index_values, key_of, trim
from agent_operator.gateway.keys import SecretKeys
from agent_operator.gateway.server import Gateway
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.kinds import ENDPOINT_SLICE, Kind
from agent_operator.shell.kube import Object
from tests.support.gateway import endpoint, our_slice, slice_of


async def no_secret(kind: Kind, namespace: str, name: str) -> Object:
    raise AssertionError("this agent has no keys")


async def serve(port: int, backend_port: int, addresses: list[str]) -> None:
    metrics = Metrics()
    cache = Cache(trim=trim, index_values=index_values)
    queue: WorkQueue[Key] = WorkQueue(metrics)
    informer: Informer[Key] = Informer(
        cache, queue, metrics,
        key_of=key_of, kinds=(ENDPOINT_SLICE,), selector_of=lambda kind: "", namespaces=(),
    )  # fmt: skip
    route = Route(
        namespace="team", agent="geo", backend_service="geo", mode="Always", admin_port=backend_port
    )
    informer.observe(our_slice(route, port))
    pods = [endpoint(address, f"pod-{number}") for number, address in enumerate(addresses)]
    informer.observe(slice_of("geo-abc", "geo", "geo", backend_port, pods))
    gateway = Gateway(
        cache, queue, SecretKeys(no_secret), metrics.registry, host="127.0.0.1", instance="bench"
    )
    await gateway.run()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
