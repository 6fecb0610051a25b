"""Makes the agent of a configuration. Layer: agent, shell.

The one idea: what cannot be built from a configuration is said before the server is ready, by field.
"""

from __future__ import annotations

from collections.abc import Callable

from agent_runtime.agent.driver import Admit
from agent_runtime.agent.observer import AgentObserver
from agent_runtime.agent.redis_store import RedisStore, key_prefix
from agent_runtime.agent.service import AgentService
from agent_runtime.agent.store import MemoryStore, Store
from agent_runtime.agent.tools.registry import ToolRegistry
from agent_runtime.contract import FailureCode, Parameters, RuntimeConfig, SessionsConfig, TerminationReport
from agent_runtime.llm.base import Backend
from agent_runtime.llm.failures import LoadError
from agent_runtime.secrets import SecretError, read_secret


def build_agent(
    config: RuntimeConfig,
    backend: Backend,
    *,
    parameters: Callable[[], Parameters],
    observer: AgentObserver,
    admit: Admit,
    charge: Callable[[str | None, int], None],
) -> AgentService:
    """The agent, not yet started. `charge` is told whose run used how many tokens.

    Raises LoadError naming the field that cannot work.
    """
    try:
        return AgentService(
            backend,
            ToolRegistry(configs=config.agent.tools),
            _store(config),
            config.agent,
            name=config.name,
            parameters=parameters,
            observer=observer,
            admit=admit,
            charge=charge,
            model=config.model.served_name,
        )
    except (ValueError, RuntimeError, SecretError) as error:
        raise LoadError(
            TerminationReport(
                code=FailureCode.CONFIG_INVALID,
                message=f"The agent cannot be built: {error}",
                remedy="Correct the named field of spec.agent in the AgentDeployment.",
            )
        ) from error


def _store(config: RuntimeConfig) -> Store:
    sessions = config.agent.sessions or SessionsConfig()
    if sessions.store == "Memory":
        return MemoryStore(sessions.ttl_seconds, sessions.max_sessions)
    if sessions.redis_url_file is None:
        raise ValueError("agent.sessions.redis_url_file: store Redis needs it")
    url = read_secret(sessions.redis_url_file)
    return RedisStore(url, key_prefix(config.namespace, config.name), sessions.ttl_seconds)
