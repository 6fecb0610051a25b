"""One JSON object per log line. Layer: observability; standard library only.

The one idea: a log line is data: `ts`, `level`, `logger`, `msg`, `request_id`, `trace_id` and `span_id` when
there are any, and the fields the caller passed as `extra={"fields": {...}}`. Libraries log through the same
handler. structlog would do as much, at the price of a dependency for what the standard formatter does in
thirty lines. Secrets never leave: whatever looks like a hub token or an API key of ours, every registered
secret, and the value of HF_TOKEN, is replaced in every line.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import warnings
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO
from urllib.parse import quote

from agent_runtime.observability import log_output

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request being answered in this task, if any."""

trace_ids: ContextVar[tuple[str, str] | None] = ContextVar("trace_ids", default=None)
"""W3C trace id and span id (hex) of this task, if it belongs to a trace."""

LEVELS = ("debug", "info", "warning", "error")

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|\bao-[A-Za-z0-9_-]{43}|(?<=Bearer )[^\s\"']+")
_SIGNED = re.compile(r"((?:Signature|Credential|Security-Token)=)[^&\s\"']+")
"""The secret parts of an address that is its own permission, as the hub's CDN and buckets give out."""
_QUIET = (
    "a2a", "asyncio", "filelock", "httpcore", "httpcore2", "httpx", "httpx2", "huggingface_hub", "mcp",
    "sse_starlette", "urllib3",
)  # fmt: skip

_SHORTEST_SECRET = 4
"""Characters; replacing anything shorter would make the log unreadable and reveal it by the gaps."""
_secrets: tuple[str, ...] = ()
"""What must never be written, longest first: registered values in each spelling a line may have."""
_registering = threading.Lock()


def register_secret(value: str) -> None:
    """From now on this value is replaced in every text that `redact` sees, also escaped in JSON or a URL."""
    global _secrets  # noqa: PLW0603 - replaced whole, so that other threads read a complete tuple
    if len(value) >= _SHORTEST_SECRET:
        escaped = {json.dumps(value, ensure_ascii=plain)[1:-1] for plain in (True, False)}
        spellings = {value, quote(value, safe=""), *escaped}
        with _registering:
            _secrets = tuple(sorted(spellings | set(_secrets), key=len, reverse=True))


def redact(text: str) -> str:
    """The text without tokens: registered secrets, hub tokens by their shape, bearer tokens, signatures in
    addresses, and the value of HF_TOKEN."""
    for secret in _secrets:
        text = text.replace(secret, "[redacted]")
    text = _SIGNED.sub(r"\1[redacted]", _TOKEN.sub("[redacted]", text))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        secret = os.environ.get(name, "").strip()
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "[redacted]")
    return text


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON, redacted."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        current = request_id.get()
        if current is not None:
            line["request_id"] = current
        traced = trace_ids.get()
        if traced is not None:
            line["trace_id"], line["span_id"] = traced
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line |= {key: value for key, value in fields.items() if key not in line or key == "request_id"}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, ensure_ascii=False, default=str))


def configure(
    level: str,
    stream: TextIO | None = None,
    *,
    path: str | None = None,
    max_bytes: int = 64 * 2**20,
    backups: int = 3,
    queued: bool = False,
) -> None:
    """Route every logger of the process through one JSON handler on `stream` (standard output).

    With `path` the lines go to that file as well, rotated at `max_bytes`, `backups` old ones kept. `queued`
    leaves writing to a thread, so that no disk holds up the caller: what a server wants, and always so with
    a path. Raises ValueError for an unknown level and log_output.LogPathError for a path that cannot be
    written, before anything changes.
    """
    _check_level(level)
    target = stream or sys.stdout
    if queued or path is not None:
        handler: logging.Handler = log_output.queued_output(target, path, max_bytes, backups)
    else:
        handler = log_output.direct_output(target)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [handler]
    for old in before:
        if isinstance(old, log_output.QueuedOutput):
            old.close()
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    sys.excepthook = _log_uncaught


def set_level(level: str) -> None:
    """Changes what is logged, at once. Raises ValueError for a level that does not exist."""
    _check_level(level)
    logging.getLogger().setLevel(level.upper())


def _check_level(level: str) -> None:
    if level not in LEVELS:
        raise ValueError(f"the log level must be one of {', '.join(LEVELS)}")


def level() -> str:
    """The level in force."""
    return logging.getLevelName(logging.getLogger().level).lower()


def flush() -> None:
    """Waits, within bounds, until every line so far is written; before the process is made to end."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """An exception that ends the process is a log line too, not a bare traceback."""
    logging.getLogger("agent_runtime").critical("uncaught exception", exc_info=(kind, error, trace))
    flush()
