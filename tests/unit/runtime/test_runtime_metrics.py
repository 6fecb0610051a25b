"""The metrics are an interface: dashboards, alerts and the operator name them, so the list is pinned."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent_runtime.agent.commands import Outcome
from agent_runtime.agent.errors import ErrorCode as AgentCode
from agent_runtime.agent.observer import AgentObserver
from agent_runtime.llm.base import Result, Sampling
from agent_runtime.observability import log_output
from agent_runtime.observability import metric_table as names
from agent_runtime.observability.agent_recorder import AgentRecorder
from agent_runtime.observability.gpu import Gpu
from agent_runtime.observability.metrics import Metrics
from agent_runtime.observability.recorder import Recorder
from agent_runtime.state import State
from agent_runtime.stats import LoadFacts
from tests.model.training import REPOSITORY

GOLDEN = Path(__file__).with_name("runtime_metrics.golden")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gpus:
    def read(self) -> tuple[Gpu, ...]:
        return (Gpu(0, "H100", 10, 80, 0.5), Gpu(1, "MIG", 1, 8))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("geo", tools=["search"], gpus=Gpus())  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(metrics: Metrics, clock: Clock) -> Recorder:
    return Recorder(metrics, "geo", clock=clock)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """A sample of this model; -1 when it is not there."""
    for given in ({"model_name": "geo", **labels}, labels):
        found = metrics.registry.get_sample_value(name, given)
        if found is not None:
            return found
    return -1.0


def everything(metrics: Metrics) -> None:
    """Something of every metric, so that all are exposed."""
    recorder = Recorder(metrics, "geo")
    record = recorder.request("chat", Sampling(4), 3)
    record.piece()
    record.piece()
    record.finished(Result("x", "stop", 3, 2))
    recorder.started(2, 10, 16, 0.1)
    recorder.stepped(2, 0.1)
    recorder.recomputed(1, True)
    recorder.restarted()
    recorder.scored(3, 0.1)
    recorder.error_answered(429, "queue_full")
    metrics.load(LoadFacts(running=1))
    metrics.cache_config(2560, 16)
    metrics.steps_are(7)
    metrics.entered(State.READY)
    metrics.loaded("weights", 1.0)
    agent = AgentRecorder(metrics, "geography")
    agent.run_started()
    agent.approval_requested("search")
    agent.tool_started("search")
    agent.tool_finished("search", "ok", 0.1, 1)
    agent.decision_made("greedy", "search", 0.9, 0.3)
    agent.run_finished("completed", "answer", 1.0, 3)
    agent.facts(runs_live=1, awaiting_approval=0)
    metrics.parameters_changed("applied")


def test_names_types_and_labels_are_as_published(metrics: Metrics) -> None:
    everything(metrics)
    exposed = set()
    for family in metrics.registry.collect():
        if family.name.startswith("process_"):
            continue  # depends on the platform
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = family.name + ("_total" if family.type == "counter" else "")
        exposed.add(f"{name} {family.type} {','.join(labels) or '-'}")

    assert sorted(exposed) == GOLDEN.read_text().splitlines()


def test_every_name_is_in_the_table_once_and_every_metric_of_the_table_is_exposed(metrics: Metrics) -> None:
    everything(metrics)
    families = {f.name: f.type for f in metrics.registry.collect() if not f.name.startswith("process_")}

    assert len({metric.name for metric in names.TABLE}) == len(names.TABLE)
    assert families == {metric.name: metric.kind for metric in names.TABLE}


def test_the_exposition_is_read_by_prometheus_own_parser(metrics: Metrics) -> None:
    everything(metrics)

    families = {family.name for family in text_string_to_metric_families(metrics.render().decode())}

    assert {"vllm:num_requests_running", "vllm:time_to_first_token_seconds", "vllm:prompt_tokens"} <= families


CODE_AT = {"ApiError": 1, "unavailable": 0}
"""Which argument of a call is an error code."""


def test_error_codes_of_the_sources_are_all_known() -> None:
    """Every code written as a literal is a label value; add a new one to metric_table.CODES."""
    used: set[str] = set()
    for file in (REPOSITORY / "agent_runtime").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            place = CODE_AT.get(getattr(node.func, "id", getattr(node.func, "attr", "")))
            if place is not None and len(node.args) > place and isinstance(node.args[place], ast.Constant):
                used.add(node.args[place].value)

    assert used and (used | set(get_args(AgentCode))) - names.CODES == set()


def test_values_nobody_configured_share_one_label(metrics: Metrics) -> None:
    for number in range(1000):
        metrics.tool_called(f"invented-{number}", f"outcome-{number}", 0.1)
        metrics.refused(f"code-{number}")
        metrics.ended("chat", f"reason-{number}", 0.1, f"code-{number}")
        metrics.decided(f"policy-{number}", True, 0.0)
        metrics.run_ended("geography", f"outcome-{number}", 1, 0.1)

    assert value(metrics, "agent_runtime_tool_calls_total", tool="other", outcome="other") == 1000
    assert value(metrics, "agent_runtime_requests_refused_total", code="other") == 1000
    assert len(metrics.render()) < 200_000


def test_a_streamed_answer_is_counted_as_vllm_counts_it(
    metrics: Metrics, recorder: Recorder, clock: Clock
) -> None:
    record = recorder.request("chat", Sampling(8), 12)
    clock.now += 2
    record.scheduled()
    clock.now += 3
    record.piece()
    for _ in range(3):
        clock.now += 0.5
        record.piece()
    record.finished(Result("text", "stop", 12, 4))

    def seconds(name: str) -> tuple[float, float]:
        return value(metrics, f"{name}_count"), value(metrics, f"{name}_sum")

    assert seconds("vllm:time_to_first_token_seconds") == (1, 5.0)
    assert seconds("vllm:request_queue_time_seconds") == (1, 2.0)
    assert seconds("vllm:request_prefill_time_seconds") == (1, 3.0)
    assert seconds("vllm:request_decode_time_seconds") == (1, 1.5)
    assert seconds("vllm:request_inference_time_seconds") == (1, 4.5)
    assert seconds("vllm:e2e_request_latency_seconds") == (1, 6.5)
    assert seconds("vllm:inter_token_latency_seconds") == (3, 1.5)
    assert seconds("vllm:time_per_output_token_seconds") == (3, 1.5)
    assert seconds("vllm:request_prompt_tokens") == (1, 12)
    assert seconds("vllm:request_generation_tokens") == (1, 4)
    assert value(metrics, "vllm:prompt_tokens_total") == 12
    assert value(metrics, "vllm:request_success_total", finished_reason="stop") == 1
    gen_ai = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "agent_runtime",
        "gen_ai_request_model": "geo",
    }
    assert value(metrics, "gen_ai_server_time_per_output_token_seconds_sum", **gen_ai) == 0.5
    assert value(metrics, "gen_ai_server_request_duration_seconds_sum", **gen_ai, error_type="") == 6.5
    assert value(metrics, "gen_ai_client_token_usage_sum", **gen_ai, gen_ai_token_type="output") == 4


@pytest.mark.parametrize("choices", [1, 3])
def test_answers_in_one_piece_are_timed_by_the_engine(
    metrics: Metrics, recorder: Recorder, clock: Clock, choices: int
) -> None:
    record = recorder.request("chat", Sampling(8), 12)
    clock.now += 5
    for choice in range(choices):
        record.piece(choice)
    record.first_token(at=clock.now - 4)
    record.finished(Result("text", "length", 12, 5 * choices))

    assert value(metrics, "vllm:time_to_first_token_seconds_sum") == 1.0
    assert value(metrics, "vllm:inter_token_latency_seconds_count") == 0
    latency = recorder.latency()
    assert latency.inter_token.count == 4 * choices
    assert latency.inter_token.p50 == pytest.approx(1.0, rel=0.021)


def test_an_answer_in_one_piece_that_nobody_timed_tells_nothing_of_its_tokens(
    metrics: Metrics, recorder: Recorder, clock: Clock
) -> None:
    record = recorder.request("chat", Sampling(8), 12)
    clock.now += 5
    record.piece()
    record.finished(Result("text", "length", 12, 5))

    assert value(metrics, "vllm:time_to_first_token_seconds_sum") == 5.0
    assert recorder.latency().inter_token.count == 0


def test_pieces_of_several_choices_are_timed_apart(
    metrics: Metrics, recorder: Recorder, clock: Clock
) -> None:
    record = recorder.request("chat", Sampling(8), 12)
    for _ in range(3):
        clock.now += 1
        record.piece(0)
        record.piece(1)

    assert value(metrics, "vllm:inter_token_latency_seconds_count") == 4
    assert value(metrics, "vllm:inter_token_latency_seconds_sum") == 4.0


def test_a_request_refused_before_it_had_a_place_is_no_failed_one(
    metrics: Metrics, recorder: Recorder
) -> None:
    recorder.request("chat", Sampling(8), 12).failed("queue_full")

    assert value(metrics, "vllm:request_success_total", finished_reason="error") == 0
    assert recorder.rates().requests == 0.0


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_only_the_first_end_of_a_request_counts(metrics: Metrics, recorder: Recorder, reason: str) -> None:
    record = recorder.request("chat", Sampling(8), 12)
    record.scheduled()
    record.failed("out_of_memory") if reason == "error" else record.aborted()
    record.aborted()
    record.failed("out_of_memory")
    record.finished(Result("text", "stop", 12, 5))

    ended = {
        kind: value(metrics, "vllm:request_success_total", finished_reason=kind)
        for kind in ("stop", "length", "error", "abort")
    }
    assert ended == {"stop": 0, "length": 0, "error": 0, "abort": 0, reason: 1}


def test_tokens_are_counted_by_the_engines_steps_or_else_by_the_answer(clock: Clock) -> None:
    local, remote = Metrics("geo"), Metrics("geo")
    here, there = Recorder(local, "geo", clock=clock), Recorder(remote, "geo", remote=True, clock=clock)
    for _ in range(5):
        here.stepped(2, 0.01)
    for recorder in (here, there):
        recorder.request("chat", Sampling(8), 1).finished(Result("text", "stop", 1, 10))

    assert value(local, "vllm:generation_tokens_total") == 10
    assert value(remote, "vllm:generation_tokens_total") == 10


def test_the_engines_troubles_are_counted(metrics: Metrics, recorder: Recorder) -> None:
    recorder.started(rows=4, positions=60, padded=80, seconds=0.5)
    recorder.recomputed(3, out_of_memory=True)
    recorder.recomputed(2, out_of_memory=False)
    recorder.restarted()

    assert value(metrics, "agent_runtime_engine_padding_share_sum") == pytest.approx(0.25)
    assert value(metrics, "vllm:iteration_tokens_total_sum") == 60
    assert value(metrics, "vllm:num_preemptions_total") == 3
    assert value(metrics, "agent_runtime_engine_out_of_memory_splits_total") == 1
    assert value(metrics, "agent_runtime_engine_rows_recomputed_total", reason="failure") == 2
    assert value(metrics, "agent_runtime_engine_restarts_total") == 1
    assert (recorder.restarts, recorder.rows_recomputed, recorder.out_of_memory_splits) == (1, 5, 1)


def test_runs_and_tools_are_counted_as_the_agent_tells_them(metrics: Metrics) -> None:
    agent: AgentObserver = AgentRecorder(metrics, "geography")
    agent.tool_started("search")
    waiting = agent.facts(2, 1)  # type: ignore[attr-defined]
    agent.tool_finished("search", "timeout", 2.0, 3)
    agent.decision_made("softmax", None, 0.1, 1.5)
    agent.run_finished("exhausted", "steps", 7.0, 8)

    assert (waiting.runs_live, waiting.awaiting_approval, waiting.tool_waits) == (2, 1, 1)
    assert value(metrics, "agent_runtime_agent_approvals_pending") == 1
    assert value(metrics, "agent_runtime_tool_calls_total", tool="search", outcome="timeout") == 1
    tool = {"gen_ai_tool_name": "search", "error_type": "timeout"}
    assert value(metrics, "gen_ai_execute_tool_duration_seconds_sum", **tool) == 2.0
    assert value(metrics, "agent_runtime_decisions_total", policy="softmax", abstained="true") == 1
    assert value(metrics, "agent_runtime_agent_runs_total", outcome="exhausted") == 1
    assert value(metrics, "agent_runtime_agent_run_steps_sum") == 8


def test_every_outcome_of_a_tool_has_its_label() -> None:
    assert set(get_args(Outcome)) <= names.TOOL_OUTCOMES


def test_rows_stand_for_the_cache(metrics: Metrics) -> None:
    metrics.load(LoadFacts(running=3, waiting=2, rows=4, rows_possible=16))
    metrics.cache_config(2560, 8)
    metrics.cache_config(2560, 16)

    assert value(metrics, "vllm:num_requests_running") == 3
    assert value(metrics, "vllm:num_requests_waiting") == 2
    assert value(metrics, "vllm:kv_cache_usage_perc") == 0.25
    assert value(metrics, "vllm:cache_config_info", block_size="2560", num_gpu_blocks="16") == 1
    assert value(metrics, "vllm:cache_config_info", block_size="2560", num_gpu_blocks="8") == -1


def test_figures_others_keep_are_read_when_scraped(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(log_output.lost, "queue_full", 3)

    assert value(metrics, "agent_runtime_log_lines_lost_total", reason="queue_full") == 3
    assert value(metrics, "agent_runtime_gpu_memory_used_bytes", gpu="0") == 10
    assert value(metrics, "agent_runtime_gpu_utilization_ratio", gpu="0") == 0.5
    assert value(metrics, "agent_runtime_gpu_utilization_ratio", gpu="1") == -1


def test_two_runtimes_in_one_process_share_nothing() -> None:
    one, other = Metrics("geo"), Metrics("geo")
    one.refused("queue_full")

    assert value(other, "agent_runtime_requests_refused_total", code="queue_full") == -1


@pytest.mark.parametrize("state", list(State))
def test_exactly_one_state_is_set(metrics: Metrics, state: State) -> None:
    metrics.entered(State.STARTING)
    metrics.entered(state)

    assert {other: value(metrics, "agent_runtime_state", state=other.value) for other in State} == {
        other: float(other is state) for other in State
    }


def buckets(metrics: Metrics, name: str) -> list[Any]:
    (family,) = [family for family in metrics.registry.collect() if family.name == name]
    return [
        (sample.labels["le"], sample.value) for sample in family.samples if sample.name.endswith("_bucket")
    ]


def test_a_histogram_of_every_token_counts_as_prometheus_own_does(metrics: Metrics) -> None:
    values = [0.0, 0.001, 0.00100001, 0.02, 0.5, 80.0, 1e9]
    for seconds in values:
        metrics.next_tokens(seconds, 1)
        metrics.first_token(seconds, 0)  # prometheus-client's own histogram

    for le, count in [
        *buckets(metrics, "vllm:inter_token_latency_seconds"),
        *buckets(metrics, "vllm:time_to_first_token_seconds"),
    ]:
        assert count == sum(seconds <= float(le) for seconds in values), le
    assert value(metrics, "vllm:inter_token_latency_seconds_sum") == sum(values)
