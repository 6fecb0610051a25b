"""Every server of one model on one GPU, at every number of clients, turn about. Layer: tooling.

The one idea: a session measures all of them once and many claims read it, so that a lent GPU is busy with
measuring and not with loading. All hold their weights on the device at once, and one is under load at a time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.serving import load, models
from bench.serving.load import Load
from bench.serving.server import Serving, gpu, ours, peer

LEVELS = (1, 8, 32, 64)
"""Clients at once."""
CLIENTS = 32
WORDS = 150
"""Words of a prompt beyond the question."""
REQUESTS = 2
ROUNDS = 3

Curve = dict[int, Load]


@dataclass
class Session:
    """Rounds of every server, what /stats said under load, and what else was found."""

    curves: dict[str, list[Curve]] = field(default_factory=dict)
    static: dict[int, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def speed(self, name: str, clients: int = CLIENTS) -> list[float]:
        """Tokens per second in each round."""
        return [curve[clients].tokens_per_second for curve in self.curves[name]]

    def summary(self) -> dict[str, Any]:
        """Medians over the rounds, of every server at every number of clients."""
        found: dict[str, Any] = {
            name: {
                clients: described([curve[clients] for curve in curves if clients in curve])
                for clients in sorted(set().union(*curves))
            }
            for name, curves in self.curves.items()
        }
        found["generate, static batch"] = {
            rows: {"tokens/s": round(statistics.median(values), 1)} for rows, values in self.static.items()
        }
        return found | self.facts


def described(loads: Sequence[Load]) -> dict[str, float]:
    """Medians over the rounds; milliseconds to the first and between arrivals."""

    def middle(pick: Callable[[Load], float]) -> float:
        return round(statistics.median(pick(one) for one in loads), 2)

    def milliseconds(values: str, share: float) -> Callable[[Load], float]:
        return lambda one: 1000 * one.percentile(getattr(one, values), share)

    return {
        "tokens/s": middle(lambda one: one.tokens_per_second),
        "first p50 ms": middle(milliseconds("first", 0.5)),
        "first p99 ms": middle(milliseconds("first", 0.99)),
        "inter-token p50 ms": middle(milliseconds("gaps", 0.5)),
        "inter-token p99 ms": middle(milliseconds("gaps", 0.99)),
    }


def one_curve(
    serving: Serving, model: Path, levels: Sequence[int] = LEVELS, requests: int = REQUESTS
) -> Curve:
    """Every number of clients in turn, streaming."""
    return {
        clients: load.run(serving, str(model), clients=clients, requests=requests, stream=True, words=WORDS)
        for clients in levels
    }


def in_process(script: str, *arguments: str) -> Any:
    """What a script of bench.serving prints, run where the servers run."""
    place = gpu()
    command = [
        "taskset",
        "-c",
        place.server_cores,
        sys.executable,
        "-m",
        f"bench.serving.{script}",
        *arguments,
    ]
    path = os.pathsep.join(filter(None, [str(models.ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | place.environment | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def watched(serving: Serving) -> Iterator[dict[str, Any]]:
    """What /stats says while the block runs: the device's utilisation and the engine's longest silence."""
    found: dict[str, Any] = {"utilization": [], "idle_seconds": [], "busy": [], "steps": []}
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.5):
            stats = serving.stats()
            found["utilization"].append(stats["process"]["gpus"][0]["utilization"])
            found["busy"].append(stats["engine"]["busy"])
            found["idle_seconds"].append(stats["engine"]["idle_seconds"])
            found["steps"].append(stats["engine"]["steps"])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def under_load(found: dict[str, list[float]]) -> dict[str, Any]:
    """The samples of `watched`, in one line each."""
    return {
        "utilization, median": statistics.median(found["utilization"] or [0]),
        "utilization, highest": max(found["utilization"], default=None),
        "busy, highest": max(found["busy"], default=None),
        "idle_seconds, highest": round(max(found["idle_seconds"], default=0), 3),
        "steps, first and last": [found["steps"][0], found["steps"][-1]] if found["steps"] else [],
    }


def stats_facts(serving: Serving) -> dict[str, Any]:
    """What /stats says of the model, its loading and the devices."""
    stats = serving.stats()
    return {
        "seconds to ready": round(serving.seconds, 2),
        "model": stats["model"],
        "load_phases": {name: round(value, 2) for name, value in stats["load_phases"].items()},
        "gpus": stats["process"]["gpus"],
        "rss_mib": round(stats["process"]["rss_bytes"] / 2**20),
    }


def session(model: Path, engines: dict[str, str], peers: dict[str, tuple[str, ...]]) -> Session:
    """Ours with each kind of batching, and the peers, in turn; then the static batch alone."""
    found = Session()
    with ExitStack() as stack:
        servers: dict[str, Serving] = {}
        for name, options in peers.items():
            servers[name] = stack.enter_context(peer(model, *options, place=gpu()))
            found.seconds[name] = servers[name].seconds
            one_curve(servers[name], model, [4], 1)
        for name, batching in engines.items():
            mine = servers[name] = stack.enter_context(ours(model, batching, place=gpu(), rows=max(LEVELS)))
            one_curve(mine, model, [max(LEVELS)], 1)
            found.seconds[name] = mine.seconds
            found.facts[f"{name}: /stats"] = stats_facts(mine)
        for number in range(ROUNDS):
            for name, serving in servers.items():
                slow = peers.get(name) == ()
                levels, requests = ((1, 4), 1) if slow else (LEVELS, REQUESTS)
                if slow and number:
                    levels = (4,)
                with ExitStack() as inner:
                    seen = inner.enter_context(watched(serving)) if name in engines else None
                    curve = one_curve(serving, model, levels, requests)
                if seen is not None:
                    found.facts[f"{name}: under load"] = under_load(seen)
                found.curves.setdefault(name, []).append(curve)
                print(name, {k: round(v.tokens_per_second) for k, v in curve.items()}, flush=True)
        for name in engines:
            found.facts[f"{name}: latency in /stats"] = servers[name].stats()["latency"]
            found.facts[f"{name}: engine in /stats"] = servers[name].stats()["engine"]
    each = in_process(
        "static_batch",
        str(model),
        "--device",
        "cuda",
        "--words",
        str(WORDS),
        "--each",
        "1,8,32,64",
        "--repeats",
        "4",
    )
    found.static = {int(rows): values for rows, values in each.items()}
    return found
