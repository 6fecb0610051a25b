"""Credentials from a kubeconfig. Layer: shell; the only module that imports the official client.

The one idea: `kubernetes.aio` loads and refreshes whatever a kubeconfig may hold (certificates, tokens,
plugins that are executed). Only its loader and `Configuration` are used, never the typed models.
"""

from __future__ import annotations

import base64
import ssl
from typing import Any

from kubernetes.aio import config as kube_config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from agent_operator.shell.credentials import NoClusterError


class KubeconfigCredentials:
    """What a kubeconfig's current context says."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration: Any = configuration
        # For the same reason as with the pod's own account.
        self._configuration.disable_strict_ssl_verification = True
        self.server: str = self._configuration.host.rstrip("/")
        self.proxy: str | None = self._configuration.proxy or None
        # The official client knows every way a kubeconfig can name certificates; take only its result.
        self.ssl_context: ssl.SSLContext | None = RESTClientObject(configuration).ssl_context

    async def authorization(self) -> str:
        # Calls the loader's refresh hook, which runs a plugin again or re-reads a rotated token.
        token: str | None = await self._configuration.get_api_key_with_prefix("BearerToken")
        if token:
            scheme, _, value = token.rpartition(" ")
            return f"{scheme or 'Bearer'} {value}".strip()
        if self._configuration.username:
            pair = f"{self._configuration.username}:{self._configuration.password or ''}"
            return "Basic " + base64.b64encode(pair.encode()).decode()
        return ""


async def load() -> KubeconfigCredentials:
    """Credentials from KUBECONFIG or ~/.kube/config.

    Raises:
        NoClusterError: there is no such file, or it cannot be used.
    """
    configuration: Any = Configuration()
    try:
        await kube_config.load_kube_config(client_configuration=configuration, persist_config=False)
    except (kube_config.ConfigException, OSError, ValueError) as error:
        raise NoClusterError(
            f"no Kubernetes credentials: {error}. Set KUBECONFIG to a usable file, or run in a pod "
            "with a service account"
        ) from error
    return KubeconfigCredentials(configuration)
