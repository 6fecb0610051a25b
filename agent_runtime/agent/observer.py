"""What the metrics are told of runs, tools and decisions. Layer: agent, pure.

The one idea: the agent calls a protocol and knows no metrics library; `observability.agent_recorder`
implements it. Calls come from the event loop and must not block.
"""

from __future__ import annotations

from typing import Protocol

from agent_runtime.agent.commands import Outcome
from agent_runtime.agent.run import FinishReason, Status


class ToolObserver(Protocol):
    """Counts tool calls."""

    def tool_started(self, tool: str) -> None:
        """A call was begun."""
        ...

    def tool_finished(self, tool: str, outcome: Outcome, seconds: float, attempts: int) -> None:
        """It ended; `attempts` is how often it was sent."""
        ...


class AgentObserver(ToolObserver, Protocol):
    """Counts tool calls, decisions and runs."""

    def run_started(self) -> None:
        """A run was begun, or gone on with."""
        ...

    def run_finished(self, status: Status, reason: FinishReason, seconds: float, steps: int) -> None:
        """It ended; seconds are those it was running."""
        ...

    def approval_requested(self, tool: str) -> None:
        """A call waits for a person."""
        ...

    def decision_made(self, policy: str, label: str | None, confidence: float, entropy: float) -> None:
        """An action was chosen from scores by this policy, or (None) not; entropy in nats."""
        ...


class NoObserver:
    """Counts nothing."""

    def tool_started(self, tool: str) -> None:
        """Nothing."""

    def tool_finished(self, tool: str, outcome: Outcome, seconds: float, attempts: int) -> None:
        """Nothing."""

    def run_started(self) -> None:
        """Nothing."""

    def run_finished(self, status: Status, reason: FinishReason, seconds: float, steps: int) -> None:
        """Nothing."""

    def approval_requested(self, tool: str) -> None:
        """Nothing."""

    def decision_made(self, policy: str, label: str | None, confidence: float, entropy: float) -> None:
        """Nothing."""
