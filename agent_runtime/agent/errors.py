"""Every error that a caller of the agent can cause or meet. Layer: agent, pure.

The one idea: one constructor per error, so that its code and its words exist once; what HTTP makes of a
code is the API's business. `param` is the path of the field at fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

ErrorCode = Literal[
    "run_not_found",
    "session_not_found",
    "too_many_runs",
    "not_awaiting_approval",
    "call_not_awaiting_approval",
    "run_conflict",
    "tool_not_found",
    "tool_not_allowed",
    "limit_not_tightened",
    "decision_unsupported",
    "tools_unsupported",
    "session_store_unavailable",
    "context_length_exceeded",
]


class AgentError(Exception):
    """A request to the agent that cannot be done; nothing was changed."""

    def __init__(
        self, code: ErrorCode, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.param, self.retry_after = code, message, param, retry_after


class StoreUnavailableError(AgentError):
    """The store of sessions and runs does not answer."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            "session_store_unavailable",
            f"The session store does not answer ({detail}). Requests without a session are served. Retry, "
            "and check agent.sessions.redis_url_file and the Redis server behind it.",
            retry_after=5,
        )


class ConflictError(AgentError):
    """Somebody else changed the run in the meantime."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            "run_conflict",
            f"The run '{run_id}' was changed by another request: read it again.",
            retry_after=1,
        )


def run_not_found(run_id: str) -> AgentError:
    """No such run, or it expired, or it belongs to another key."""
    return AgentError("run_not_found", f"There is no run '{run_id}', or it has expired.", param="id")


def session_not_found(session_id: str) -> AgentError:
    """No such session, or it expired, or it belongs to another key."""
    return AgentError(
        "session_not_found", f"There is no session '{session_id}', or it has expired.", param="session_id"
    )


def too_many_runs(limit: int) -> AgentError:
    """The number of live runs is bounded."""
    return AgentError(
        "too_many_runs", f"The server runs {limit} agent runs already. Retry after 1 s.", retry_after=1
    )


def not_awaiting(run_id: str, status: str) -> AgentError:
    """There is nothing to approve."""
    return AgentError(
        "not_awaiting_approval", f"The run '{run_id}' awaits no approval; it is {status}.", param="id"
    )


def call_not_awaiting(call_id: str, awaited: str) -> AgentError:
    """Another call is waiting."""
    return AgentError(
        "call_not_awaiting_approval",
        f"The call '{call_id}' awaits no approval; the one that does is '{awaited}'.",
        param="call_id",
    )


def tool_not_found(name: str, known: Iterable[str], down: Mapping[str, str], param: str) -> AgentError:
    """The allow-list names a tool the agent does not have, or not now; `down` are servers and why."""
    message = f"There is no tool '{name}'; the agent has: {', '.join(sorted(known)) or 'none'}."
    message += "".join(
        f" The tool server '{server}' is not available: {why}." for server, why in down.items()
    )
    return AgentError("tool_not_found", message, param=param)


def tool_not_allowed(name: str, param: str) -> AgentError:
    """The caller's key may not use the tool."""
    return AgentError("tool_not_allowed", f"This API key may not use the tool '{name}'.", param=param)


def limit_not_tightened(field: str, asked: float, configured: float) -> AgentError:
    """A request may only tighten what the agent's owner configured."""
    return AgentError(
        "limit_not_tightened",
        f"{asked:g} is above the configured {configured:g}; a request can only lower a limit.",
        param=f"limits.{field}",
    )


def decision_unsupported() -> AgentError:
    """A policy needs scores."""
    return AgentError(
        "decision_unsupported",
        "This model cannot score candidates, so no decision policy can be followed: leave 'decision' out.",
        param="decision",
    )


def tools_unsupported() -> AgentError:
    """Neither way of choosing an action works with this model."""
    return AgentError(
        "tools_unsupported",
        'This model was not taught to call tools and cannot score candidates: send "tools": [] for a run '
        "without tools.",
        param="tools",
    )


def context_length(tokens: int, limit: int) -> AgentError:
    """The newest message alone is longer than the model reads."""
    return AgentError(
        "context_length_exceeded",
        f"The prompt has {tokens} tokens even without earlier messages; at most {limit} are read.",
        param="messages",
    )
