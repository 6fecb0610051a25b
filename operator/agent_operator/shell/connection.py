"""Where the API server is and who we are. Layer: shell; imports aiohttp and kubernetes.aio's config loader.

The one idea: the official client loads and refreshes credentials (in-cluster tokens rotate hourly), and
every session made here, ours and the one kopf watches with, takes the current token per request and
counts the request. Only `kubernetes.aio.config` and `Configuration` are used: the typed models, which
cost memory, are never imported.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import ClientMiddlewareType
from kubernetes.aio import config as kube_config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from agent_operator.observability.metrics import Metrics

CONNECT_TIMEOUT_SECONDS = 5.0
REQUEST_TIMEOUT_SECONDS = 15.0
REQUEST_CONNECTIONS = 32

_SERVICE_ACCOUNT_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class NoClusterError(Exception):
    """No usable credentials; the message says where they were looked for."""


def own_namespace() -> str | None:
    """The namespace of the pod we run in, or None outside a cluster."""
    try:
        return Path(_SERVICE_ACCOUNT_NAMESPACE).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


async def load_configuration() -> Configuration:
    """Credentials from the pod's service account, else from KUBECONFIG or ~/.kube/config.

    A KUBECONFIG that is set wins even inside a pod: somebody set it on purpose.

    Raises:
        NoClusterError: neither exists or the file cannot be used.
    """
    configuration: Any = Configuration()
    in_cluster = bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and own_namespace() is not None
    try:
        if in_cluster and not os.environ.get("KUBECONFIG"):
            kube_config.load_incluster_config(client_configuration=configuration)
        else:
            await kube_config.load_kube_config(client_configuration=configuration, persist_config=False)
    except (kube_config.ConfigException, OSError, ValueError) as error:
        raise NoClusterError(
            f"no Kubernetes credentials: {error}. Set KUBECONFIG to a usable file, or run in a pod "
            "with a service account"
        ) from error
    return configuration


class Connection:
    """Sessions to one API server. Create inside the event loop; close when done."""

    def __init__(self, configuration: Configuration, metrics: Metrics) -> None:
        self._configuration = configuration
        self._metrics = metrics
        # Python 3.13's strict mode refuses cluster CAs without a key usage extension, which are common;
        # chain, name and dates are verified all the same.
        configuration.disable_strict_ssl_verification = True
        # The official client knows every way a kubeconfig can name certificates; take only its result.
        self._ssl = RESTClientObject(configuration).ssl_context
        self.server: str = configuration.host.rstrip("/")
        self.last_answer: float | None = None
        self.session = self.new_session(limit=REQUEST_CONNECTIONS)

    def url(self, path: str) -> str:
        """Absolute URL of an API path."""
        return self.server + path

    def new_session(self, *, limit: int) -> aiohttp.ClientSession:
        """A session with at most `limit` connections; the caller closes it."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit, ssl=self._ssl),
            timeout=aiohttp.ClientTimeout(
                total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS
            ),
            headers={"User-Agent": "agent-operator"},
            middlewares=(self._count(), self._authenticate()),
            proxy=self._configuration.proxy or None,
        )

    def seconds_since_answer(self) -> float | None:
        """Age of the last answer from the API server, None before the first."""
        return None if self.last_answer is None else time.monotonic() - self.last_answer

    async def close(self) -> None:
        """Close our own session."""
        await self.session.close()

    def _authenticate(self) -> ClientMiddlewareType:
        async def middleware(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            # Calls the loader's refresh hook, which re-reads a rotated token.
            token = await self._configuration.get_api_key_with_prefix("BearerToken")
            if token:
                scheme, _, value = token.rpartition(" ")
                request.headers["Authorization"] = f"{scheme or 'Bearer'} {value}".strip()
            elif self._configuration.username:
                request.headers["Authorization"] = aiohttp.encode_basic_auth(
                    self._configuration.username, self._configuration.password or ""
                )
            return await handler(request)

        return middleware

    def _count(self) -> ClientMiddlewareType:
        async def middleware(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            host = f"{request.url.host}:{request.url.port}"
            started = time.monotonic()
            try:
                response = await handler(request)
            except (aiohttp.ClientError, TimeoutError, OSError):
                self._metrics.requests.labels("<error>", request.method, host).inc()
                raise
            self.last_answer = time.monotonic()
            self._metrics.requests.labels(str(response.status), request.method, host).inc()
            self._metrics.request_seconds.labels(request.method, host).observe(self.last_answer - started)
            return response

        return middleware
