"""The runtime beside `transformers serve` and beside transformers itself. Layer: tooling.

The peer serves the same folder on the same core with the same thread count, one server under load at a time,
turn about. The ceiling is a batch of the same size that `generate` computes in a process with nothing else
to do. Every answer has TOKENS tokens (see bench.serving.models).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from bench.claim import Claim, Runs
from bench.serving import load, models
from bench.serving.server import ONE_THREAD, SERVER_CORE, Serving, ours, peer

CLIENTS = 32
WARM, REQUESTS = 4, 16
"""Requests of each client before and in a measurement: at its end clients fall silent one by one."""
ROUNDS = 5
SEQUENTIAL = "transformers serve, sequential"
CONTINUOUS = "transformers serve, continuous batching"
CEILING = "generate, one static batch of 32 in its own process"

Server = Callable[[Path], AbstractContextManager[Serving]]


def continuous(model: Path) -> AbstractContextManager[Serving]:
    """The peer with continuous batching; its cache is bounded, because a CPU's memory is everybody's."""
    return peer(model, "--continuous-batching", "--cb-num-blocks", "256")


def throughput(model: Path, other: Server, *, stream: bool, other_requests: int) -> Runs:
    """Tokens per second of 32 clients, ours and the peer's in turn."""
    with ExitStack() as stack:
        mine, theirs = stack.enter_context(ours(model)), stack.enter_context(other(model))

        def measure(serving: Serving, requests: int) -> float:
            done = load.run(serving, str(model), clients=CLIENTS, requests=requests, stream=stream)
            return done.tokens_per_second

        measure(mine, WARM)
        measure(theirs, 1)  # continuous batching compiles at its first batch
        rounds = [(measure(mine, REQUESTS), measure(theirs, other_requests)) for _ in range(ROUNDS)]
    return Runs([own for own, _ in rounds], [peers for _, peers in rounds])


def in_process(script: str, model: Path, *arguments: str) -> float:
    """The figure a script of bench.serving prints, run on the servers' core with one thread."""
    command = ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", f"bench.serving.{script}", str(model)]
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": str(models.ROOT)}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1]))


def ceiling(model: Path) -> Runs:
    """Our server's tokens per second with 32 clients, and those of one static batch, in turn."""
    own, bare = [], []
    with ours(model) as mine:
        load.run(mine, str(model), clients=CLIENTS, requests=WARM, stream=False)
        for _ in range(ROUNDS):
            done = load.run(mine, str(model), clients=CLIENTS, requests=REQUESTS, stream=False)
            own.append(done.tokens_per_second)
            bare.append(in_process("static_batch", model, "--rows", str(CLIENTS)))
    return Runs(own, bare)


def overhead() -> Runs:
    """Milliseconds that one request takes longer through the server than bare `generate` needs, median."""
    added, details = [], []
    model = models.causal()
    with ours(model) as mine:
        load.run(mine, str(model), clients=1, requests=10, stream=False)
        for _ in range(ROUNDS):
            done = load.run(mine, str(model), clients=1, requests=40, stream=False)
            through = done.percentile(done.whole, 0.5) * 1000
            bare = in_process("static_batch", model, "--rows", "1", "--milliseconds")
            added.append(through - bare)
            details.append({"through the server": round(through, 2), "bare generate": round(bare, 2)})
    return Runs(added, details={"milliseconds for 64 tokens": details})


def first_byte() -> Runs:
    """Milliseconds to the first byte, 99th percentile, 32 streaming clients."""
    model = models.causal()
    with ExitStack() as stack:
        mine, theirs = stack.enter_context(ours(model)), stack.enter_context(continuous(model))

        def measure(serving: Serving) -> float:
            done = load.run(serving, str(model), clients=CLIENTS, requests=REQUESTS, stream=True)
            return done.percentile(done.first, 0.99) * 1000

        measure(mine)
        measure(theirs)
        rounds = [(measure(mine), measure(theirs)) for _ in range(ROUNDS)]
    return Runs([own for own, _ in rounds], [peers for _, peers in rounds])


def memory() -> Runs:
    """Resident MiB of a server with a model of 4 MiB, after its first answers."""
    model, found = models.causal(), []
    for _ in range(3):
        pair = []
        for start in (ours, peer):
            with start(model) as serving:
                load.run(serving, str(model), clients=1, requests=3, stream=False)
                pair.append(serving.rss_mib)
        found.append(pair)
    return Runs([own for own, _ in found], [peers for _, peers in found])


