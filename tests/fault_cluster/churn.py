"""Somebody who keeps editing agents, so that there always is something to write. Layer: tests.

The one idea: all agents at once, then a pause: in between, every worker of the leader is busy, so a fault
can be made to happen in the midst of its writes.
"""

from __future__ import annotations

import itertools
import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.kubectl import Kubectl, wait_for

PAUSE_SECONDS = 0.6
SETTLE_SECONDS = 30


@dataclass(frozen=True)
class Server:
    """An API server and a token for it. kubectl would cost more than what it measures."""

    url: str
    authority: str
    token: str

    def patch(self, path: str, change: dict[str, Any]) -> dict[str, Any]:
        """A merge patch; returns the object after it."""
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(change).encode(),
            method="PATCH",
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/merge-patch+json"},
        )
        context = ssl.create_default_context(cadata=self.authority)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return dict(json.load(answer))


@dataclass
class Churn:
    """Edits the agents in turn until it is stopped; remembers the generation of each."""

    server: Server
    kubectl: Kubectl
    names: tuple[str, ...]
    edits: int = 0
    generations: dict[str, int] = field(default_factory=dict)
    problem: str = ""

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Edits as long as the block lasts."""
        stop = threading.Event()
        thread = threading.Thread(target=self._edit, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert not self.problem, self.problem

    def _edit(self, stop: threading.Event) -> None:
        folder = f"/apis/agentoperator.dev/v1alpha1/namespaces/{self.kubectl.namespace}/agentdeployments"
        for name in itertools.cycle(self.names):
            if name == self.names[0] and stop.wait(PAUSE_SECONDS):
                return
            self.edits += 1
            change = {"spec": {"agent": {"systemPrompt": f"edit {self.edits} at {time.time():.3f}"}}}
            try:
                self.generations[name] = self.server.patch(f"{folder}/{name}", change)["metadata"][
                    "generation"
                ]
            except OSError as error:
                self.problem = f"edit {self.edits} of {name}: {error}"
                return

    def wait_converged(self) -> float:
        """Until every edit is in the status and the newest prompt in the children; returns the seconds."""
        began = time.monotonic()
        wait_for("every edit to be acted on", self._converged, SETTLE_SECONDS, self._explain)
        return time.monotonic() - began

    def _converged(self) -> bool:
        agents = {a["metadata"]["name"]: a for a in self.kubectl.list("agentdeployments")}
        prompts = " ".join(json.dumps(c.get("data", {})) for c in self.kubectl.list("configmaps"))
        return all(
            agents[name].get("status", {}).get("observedGeneration") == generation
            and agents[name]["metadata"]["generation"] == generation
            and agents[name]["spec"]["agent"]["systemPrompt"] in prompts
            for name, generation in self.generations.items()
        )

    def _explain(self) -> str:
        agents = self.kubectl.list("agentdeployments")
        return json.dumps({a["metadata"]["name"]: a.get("status") for a in agents}, indent=1)[:3000]
