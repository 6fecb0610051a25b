"""The few HTTP questions the driver itself asks.

Layer: above certs. The one idea: a question is answered or it is not; whoever waits asks again. kubectl could
ask the same, at a tenth of a second per question.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from local_cluster.paths import API_URL

# What a server that is starting, stopping or broken may make of a request.
NO_ANSWER = (OSError, http.client.HTTPException, ValueError)

# The machine's proxy settings are not meant for addresses of this machine.
_NO_PROXY = urllib.request.ProxyHandler({})


def answers(url: str, timeout: float = 2.0) -> bool:
    """Whether an HTTP(S) URL on this machine answers with success; its certificate is not checked."""
    context = ssl._create_unverified_context()  # health ports have self-signed certificates
    opener = urllib.request.build_opener(_NO_PROXY, urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=timeout) as response:
            return bool(200 <= response.status < 300)
    except NO_ANSWER:
        return False


def accepts(path: Path) -> bool:
    """Whether something listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2.0)
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


class ApiServer:
    """The API server as seen by the cluster's administrator."""

    def __init__(self, pki: Path, url: str = API_URL) -> None:
        self._url = url
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))
        self._opener = urllib.request.build_opener(_NO_PROXY, urllib.request.HTTPSHandler(context=context))

    def text(self, path: str, timeout: float = 5.0) -> str | None:
        """The body of a successful GET, else None."""
        try:
            with self._opener.open(self._url + path, timeout=timeout) as response:
                return str(response.read().decode())
        except NO_ANSWER:
            return None

    def get(self, path: str) -> dict[str, Any] | None:
        """The JSON object behind a path, else None."""
        body = self.text(path)
        return json.loads(body) if body else None

    def ready(self) -> bool:
        """Whether the API server says that all its parts are ready."""
        return self.text("/readyz") == "ok"

    def delete(self, path: str) -> bool:
        """DELETE an object; True when it is gone or was not there."""
        request = urllib.request.Request(self._url + path, method="DELETE")
        try:
            with self._opener.open(request, timeout=5.0):
                return True
        except urllib.error.HTTPError as error:
            return error.code == 404
        except NO_ANSWER:
            return False

    def create(self, path: str, body: dict[str, Any]) -> bool:
        """POST an object; True when it was created or exists already."""
        request = urllib.request.Request(
            self._url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with self._opener.open(request, timeout=5.0):
                return True
        except urllib.error.HTTPError as error:
            return error.code == 409
        except NO_ANSWER:
            return False
