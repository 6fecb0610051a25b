"""Every metric of the runtime: name, type, labels, buckets, meaning. Layer: observability, pure data.

The one idea: a name exists in this table and nowhere else. Names that begin with `vllm:` mean what they mean
in vLLM, so its dashboards work unchanged, and their histograms have at least vLLM's boundaries, so sums over
a mixed fleet do too. `vllm:num_requests_waiting`, `vllm:num_requests_running`, `vllm:kv_cache_usage_perc` and
`vllm:cache_config_info` are what the Gateway API Inference Extension's model server protocol asks for
(its docs/proposals/003-model-server-protocol). `gen_ai_*` are OpenTelemetry's GenAI metrics (in
development) as Prometheus spells them. There are no LoRA adapters here, hence no `vllm:lora_requests_info`.

Every label has few values: models, phases and states by construction, tools by configuration, codes,
outcomes and policies by the lists below, anything else being counted as "other".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from agent_runtime.llm.base import ErrorCode

Kind = Literal["gauge", "counter", "histogram"]

OTHER = "other"
CODES: frozenset[str] = frozenset(
    {
        "admin_loopback_only", "call_not_awaiting_approval", "client_disconnected",
        "context_length_exceeded", "decision_unsupported", "expired_api_key", "http_error",
        "internal_error", "invalid_admin_token", "invalid_api_key", "invalid_header", "invalid_json",
        "invalid_value", "limit_not_tightened", "method_not_allowed", "missing_api_key", "model_loading",
        "model_not_found", "not_awaiting_approval", "not_background", "not_changeable_live", "not_found",
        "parameters_not_applied", "permission_denied", "previous_response_not_found", "queue_full",
        "rate_limit_exceeded", "request_timeout", "request_too_large", "response_not_found", "run_conflict",
        "run_not_found", "server_failed", "session_not_found", "session_store_unavailable", "too_many_runs",
        "tool_not_allowed", "tool_not_found", "tools_unsupported", "unsupported_field", "unsupported_value",
        *get_args(ErrorCode),
    }
)  # fmt: skip
"""Error codes as label values."""
FINISH_REASONS = frozenset({"stop", "length", "abort", "error"})
RUN_OUTCOMES = frozenset({"completed", "failed", "cancelled", "exhausted"})
POLICIES = frozenset({"greedy", "softmax", "expected_utility", "mean_variance", "cvar"})
TOOL_OUTCOMES = frozenset(
    {
        "ok", "error", "timeout", "invalid_arguments", "unknown_tool", "unavailable", "denied",
        "approval_expired", "outcome_unknown", "not_called",
    }
)  # fmt: skip

_FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_PER_TOKEN = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
    10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_REQUEST = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0,
    50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_OTEL_FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
_OTEL_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_OTEL_DURATION = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
_OTEL_TOKENS = tuple(4**power for power in range(14))
_STEP = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_SHARE = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_COUNTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)
_NATS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. A counter's name is without the `_total` that Prometheus adds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ("model_name",)
    buckets: tuple[float, ...] = ()


RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
CACHE_USAGE = "vllm:kv_cache_usage_perc"
CACHE_CONFIG = "vllm:cache_config_info"
FIRST_TOKEN = "vllm:time_to_first_token_seconds"  # noqa: S105 - a metric's name
INTER_TOKEN = "vllm:inter_token_latency_seconds"  # noqa: S105
PER_OUTPUT_TOKEN = "vllm:time_per_output_token_seconds"  # noqa: S105
LATENCY = "vllm:e2e_request_latency_seconds"
QUEUE_TIME = "vllm:request_queue_time_seconds"
PREFILL_TIME = "vllm:request_prefill_time_seconds"
DECODE_TIME = "vllm:request_decode_time_seconds"
INFERENCE_TIME = "vllm:request_inference_time_seconds"
PROMPT_TOKENS = "vllm:prompt_tokens"
GENERATION_TOKENS = "vllm:generation_tokens"
REQUEST_PROMPT_TOKENS = "vllm:request_prompt_tokens"
REQUEST_GENERATION_TOKENS = "vllm:request_generation_tokens"
ITERATION_TOKENS = "vllm:iteration_tokens_total"
SUCCESS = "vllm:request_success"
PREEMPTIONS = "vllm:num_preemptions"
OTEL_FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"  # noqa: S105
OTEL_PER_TOKEN = "gen_ai_server_time_per_output_token_seconds"  # noqa: S105
OTEL_DURATION = "gen_ai_server_request_duration_seconds"
OTEL_USAGE = "gen_ai_client_token_usage"
OTEL_AGENT_DURATION = "gen_ai_invoke_agent_duration_seconds"
OTEL_TOOL_DURATION = "gen_ai_execute_tool_duration_seconds"
REFUSED = "agent_runtime_requests_refused"
STATE = "agent_runtime_state"
LOAD_SECONDS = "agent_runtime_load_seconds"
STEPS = "agent_runtime_decode_steps"
STEP_SECONDS = "agent_runtime_engine_step_seconds"
START_SECONDS = "agent_runtime_engine_start_seconds"
BATCH_ROWS = "agent_runtime_engine_batch_rows"
PADDING = "agent_runtime_engine_padding_share"
RESTARTS = "agent_runtime_engine_restarts"
RECOMPUTED = "agent_runtime_engine_rows_recomputed"
MEMORY_SPLITS = "agent_runtime_engine_out_of_memory_splits"
SCORED = "agent_runtime_engine_candidates_scored"
SCORE_SECONDS = "agent_runtime_engine_score_seconds"
RUNS = "agent_runtime_agent_runs"
RUN_STEPS = "agent_runtime_agent_run_steps"
RUNS_LIVE = "agent_runtime_agent_runs_live"
APPROVALS = "agent_runtime_agent_approvals_pending"
APPROVALS_REQUESTED = "agent_runtime_agent_approvals_requested"
TOOL_CALLS = "agent_runtime_tool_calls"
DECISIONS = "agent_runtime_decisions"
ENTROPY = "agent_runtime_decision_entropy_nats"
PARAMETER_CHANGES = "agent_runtime_parameter_changes"
LOG_LOST = "agent_runtime_log_lines_lost"
MEMORY_LIMIT = "agent_runtime_memory_limit_bytes"
GPU_MEMORY_USED = "agent_runtime_gpu_memory_used_bytes"
GPU_MEMORY = "agent_runtime_gpu_memory_bytes"
GPU_USE = "agent_runtime_gpu_utilization_ratio"

_GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")

TABLE: tuple[Metric, ...] = (
    Metric(RUNNING, "gauge", "Requests being generated."),
    Metric(WAITING, "gauge", "Requests waiting for a place."),
    Metric(
        CACHE_USAGE, "gauge",
        "Rows in use divided by rows possible, 0 to 1: the cache is kept by the row, not in blocks.",
    ),
    Metric(
        CACHE_CONFIG, "gauge",
        "Always 1. block_size: most tokens of a row; num_gpu_blocks: rows possible at once.",
        ("model_name", "block_size", "num_gpu_blocks"),
    ),
    Metric(FIRST_TOKEN, "histogram", "Seconds from arrival to the first piece.", buckets=_FIRST_TOKEN),
    Metric(
        INTER_TOKEN, "histogram", "Seconds between two pieces of a streamed answer.", buckets=_PER_TOKEN
    ),
    Metric(
        PER_OUTPUT_TOKEN, "histogram", "The same under vLLM's older name for it.", buckets=_PER_TOKEN
    ),
    Metric(LATENCY, "histogram", "Seconds from arrival to the end of the answer.", buckets=_REQUEST),
    Metric(QUEUE_TIME, "histogram", "Seconds a request waited for a place.", buckets=_REQUEST),
    Metric(PREFILL_TIME, "histogram", "Seconds from its place to the first piece.", buckets=_REQUEST),
    Metric(DECODE_TIME, "histogram", "Seconds from the first piece to the last.", buckets=_REQUEST),
    Metric(INFERENCE_TIME, "histogram", "Seconds from its place to the last piece.", buckets=_REQUEST),
    Metric(PROMPT_TOKENS, "counter", "Prompt tokens of requests that got their first token."),
    Metric(GENERATION_TOKENS, "counter", "Tokens generated."),
    Metric(REQUEST_PROMPT_TOKENS, "histogram", "Prompt tokens of a finished request.", buckets=_TOKENS),
    Metric(
        REQUEST_GENERATION_TOKENS, "histogram", "Tokens generated for a finished request.", buckets=_TOKENS
    ),
    Metric(
        ITERATION_TOKENS, "histogram", "Tokens read or generated in one step of the engine.",
        buckets=_ITERATION,
    ),
    Metric(
        SUCCESS, "counter",
        "Requests that ended, by why; abort: the client left; error: the model failed.",
        ("model_name", "finished_reason"),
    ),
    Metric(PREEMPTIONS, "counter", "Rows stopped for want of memory and computed again later."),
    Metric(
        OTEL_FIRST_TOKEN, "histogram", "Seconds to the first token of successful answers.", _GEN_AI,
        _OTEL_FIRST_TOKEN,
    ),
    Metric(
        OTEL_PER_TOKEN, "histogram", "Mean seconds per token after the first of successful answers.", _GEN_AI,
        _OTEL_PER_TOKEN,
    ),
    Metric(
        OTEL_DURATION, "histogram", "Seconds to the last token; error_type is empty on success.",
        (*_GEN_AI, "error_type"), _OTEL_DURATION,
    ),
    Metric(
        OTEL_USAGE, "histogram", "Tokens of one operation.", (*_GEN_AI, "gen_ai_token_type"), _OTEL_TOKENS
    ),
    Metric(
        OTEL_AGENT_DURATION, "histogram", "Seconds of one agent run; error_type is empty on success.",
        ("gen_ai_agent_name", "error_type"), _OTEL_DURATION,
    ),
    Metric(
        OTEL_TOOL_DURATION, "histogram", "Seconds of one tool execution; error_type is empty on success.",
        ("gen_ai_tool_name", "error_type"), _OTEL_DURATION,
    ),
    Metric(REFUSED, "counter", "Answers that were errors, by code.", ("model_name", "code")),
    Metric(STATE, "gauge", "1 for the present state, 0 for the others.", ("state",)),
    Metric(LOAD_SECONDS, "gauge", "Seconds each phase of start-up took.", ("phase",)),
    Metric(STEPS, "gauge", "Steps of the engine so far; standing still while requests run means hung."),
    Metric(STEP_SECONDS, "histogram", "Seconds of one decode step.", buckets=_STEP),
    Metric(START_SECONDS, "histogram", "Seconds to read the prompts of one batch.", buckets=_STEP),
    Metric(BATCH_ROWS, "histogram", "Rows computed in one decode step.", buckets=_ROWS),
    Metric(PADDING, "histogram", "Share of padding among the positions read in one start.", buckets=_SHARE),
    Metric(RESTARTS, "counter", "Times the engine's thread died and was replaced."),
    Metric(
        RECOMPUTED, "counter", "Rows computed again after a failed step.", ("model_name", "reason")
    ),
    Metric(MEMORY_SPLITS, "counter", "Steps that ran out of memory and whose rows were split."),
    Metric(SCORED, "counter", "Candidates scored for decisions."),
    Metric(SCORE_SECONDS, "histogram", "Seconds of one scoring pass.", buckets=_STEP),
    Metric(RUNS, "counter", "Agent runs that ended, by how.", ("outcome",)),
    Metric(RUN_STEPS, "histogram", "Steps of an agent run.", (), _COUNTS),
    Metric(RUNS_LIVE, "gauge", "Agent runs not ended, those awaiting approval included.", ()),
    Metric(APPROVALS, "gauge", "Tool calls waiting for somebody's approval.", ()),
    Metric(APPROVALS_REQUESTED, "counter", "Tool calls that somebody was asked to approve.", ()),
    Metric(TOOL_CALLS, "counter", "Tool calls, by what came of them.", ("tool", "outcome")),
    Metric(DECISIONS, "counter", "Decisions by policy, and whether it abstained.", ("policy", "abstained")),
    Metric(ENTROPY, "histogram", "Entropy of the distribution over candidate actions.", (), _NATS),
    Metric(PARAMETER_CHANGES, "counter", "Changes of parameters while serving, by result.", ("result",)),
    Metric(LOG_LOST, "counter", "Log lines that were not written, by why.", ("reason",)),
    Metric(MEMORY_LIMIT, "gauge", "The container's memory limit; absent without one.", ()),
    Metric(GPU_MEMORY_USED, "gauge", "Memory in use on the device, by anybody.", ("gpu",)),
    Metric(GPU_MEMORY, "gauge", "Memory of the device.", ("gpu",)),
    Metric(GPU_USE, "gauge", "Share of time the device computed lately; absent where unknown.", ("gpu",)),
)  # fmt: skip
