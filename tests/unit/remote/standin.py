"""An OpenAI-compatible server that behaves as a test says, on loopback. Layer: tests.

The one idea: a real HTTP server in a thread; what it does with the n-th request to a path is the n-th
handler the test gave (the last one goes on), so a fault is two lines, and nothing of the client is replaced.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Body = dict[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Body
    peer: int
    """The client's port: the same for requests of one connection."""


@dataclass
class Exchange:
    """What a handler answers with."""

    seen: Seen
    script: Script
    receive: Receive
    send: Send

    async def head(self, status: int, headers: dict[str, str]) -> None:
        """Status line and headers."""
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes, more: bool = True) -> None:
        """A part of the body."""
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def until_gone(self) -> None:
        """Says nothing more until the client leaves or the server is told to go on."""
        self.script.waiting.set()
        gone = asyncio.ensure_future(self.receive())
        release = asyncio.ensure_future(self.script.released.wait())
        await asyncio.wait({gone, release}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.script.client_left.set()
        for task in (gone, release):
            task.cancel()


Handler = Callable[[Exchange], Awaitable[None]]


@dataclass
class Script:
    """What to do with requests, and what came."""

    handlers: dict[str, list[Handler]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)
    client_left: threading.Event = field(default_factory=threading.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def on(self, path: str, *handlers: Handler) -> None:
        """Answers requests to a path, in order; the last handler answers all further ones."""
        self.handlers[path] = list(handlers)

    def chat(self, *handlers: Handler) -> None:
        """Answers conversations."""
        self.on("/v1/chat/completions", *handlers)

    def text(self, *handlers: Handler) -> None:
        """Answers text completions."""
        self.on("/v1/completions", *handlers)

    @property
    def bodies(self) -> list[Body]:
        """The bodies of the requests, in order."""
        return [seen.body for seen in self.seen]


class StandIn:
    """The server. `script` may be replaced at any time; with a certificate and its key it speaks TLS."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.script = Script()
        self._socket = socket.create_server(("127.0.0.1", 0))
        # asyncio does this only for sockets that name their protocol, which create_server's do not; without
        # it every answer written in two parts waits 40 ms for an acknowledgement.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        scheme = "http" if certificate is None else "https"
        self.base_url = f"{scheme}://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate[0] if certificate else None,
            ssl_keyfile=certificate[1] if certificate else None,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        script, raw = self.script, b""
        while (message := await receive())["type"] == "http.request":
            raw += message["body"]
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = json.loads(raw) if raw else {}
        path = urlsplit(scope["path"]).path  # a proxy is asked for a whole URL
        seen = Seen(scope["method"], path, headers, body, scope["client"][1])
        script.seen.append(seen)
        handlers = script.handlers.get(seen.path, [status(404, {"error": {"message": "no such route"}})])
        handler = handlers.pop(0) if len(handlers) > 1 else handlers[0]
        await handler(Exchange(seen, script, receive, send))


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


# Handlers


def status(code: int, body: Any, **headers: str) -> Handler:
    """One answer with a status; a body that is not bytes is written as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def handler(exchange: Exchange) -> None:
        await exchange.head(code, {"Content-Type": "application/json"} | named)
        await exchange.write(data, more=False)

    return handler


def refusal(message: str, code: int = 400) -> Handler:
    """An error in OpenAI's shape."""
    return status(code, {"error": {"message": message, "type": "invalid_request_error", "code": None}})


def raw_stream(*parts: bytes, kind: str = "text/event-stream", then: str = "end") -> Handler:
    """A 200 with these bytes, and then: the end of the body, a cut connection, or silence ('stall')."""

    async def handler(exchange: Exchange) -> None:
        await exchange.head(200, {"Content-Type": kind})
        for part in parts:
            await exchange.write(part)
        if then == "stall":
            await exchange.until_gone()
        if then == "cut":
            raise ConnectionAbortedError("the stand-in hangs up")  # uvicorn closes without the last chunk
        await exchange.write(b"", more=False)

    return handler


def sse(event: Any) -> bytes:
    """An event as bytes; strings are sent as they are."""
    data = event if isinstance(event, str) else json.dumps(event)
    return f"data: {data}\n\n".encode()


def stream(*events: Any, then: str = "end", done: bool = True) -> Handler:
    """A stream of these events, with `[DONE]` when it ends well."""
    closing = [b"data: [DONE]\n\n"] if done and then == "end" else []
    return raw_stream(*(sse(event) for event in events), *closing, then=then)


async def silence(exchange: Exchange) -> None:
    """Takes the request and does not answer."""
    await exchange.until_gone()


# Chunks of a conversation


def piece(
    content: str | None = None, *, finish: str | None = None, logprobs: Any = None, **delta: Any
) -> Body:
    """A chunk with a part of the message."""
    fields = ({} if content is None else {"content": content}) | delta
    choice = {"index": 0, "delta": fields, "finish_reason": finish, "logprobs": logprobs}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}


def usage(prompt: int, completion: int) -> Body:
    """The chunk with token counts."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": counts}


def token(text: str, logprob: float, *top: tuple[str, float]) -> Body:
    """A token with its log-probability and the likeliest instead."""

    def entry(text: str, logprob: float) -> Body:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return entry(text, logprob) | {"top_logprobs": [entry(*item) for item in top]}


def well_behaved(*words: str, prompt_tokens: int = 7) -> Handler:
    """A complete answer as OpenAI's API streams it."""
    return stream(
        piece("", role="assistant"),
        *(piece(word) for word in words),
        piece(finish="stop"),
        usage(prompt_tokens, len(words)),
    )
