"""The autoscaler's policy as the specification words it. Layer: core, pure; imports api, core.autoscale."""

from __future__ import annotations

from agent_operator.api.autoscaling import Autoscaling
from agent_operator.core.autoscale import Policy, Window

_PANIC_SHARE = 0.1
"""Of the stable window, as with Knative: short enough to see a jump, too long to see a single request."""


def policy(rules: Autoscaling) -> Policy:
    """The policy of provider Native."""
    p95 = rules.target_p95_milliseconds
    return Policy(
        min_replicas=rules.min_replicas,
        max_replicas=rules.max_replicas,
        target_concurrency=float(rules.target_concurrency),
        target_queued_tokens=rules.target_queued_tokens,
        target_p95_seconds=p95 / 1000 if p95 is not None else None,
        tolerance=rules.tolerance_percent / 100,
        stable_seconds=float(rules.stable_window_seconds),
        panic_seconds=rules.stable_window_seconds * _PANIC_SHARE,
        scale_up_delay_seconds=float(rules.scale_up_delay_seconds),
        scale_down_delay_seconds=float(rules.scale_down_delay_seconds),
        windows=windows(rules),
    )


def windows(rules: Autoscaling | None) -> tuple[Window, ...]:
    """The schedules, in the order of the specification."""
    return tuple(
        Window(name=s.name, start=s.start, end=s.end, time_zone=s.time_zone, min_replicas=s.min_replicas)
        for s in (rules.schedules if rules else ())
    )
