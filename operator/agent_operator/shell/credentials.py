"""Where the API server is and who we are. Layer: shell; imports the standard library only.

The one idea: inside a pod two files and two variables say everything, and reading them here costs nothing;
the official client's loader, which knows every form of kubeconfig, costs 27 MiB of memory with what it
imports, so it is loaded only where a kubeconfig is used (`kubeconfig`).
"""

from __future__ import annotations

import importlib
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_SECONDS = 60.0
"""How long a token is used before its file is read again: the kubelet rotates it long before it expires."""


class NoClusterError(Exception):
    """No usable credentials; the message says where they were looked for."""


class Credentials(Protocol):
    """Who we are, for one API server."""

    @property
    def server(self) -> str:
        """Its URL."""

    @property
    def proxy(self) -> str | None:
        """URL of a proxy on the way."""

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """How it is recognised, and our certificate if we have one."""

    async def authorization(self) -> str:
        """The value of the Authorization header at this moment, "" without one."""


class PodCredentials:
    """The service account of the pod we run in."""

    def __init__(self, host: str, port: str, clock: Callable[[], float] = time.monotonic) -> None:
        address = f"[{host}]" if ":" in host else host
        self.server = f"https://{address}:{port}"
        self.proxy: str | None = None
        self.ssl_context: ssl.SSLContext | None = _verifying(ACCOUNT / "ca.crt")
        self._token = ACCOUNT / "token"
        self._clock = clock
        self._read_at = float("-inf")
        self._value = ""

    async def authorization(self) -> str:
        if self._clock() - self._read_at >= TOKEN_SECONDS:
            try:
                self._value = f"Bearer {self._token.read_text(encoding='utf-8').strip()}"
            except OSError as error:
                raise NoClusterError(f"cannot read {self._token}: {error.strerror}") from error
            self._read_at = self._clock()
        return self._value


def _verifying(authority: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except OSError as error:
        raise NoClusterError(f"cannot use {authority}: {error}") from error
    # Python 3.13's strict mode refuses cluster CAs without a key usage extension, which are common;
    # chain, name and dates are verified all the same.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    return context


def own_namespace() -> str | None:
    """The namespace of the pod we run in, or None outside a cluster."""
    try:
        return (ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


async def load_credentials() -> Credentials:
    """Credentials from the pod's service account, else from KUBECONFIG or ~/.kube/config.

    A KUBECONFIG that is set wins even inside a pod: somebody set it on purpose.

    Raises:
        NoClusterError: neither exists or the file cannot be used.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if host and own_namespace() is not None and not os.environ.get("KUBECONFIG"):
        return PodCredentials(host, port)
    loader = importlib.import_module("agent_operator.shell.kubeconfig")
    found: Credentials = await loader.load()
    return found
