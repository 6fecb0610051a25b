"""Every metric of the runtime. Layer: observability; prometheus-client only.

The one idea: a metric's name exists in this file and nowhere else. Names starting with `vllm:` mean what
they mean in vLLM, so its dashboards and the Gateway API Inference Extension work unchanged.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from agent_runtime.state import State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)


class Metrics:
    """The runtime's metrics in a registry of their own, labelled with the served model."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._model = model_name
        label = ("model_name",)

        def gauge(name: str, text: str, labels: tuple[str, ...] = label) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = label) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(name, text, label, registry=self.registry, buckets=_SECONDS)

        self.running = gauge("vllm:num_requests_running", "Requests generating.").labels(model_name)
        self.waiting = gauge("vllm:num_requests_waiting", "Requests waiting for a slot.").labels(model_name)
        self.latency = histogram(
            "vllm:e2e_request_latency_seconds", "Seconds from arrival to the last token."
        ).labels(model_name)
        self.first_token = histogram(
            "vllm:time_to_first_token_seconds", "Seconds from arrival to the first token."
        ).labels(model_name)
        self.prompt_tokens = counter("vllm:prompt_tokens", "Prompt tokens read.").labels(model_name)
        self.generation_tokens = counter("vllm:generation_tokens", "Tokens generated.").labels(model_name)
        self._success = counter(
            "vllm:request_success", "Requests answered, by why they ended.", ("model_name", "finished_reason")
        )
        self._refused = counter(
            "agent_runtime_requests_refused", "Requests not served, by error code.", ("model_name", "code")
        )
        self.decode_steps = gauge(
            "agent_runtime_decode_steps", "Decode steps made; standing still while busy means hung."
        ).labels(model_name)
        self._load = gauge("agent_runtime_load_seconds", "Seconds each phase of start-up took.", ("phase",))
        self._state = gauge("agent_runtime_state", "1 for the present state, 0 for the others.", ("state",))
        ProcessCollector(registry=self.registry)
        for reason in ("stop", "length"):
            self._success.labels(model_name, reason)

    def finished(self, reason: str, prompt_tokens: int, generated: int, seconds: float) -> None:
        """One request was answered; `reason` is its finish_reason."""
        self._success.labels(self._model, reason).inc()
        self.prompt_tokens.inc(prompt_tokens)
        self.generation_tokens.inc(generated)
        self.latency.observe(seconds)

    def refused(self, code: str) -> None:
        """One request was answered with an error of this code."""
        self._refused.labels(self._model, code).inc()

    def loaded(self, phase: str, seconds: float) -> None:
        """A phase of start-up ended."""
        self._load.labels(phase).set(seconds)

    def entered(self, state: State) -> None:
        """The runtime is in this state now."""
        for other in State:
            self._state.labels(other.value).set(1 if other is state else 0)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
