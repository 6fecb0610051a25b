"""From a configuration to a model that answers. Layer: llm; imports torch only where weights are loaded.

The one idea: whoever serves does not care where the model is: the answer is a Backend, or a LoadError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agent_runtime.contract import FailureCode, Parameters, RuntimeConfig, TerminationReport
from agent_runtime.llm.base import Backend
from agent_runtime.llm.failures import LoadError
from agent_runtime.llm.observer import EngineObserver
from agent_runtime.llm.sources.progress import OnDownload
from agent_runtime.secrets import SecretError, read_secret


def _no_download(download: object) -> None: ...


def _no_phase(name: str, seconds: float) -> None: ...


def _no_weights(share: float) -> None: ...


def _no_crash(error: BaseException) -> None: ...


@dataclass(frozen=True, slots=True)
class Opening:
    """What is told while a model is opened and afterwards: phases in seconds, the download, the share of the
    weights that is in place, a crash."""

    loop: asyncio.AbstractEventLoop
    """The event loop the backend will be used on."""
    on_phase: Callable[[str, float], None] = _no_phase
    on_download: OnDownload = _no_download
    on_weights: Callable[[float], None] = _no_weights
    on_crash: Callable[[BaseException], None] = _no_crash
    observer: EngineObserver | None = None


def open_backend(config: RuntimeConfig, opening: Opening) -> Backend:
    """The model of this configuration, before its warm-up. Blocks for as long as loading takes, so it must
    not be called on the event loop. Raises LoadError."""
    if config.model.remote is not None:
        return _remote(config, opening)
    return open_local(config, opening)


def open_local(config: RuntimeConfig, opening: Opening) -> Backend:
    """Weights loaded into this process."""
    from agent_runtime.llm.load import load_model

    loaded = load_model(
        config.model, config.gpu_requested, opening.on_phase, opening.on_download, opening.on_weights
    )
    # Not before: it imports torch, which is a phase of loading with a time of its own.
    from agent_runtime.llm.local import LocalBackend, wants_paged

    paged = wants_paged(loaded, config.model)
    return LocalBackend(loaded, config.parameters, opening.on_crash, opening.observer, paged=paged)


def _remote(config: RuntimeConfig, opening: Opening) -> Backend:
    from agent_runtime.llm.remote import RemoteBackend

    remote = config.model.remote
    assert remote is not None  # noqa: S101 - the caller looked
    try:
        key = read_secret(remote.api_key_file) if remote.api_key_file is not None else None
    except SecretError as error:
        raise LoadError(
            TerminationReport(
                code=FailureCode.MODEL_ACCESS_DENIED,
                message=str(error),
                remedy="Check the Secret and key named in spec.model.remote.apiKeySecretRef.",
            )
        ) from error
    backend = RemoteBackend(remote, config.model.served_name, api_key=key)
    asyncio.run_coroutine_threadsafe(backend.check(), opening.loop).result()
    return backend


def warm(backend: Backend) -> float | None:
    """Makes a first answer, so that the first request does not wait for what is loaded lazily; seconds from a
    prompt to its first token, or None where there is nothing to warm. Blocks."""
    from agent_runtime.llm.local import LocalBackend

    return backend.warm() if isinstance(backend, LocalBackend) else None


def apply(backend: Backend, parameters: Parameters) -> None:
    """Hands changed parameters to an engine in this process."""
    from agent_runtime.llm.local import LocalBackend

    if isinstance(backend, LocalBackend):
        backend.apply(parameters)
