"""The runtime on a GPU, beside `transformers serve` and transformers itself. Layer: tooling.

The weights are random (see bench.serving.gpu_models): speed is real, answers are not. Where there is no GPU
these claims say so and measure nothing. docs/gpu.md has what was measured so far.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import httpx2

from bench.claim import Claim, Runs
from bench.serving import gpu_models, load
from bench.serving.gpu_session import CLIENTS, ROUNDS, Session, in_process, session
from bench.serving.server import gpu, ours

PEER_MEMORY = ("--continuous-batching", "--cb-max-memory-percent", "0.3")
"""The peer's cache would take nine tenths of a device that three servers share."""
SEQUENTIAL = "transformers serve, sequential"
CONTINUOUS = "transformers serve, continuous batching"
CEILING = "generate, one static batch of 32 in its own process"

PAGED, DENSE = "ours, batching paged", "ours, batching dense"
AUTO = PAGED
"""What `batching: auto` takes on a GPU."""


@cache
def causal() -> Session:
    """A Llama of 8 billion parameters."""
    return session(gpu_models.llama_8b(), {DENSE: "dense", PAGED: "paged"}, {CONTINUOUS: PEER_MEMORY})


@cache
def seq2seq() -> Session:
    """FLAN-T5-XL's dimensions."""
    return session(gpu_models.flan_t5_xl(), {DENSE: "auto"}, {SEQUENTIAL: ()})


def continuous() -> Runs:
    """Tokens per second of 32 streaming clients, ours and the peer's continuous batching."""
    found = causal()
    return Runs(found.speed(AUTO), found.speed(CONTINUOUS), found.summary())


def engines() -> Runs:
    """Our two engines for decoder-only models."""
    found = causal()
    return Runs(found.speed(AUTO), found.speed(DENSE))


def causal_ceiling() -> Runs:
    """Our faster engine and one static batch."""
    found = causal()
    return Runs(found.speed(AUTO), found.static[CLIENTS])


def seq2seq_ceiling() -> Runs:
    """The batcher and one static batch."""
    found = seq2seq()
    return Runs(found.speed(DENSE), found.static[CLIENTS], found.summary())


def seq2seq_sequential() -> Runs:
    """The batcher at 32 clients and the peer, whose speed does not depend on how many wait, at 4."""
    found = seq2seq()
    return Runs(found.speed(DENSE), found.speed(SEQUENTIAL, 4))


def first_byte() -> Runs:
    """Milliseconds to the first byte, 99th percentile of 32 streaming clients."""
    found = causal()

    def late(name: str) -> list[float]:
        loads = [curve[CLIENTS] for curve in found.curves[name]]
        return [1000 * one.percentile(one.first, 0.99) for one in loads]

    return Runs(late(AUTO), late(CONTINUOUS))


def loading() -> Runs:
    """Seconds from a process' start to its being ready, the files in the page cache."""
    found = causal()
    return Runs([found.seconds[DENSE], found.seconds[PAGED]], [found.seconds[CONTINUOUS]])


def memory() -> Runs:
    """MiB of the device that are left with a model loaded: total less used by /stats, and CUDA's own figure.

    What is used differs: NVML counts what the driver keeps for itself, in the total too.
    """
    return left_of([in_process("gpu_memory", str(gpu_models.llama_1b())) for _ in range(ROUNDS)])


def left_of(facts: list[dict[str, Any]]) -> Runs:
    """The runs of `memory` from what bench.serving.gpu_memory printed."""
    own = [one["reader, total"] - one["reader, used"] for one in facts]
    return Runs(own, [one["CUDA, total"] - one["CUDA, total - free"] for one in facts], {"each": facts})


def decide() -> Runs:
    """Milliseconds to score 64 candidates: POST /v1/decide, and `generate` forced along each in turn."""
    model = gpu_models.llama_1b()
    with ours(model, place=gpu()) as mine:
        load.decide(mine, count=64, requests=3)
        own = [load.decide(mine, count=64, requests=20) for _ in range(ROUNDS)]
    bare = in_process("score_one_by_one", str(model), "--candidates", "64", "--device", "cuda")
    return Runs(own, [float(bare)])


def overhead() -> Runs:
    """Milliseconds that one request of 64 tokens takes longer through the server than bare `generate`."""
    added, details = [], []
    model = gpu_models.llama_1b()
    each = in_process("static_batch", str(model), "--device", "cuda", "--each", "1", "--milliseconds")["1"]
    bare = statistics.median(each)
    for batching in ("paged", "dense"):
        with ours(model, batching, place=gpu()) as mine:
            load.run(mine, str(model), clients=1, requests=3, stream=False)
            for _ in range(ROUNDS):
                done = load.run(mine, str(model), clients=1, requests=5, stream=False)
                through = done.percentile(done.whole, 0.5) * 1000
                if batching == "paged":
                    added.append(through - bare)
                details.append({batching: round(through, 2), "bare generate": round(bare, 2)})
    return Runs(added, details={"milliseconds for 64 tokens": details})


