"""The claims that need a GPU: what they say without one, and how figures are read. Layer: tests."""

from __future__ import annotations

import json

import pytest

from bench import __main__ as bench
from bench.claim import RESULTS, Claim, Runs
from bench.claims import CLAIMS
from bench.claims.runtime_gpu import answered, left_of
from bench.serving.gpu_session import Session
from bench.serving.load import Load

GPU = [claim for claim in CLAIMS if claim.needs_gpu]


@pytest.mark.parametrize("claim", GPU, ids=lambda claim: claim.name)
def test_without_a_gpu_a_claim_says_so_and_measures_nothing(
    claim: Claim, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "gpu_name", lambda: None)
    monkeypatch.setattr(Claim, "save", lambda *given: pytest.fail("it was measured"))

    bench.run(claim)

    assert f"{claim.name}: not measured: it needs a GPU" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(RESULTS.glob("runtime-gpu-*.json")), ids=lambda path: path.stem)
def test_a_result_is_of_a_claim_there_is_and_names_its_gpu(path: object) -> None:
    found = json.loads(path.read_text())  # type: ignore[attr-defined]
    [claim] = [one for one in GPU if f"CLAIM={one.name}" in found["command"]]

    assert found["machine"]["gpu"]
    again = claim.result(Runs(found["runs"]["ours"], found["runs"]["peer"]))
    assert [again[key] for key in ("ours", "peer", "ratio", "met")] == [
        found[key] for key in ("ours", "peer", "ratio", "met")
    ]


def test_what_is_left_is_compared_because_nvml_counts_what_the_driver_keeps() -> None:
    facts = {"reader, total": 100, "reader, used": 30, "CUDA, total": 95, "CUDA, total - free": 25}

    runs = left_of([facts])

    assert (runs.ours, runs.peer) == ([70], [70])


def test_only_answers_count() -> None:
    assert answered([{"after it": [200, 500, 200, 413]}]) == [0.5]


def test_a_summary_has_the_median_of_the_rounds_that_have_a_number_of_clients() -> None:
    def load(speed: float) -> Load:
        return Load(speed, [0.1], [1.0], [0.01, 0.02, 0.5])

    session = Session({"ours": [{1: load(10), 4: load(30)}, {4: load(50)}]}, {32: [7.0, 9.0]})

    found = session.summary()

    assert [found["ours"][clients]["tokens/s"] for clients in (1, 4)] == [10, 40]
    assert found["ours"][4]["inter-token p99 ms"] == 500
    assert found["generate, static batch"][32]["tokens/s"] == 8
