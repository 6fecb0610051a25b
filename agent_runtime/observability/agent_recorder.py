"""What happens to agent runs and tools, told once. Layer: observability; light.

The one idea: the agent calls its observer (`agent.observer.AgentObserver`) and this is one; metrics and
/stats are two views of the same calls. All of them come from the event loop.
"""

from __future__ import annotations

from agent_runtime.observability.metrics import Metrics
from agent_runtime.stats import AgentFacts


class AgentRecorder:
    """Counts runs, tool calls and decisions of one agent."""

    def __init__(self, metrics: Metrics, agent: str) -> None:
        self._metrics, self._agent = metrics, agent
        self.tool_waits = 0

    def tool_started(self, tool: str) -> None:
        """A call was begun."""
        self.tool_waits += 1

    def tool_finished(self, tool: str, outcome: str, seconds: float, attempts: int) -> None:
        """It ended."""
        self.tool_waits -= 1
        self._metrics.tool_called(tool, outcome, seconds)

    def run_started(self) -> None:
        """A run was begun, or gone on with after a restart; whether it ends here is not known."""

    def run_finished(self, status: str, reason: str, seconds: float, steps: int) -> None:
        """It ended."""
        self._metrics.run_ended(self._agent, status, steps, seconds)

    def approval_requested(self, tool: str) -> None:
        """A call waits for a person."""
        self._metrics.approval_requested()

    def decision_made(self, policy: str, label: str | None, confidence: float, entropy: float) -> None:
        """An action was chosen from scores by this policy, or (None) not; entropy in nats."""
        self._metrics.decided(policy, label is None, entropy)

    def facts(self, runs_live: int, awaiting_approval: int) -> AgentFacts:
        """For /stats, with the counts that whoever keeps the runs knows."""
        self._metrics.runs_are(runs_live, awaiting_approval)
        return AgentFacts(
            runs_live=runs_live, awaiting_approval=awaiting_approval, tool_waits=self.tool_waits
        )