def crowded(batching: str, share: str) -> dict[str, Any]:
    """A server that may take this share of the device: what a very long request and those after it got."""
    model = gpu_models.llama_1b()
    limits = {"max_input_tokens": 130_000, "max_queued_tokens": 400_000}
    command = ("bench.serving.small_gpu", share)
    with (
        ours(model, batching, place=gpu(), parameters=limits, command=command) as mine,
        httpx2.Client(base_url=mine.url, timeout=120, trust_env=False) as http,
    ):
        content = load.body(str(model), 1, False, False)
        content["prompt"] = " ".join(["river"] * 60_000)
        begun = time.monotonic()
        large = http.post("/v1/completions", json=content)
        seconds = time.monotonic() - begun
        after = [
            http.post("/v1/completions", json=load.body(str(model), number, False, False)).status_code
            for number in range(8)
        ]
        stats = mine.stats()
        return {
            "batching": batching, "status of the large one": large.status_code,
            "its answer": large.text[:300], "its seconds": round(seconds, 2),
            "alive": http.get("/health/live").status_code, "after it": after,
            "engine": stats["engine"], "gpus": stats["process"]["gpus"],
        }  # fmt: skip


def answered(facts: list[dict[str, Any]]) -> list[float]:
    """The share of the ordinary requests that were answered."""
    return [one["after it"].count(200) / len(one["after it"]) for one in facts]


def too_large() -> Runs:
    """Share of ordinary requests that are answered after one that did not fit into memory; 0 if it fits."""
    facts = [crowded(batching, "0.03") for batching in ("paged", "dense")]
    refused = all(one["status of the large one"] >= 400 for one in facts)
    return Runs(answered(facts) if refused else [0.0], details={"each engine": facts})


def no_room() -> Runs:
    """Share of ordinary requests that are answered where continuous batching finds no room for its cache."""
    facts = [crowded("paged", "0.08")]
    return Runs(answered(facts), details={"paged": facts})


def claim(
    name: str, sentence: str, unit: str, goal: float, measure: Callable[[], Runs], **more: Any
) -> Claim:
    """A claim of this module; higher is better unless `better` says otherwise."""
    named = {"better": "higher", **more}
    return Claim(
        name=f"runtime-gpu-{name}", area="gpu", sentence=sentence, unit=unit, goal=goal, measure=measure,
        needs_gpu=True, **named,
    )  # fmt: skip


CLAIMS: Sequence[Claim] = (
    claim(
        "causal-continuous",
        "On a GPU, Llama of 8 B, 32 clients: no fewer tokens per second than the peer's continuous batching",
        "tokens/s", 1, continuous, peer_name=CONTINUOUS,
    ),
    claim(
        "causal-ceiling",
        "On a GPU, Llama of 8 B, 32 clients over HTTP: at least 0.7 of one static batch alone",
        "tokens/s", 0.7, causal_ceiling, peer_name=CEILING,
    ),
    claim(
        "engines",
        "On a GPU, Llama of 8 B, 32 clients: the engine that `batching: auto` takes is the faster one",
        "tokens/s", 1, engines, peer_name="the same server with batching: dense",
    ),
    claim(
        "first-byte",
        "On a GPU, Llama of 8 B, 32 clients: milliseconds to the first byte, p99, below the peer's",
        "ms", 1, first_byte, peer_name=CONTINUOUS, better="lower",
    ),
    claim(
        "seq2seq-sequential",
        "On a GPU, FLAN-T5-XL's size, 32 streaming clients: fifteen times the tokens per second of the peer",
        "tokens/s", 15, seq2seq_sequential, peer_name=SEQUENTIAL,
    ),
    claim(
        "seq2seq-ceiling",
        "On a GPU, FLAN-T5-XL's size, 32 clients over HTTP: at least 0.7 of one static batch alone",
        "tokens/s", 0.7, seq2seq_ceiling, peer_name=CEILING,
    ),
    claim(
        "decide",
        "On a GPU, Llama of 1.5 B: a decision over 64 candidates takes a tenth of scoring them one by one",
        "ms", 0.1, decide, peer_name="generate along each candidate in turn", better="lower",
    ),
    claim(
        "overhead",
        "On a GPU, Llama of 1.5 B, one client: the server adds at most 5 ms to what bare generate takes",
        "ms", 5, overhead, better="lower",
    ),
    claim(
        "too-large",
        "On a GPU: after a request that memory cannot hold, and is told so, others are all answered",
        "share", 1, too_large,
    ),
    claim(
        "no-room",
        "On a GPU without room for continuous batching's cache: the batcher answers every request",
        "share", 1, no_room,
    ),
    claim(
        "loading",
        "On a GPU, Llama of 8 B, files in the page cache: seconds from start to ready, not above the peer's",
        "seconds", 1, loading, peer_name=SEQUENTIAL, better="lower",
    ),
    claim(
        "memory",
        "On a GPU: the memory that is left by /stats is at most what CUDA says is left",
        "MiB", 1, memory, peer_name="torch.cuda.mem_get_info", better="lower",
    ),
)  # fmt: skip