def decide() -> Runs:
    """Milliseconds to score 64 candidates: POST /v1/decide, and `generate` forced along each in turn."""
    own, bare = [], []
    model = models.causal()
    with ours(model) as mine:
        for _ in range(ROUNDS):
            own.append(load.decide(mine, count=64, requests=20))
            bare.append(in_process("score_one_by_one", model, "--candidates", "64"))
    return Runs(own, bare)


def paged() -> Runs:
    """Our two engines for decoder-only models on this CPU: the batcher, and continuous batching."""
    model = models.causal()
    with ExitStack() as stack:
        dense, other = (stack.enter_context(ours(model, batching=kind)) for kind in ("dense", "paged"))

        def measure(serving: Serving) -> float:
            done = load.run(serving, str(model), clients=CLIENTS, requests=REQUESTS, stream=False)
            return done.tokens_per_second

        measure(dense)
        measure(other)
        rounds = [(measure(dense), measure(other)) for _ in range(ROUNDS)]
    return Runs([own for own, _ in rounds], [peers for _, peers in rounds])


CLAIMS: Sequence[Claim] = (
    Claim(
        name="runtime-causal-sequential",
        area="runtime",
        sentence="Decoder-only, 32 clients: ten times the tokens per second of transformers serve",
        unit="tokens/s",
        better="higher",
        goal=10,
        measure=lambda: throughput(models.causal(), peer, stream=False, other_requests=1),
        peer_name=SEQUENTIAL,
    ),
    Claim(
        name="runtime-causal-continuous",
        area="runtime",
        sentence="Decoder-only, 32 clients: twice the tokens per second of the peer's continuous batching",
        unit="tokens/s",
        better="higher",
        goal=2,
        measure=lambda: throughput(models.causal(), continuous, stream=False, other_requests=4),
        peer_name=CONTINUOUS,
    ),
    Claim(
        name="runtime-seq2seq-sequential",
        area="runtime",
        sentence="Encoder-decoder, 32 streaming clients: fifteen times the tokens per second of the peer",
        unit="tokens/s",
        better="higher",
        goal=15,
        measure=lambda: throughput(models.seq2seq(), peer, stream=True, other_requests=1),
        peer_name=SEQUENTIAL,
    ),
    Claim(
        name="runtime-causal-ceiling",
        area="runtime",
        sentence="Decoder-only, 32 clients over HTTP: at least 0.7 of one static batch in its own process",
        unit="tokens/s",
        better="higher",
        goal=0.7,
        measure=lambda: ceiling(models.causal()),
        peer_name=CEILING,
    ),
    Claim(
        name="runtime-seq2seq-ceiling",
        area="runtime",
        sentence="Encoder-decoder, 32 clients over HTTP: at least 0.7 of one static batch in its own process",
        unit="tokens/s",
        better="higher",
        goal=0.7,
        measure=lambda: ceiling(models.seq2seq()),
        peer_name=CEILING,
    ),
    Claim(
        name="runtime-overhead",
        area="runtime",
        sentence="One client: the server adds at most 5 ms to what bare generate takes",
        unit="ms",
        better="lower",
        goal=5,
        measure=overhead,
    ),
    Claim(
        name="runtime-first-byte",
        area="runtime",
        sentence="Milliseconds to the first byte, 99th percentile of 32 streaming clients, below the peer's",
        unit="ms",
        better="lower",
        goal=1,
        measure=first_byte,
        peer_name=CONTINUOUS,
    ),
    Claim(
        name="runtime-memory",
        area="runtime",
        sentence="Resident memory of the server around a model of 4 MiB is lower than the peer's",
        unit="MiB",
        better="lower",
        goal=1,
        measure=memory,
        peer_name=SEQUENTIAL,
    ),
    Claim(
        name="runtime-decide",
        area="runtime",
        sentence="A decision over 64 candidates takes a tenth of scoring them one by one with generate",
        unit="ms",
        better="lower",
        goal=0.1,
        measure=decide,
        peer_name="generate along each candidate in turn",
    ),
    Claim(
        name="runtime-batcher",
        area="runtime",
        sentence="On a CPU the batcher makes more tokens per second than continuous batching in our server",
        unit="tokens/s",
        better="higher",
        goal=1,
        measure=paged,
        peer_name="the same server with batching: paged",
    ),
)
