"""Asks a remote, before serving begins, whether it is there and has the model. Layer: llm.remote.

The one idea: a wrong address, key or model name is a mistake of the configuration and must show when the
revision starts, with a remedy, not with the first user's request. What cannot be asked (no /models there) is
no reason to refuse.
"""

from __future__ import annotations

import json
import logging
from typing import NoReturn
from urllib.parse import quote

import httpx2

from agent_runtime.contract import FailureCode, RemoteConfig
from agent_runtime.llm.failures import failure
from agent_runtime.llm.remote.client import RemoteClient
from agent_runtime.llm.remote.errors import Errors, RemoteError

log = logging.getLogger("agent_runtime.remote")

SHOWN_MODELS = 10
_NOT_OFFERED = (404, 405, 501)


def check_config(config: RemoteConfig, api_key: str | None) -> None:
    """Refuses what cannot work, without asking anybody. Raises LoadError naming the field."""
    field = "model.remote.base_url"
    try:
        url = httpx2.URL(config.base_url)
    except httpx2.InvalidURL as error:
        _fail(FailureCode.CONFIG_INVALID, f"{field} is not a URL: {error}.", _URL_REMEDY)
    if url.scheme not in ("http", "https") or not url.host:
        _fail(FailureCode.CONFIG_INVALID, f"{field} is not an http or https URL.", _URL_REMEDY)
    if url.userinfo:
        _fail(
            FailureCode.CONFIG_INVALID, f"{field} holds a user name or password.",
            "Give the credential in spec.model.remote.apiKeySecretRef; a URL is shown in logs.",
        )  # fmt: skip
    if url.query or url.fragment:
        _fail(FailureCode.CONFIG_INVALID, f"{field} has a query or a fragment.", _URL_REMEDY)
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.strip()):
        _fail(
            FailureCode.CONFIG_INVALID,
            "The remote's API key is empty or has characters that an HTTP header cannot carry.",
            "Store the key alone in the Secret, without a newline in the middle.",
        )  # fmt: skip


async def check_remote(client: RemoteClient, config: RemoteConfig, errors: Errors, has_key: bool) -> None:
    """GET /models. Raises LoadError when the remote cannot be reached, denies access or lacks the model."""
    if has_key and config.base_url.startswith("http://"):
        log.warning("the API key is sent unencrypted", extra={"fields": {"base_url": config.base_url}})
    try:
        names = await client.fetch("GET", "models", lambda body: _names(body, errors))
    except RemoteError as error:
        if error.status in _NOT_OFFERED:
            log.warning("the remote lists no models", extra={"fields": {"base_url": config.base_url}})
            return
        if error.code == "remote_overloaded":  # busy, so it is there
            return
        _report(error, config)
    if names is None or config.model in names or await _knows(client, config):
        return
    known = ", ".join(f"'{errors.clean(name)}'" for name in names[:SHOWN_MODELS])
    more = f" and {len(names) - SHOWN_MODELS} more" if len(names) > SHOWN_MODELS else ""
    _fail(
        FailureCode.MODEL_NOT_FOUND,
        f"The remote {config.base_url} has no model '{config.model}'; it has {known or 'none'}{more}.",
        "Correct spec.model.remote.model, or load the model there.",
    )


async def _knows(client: RemoteClient, config: RemoteConfig) -> bool:
    """Whether the remote answers for a name it does not list, as with aliases and default tags."""
    try:
        return await client.fetch("GET", f"models/{quote(config.model)}", lambda body: True)
    except RemoteError as error:
        if error.status in _NOT_OFFERED:
            return False
        _report(error, config)


def _names(body: bytes, errors: Errors) -> list[str] | None:
    """The ids of `{"data": [{"id"}]}`; None for JSON of another shape, which says nothing."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise errors.garbage("/models is not JSON") from None
    data = found.get("data") if isinstance(found, dict) else None
    if not isinstance(data, list):
        return None
    return [item["id"] for item in data if isinstance(item, dict) and isinstance(item.get("id"), str)]


def _report(error: RemoteError, config: RemoteConfig) -> NoReturn:
    place = f" Asked: {config.base_url}/models."
    if error.status in (401, 402, 403):
        _fail(
            FailureCode.MODEL_ACCESS_DENIED, str(error) + place,
            "Give a valid key for this API in spec.model.remote.apiKeySecretRef.", error,
        )  # fmt: skip
    _fail(FailureCode.REMOTE_UNREACHABLE, str(error) + place, _REACH_REMEDY, error)


def _fail(code: FailureCode, message: str, remedy: str, cause: Exception | None = None) -> NoReturn:
    raise failure(code, message, remedy) from cause


_URL_REMEDY = "Write it as https://host/v1, the address below which /chat/completions is found."
_REACH_REMEDY = (
    "Check spec.model.remote.baseUrl (host, port and version path), and let the pod reach it: DNS, egress "
    "policy, HTTPS_PROXY, and SSL_CERT_FILE for a private certificate authority."
)
