"""Where models come from: a folder, the hub, a bucket. Layer: llm; each source imports its client lazily.

The one idea: locating a model is cheap and finds every mistake in its name; fetching it is long. Between the
two the rest of the configuration is checked, so that nobody waits for gigabytes to learn of a typo.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from agent_runtime.contract import FailureCode, ModelConfig
from agent_runtime.llm.failures import failure, reported
from agent_runtime.llm.sources.progress import Download, FileProgress, OnDownload

__all__ = ["Download", "FileProgress", "OnDownload", "Source", "locate", "resolve"]


class Source(Protocol):
    """A model whose whereabouts are known."""

    @property
    def local(self) -> bool:
        """Nothing needs to be fetched."""
        ...

    def fetch(self, on_download: OnDownload | None = None) -> Path:
        """The local folder of the model, with all its files. Blocks; raises anything."""
        ...


def resolve(config: ModelConfig, on_download: OnDownload | None = None) -> Path:
    """The local folder of the model, downloaded first when it lives elsewhere. Blocks; raises LoadError."""
    with reported(config):
        return locate(config).fetch(on_download)


def locate(config: ModelConfig) -> Source:
    """The source of the model, looked up but not fetched. Raises LoadError, and what the clients raise."""
    given = [
        name
        for name, value in (
            ("path", config.path), ("repo_id", config.repo_id), ("s3_uri", config.s3_uri),
            ("remote", config.remote),
        )
        if value is not None
    ]  # fmt: skip
    if len(given) != 1 or given == ["remote"]:
        raise failure(
            FailureCode.CONFIG_INVALID,
            f"model names {' and '.join(given) or 'nothing'} where one source of weights is needed.",
            "Give exactly one of model.path, model.repo_id and model.s3_uri in the runtime's configuration.",
        )
    if config.path is not None:
        from agent_runtime.llm.sources.folder import open_folder

        return open_folder(config.path, config.uri)
    if config.s3_uri is not None:
        from agent_runtime.llm.sources.s3 import Bucket, open_prefix

        return open_prefix(config, Bucket.for_model(config))
    from agent_runtime.llm.sources.hub import Hub, open_repository

    return open_repository(config, Hub.for_model(config))
