"""An HTTP endpoint as a tool. Layer: agent; httpx2.

The one idea: a model chooses arguments and nothing else. They become the query (GET) or a JSON body; where
they are sent is configured, a redirect is followed to the same origin only, and the answer is read up to
the tool's limit and no further. Compressed answers are not asked for and not accepted: a few kilobytes of
them can unpack to gigabytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx2

from agent_runtime.agent.tools.base import (
    NotSentError,
    Tool,
    ToolError,
    ToolOutput,
    ToolPolicy,
    TransportError,
)
from agent_runtime.contract import HttpToolConfig
from agent_runtime.observability import tracing

MAX_REDIRECTS = 3
IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})
"""Methods that RFC 9110 (9.2.2) calls idempotent, of those a tool may have."""

_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


def http_tool(
    name: str,
    config: HttpToolConfig,
    policy: ToolPolicy,
    client: httpx2.AsyncClient,
    bearer: Callable[[], str | None] = lambda: None,
) -> Tool:
    """The endpoint as a tool. `bearer` gives the token of each call; the client is the caller's to close.

    Raises ValueError when the URL is not an absolute http or https URL.
    """
    parts = urlsplit(config.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"tool '{name}': '{config.url}' is not an http:// or https:// URL with a host")

    async def call(arguments: dict[str, Any]) -> ToolOutput:
        request = _request(client, config, arguments, bearer())
        try:
            return await _send(client, request, policy.max_result_bytes)
        except _NOT_SENT as error:
            raise NotSentError(
                f"The server of '{name}' cannot be reached ({type(error).__name__})."
            ) from error
        except httpx2.TimeoutException as error:
            raise TransportError(f"The server of '{name}' did not answer in time.") from error
        except httpx2.TransportError as error:
            words = f"The connection to the server of '{name}' broke ({type(error).__name__})."
            raise TransportError(words) from error

    return Tool(name, config.description, config.parameters, call, policy)


def _request(
    client: httpx2.AsyncClient, config: HttpToolConfig, arguments: dict[str, Any], token: str | None
) -> httpx2.Request:
    headers = {"Accept": "application/json, text/*;q=0.9, */*;q=0.5", "Accept-Encoding": "identity"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    tracing.inject(headers)
    if config.method == "GET":
        url = httpx2.URL(config.url).copy_merge_params(query(arguments))
        return client.build_request("GET", url, headers=headers)
    return client.build_request(config.method, config.url, json=arguments, headers=headers)


def query(arguments: dict[str, Any]) -> dict[str, list[str]]:
    """Arguments as query parameters: null is left out, a list repeats its name, an object is JSON."""
    found: dict[str, list[str]] = {}
    for name, value in arguments.items():
        values = value if isinstance(value, list) else [value]
        found[name] = [
            item if isinstance(item, str) else json.dumps(item) for item in values if item is not None
        ]
    return {name: values for name, values in found.items() if values}


async def _send(client: httpx2.AsyncClient, request: httpx2.Request, limit: int) -> ToolOutput:
    for _ in range(MAX_REDIRECTS + 1):
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            following = response.next_request
            if following is None:
                return await _read(response, limit)
            if following.method != request.method or _origin(following.url) != _origin(request.url):
                raise ToolError(
                    f"The server redirects to {_plain(following.url)}, which is not followed: it is another "
                    "host or needs another method."
                )
            request = following
        finally:
            await response.aclose()
    raise ToolError(f"The server redirects more than {MAX_REDIRECTS} times.")


async def _read(response: httpx2.Response, limit: int) -> ToolOutput:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise ToolError(f"The server compresses its answer ({encoding}), which is not accepted.")
    body, cut = bytearray(), 0
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            cut = _length(response, len(body)) - limit
            break
    text = _text(bytes(body[:limit]), response)
    if response.is_success:
        return ToolOutput(text, cut_bytes=cut)
    return ToolOutput(f"HTTP {response.status_code}: {text}", is_error=True, cut_bytes=cut)


def _length(response: httpx2.Response, read: int) -> int:
    """How long the body is, by its header; at least what was read of it."""
    declared = response.headers.get("Content-Length", "")
    return max(int(declared), read) if declared.isascii() and declared.isdigit() else read


def _text(body: bytes, response: httpx2.Response) -> str:
    try:
        return body.decode(response.charset_encoding or "utf-8")
    except (UnicodeDecodeError, LookupError):
        kind = response.headers.get("Content-Type", "application/octet-stream")
        text = body.decode("utf-8", "replace")
        # A character cut in half at the limit is no reason to hide the rest.
        return text if text.count("\ufffd") <= 1 else f"[{len(body)} bytes of {kind}]"


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _plain(url: httpx2.URL) -> str:
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))
