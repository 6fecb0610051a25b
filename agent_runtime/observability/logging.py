"""One JSON object per log line. Layer: observability; standard library only.

The one idea: a log line is data: `ts`, `level`, `logger`, `msg`, `request_id` when there is one, and the
fields the caller passed as `extra={"fields": {...}}`. Libraries log through the same handler. structlog would
do as much, at the price of a dependency for what the standard formatter does in thirty lines. Secrets never
leave: whatever looks like a hub token, and the value of HF_TOKEN, is replaced in every line.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request being answered in this task, if any."""

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|(?<=Bearer )[^\s\"']+")
_QUIET = ("httpx", "httpx2", "httpcore", "httpcore2", "filelock", "urllib3", "asyncio", "huggingface_hub")


def redact(text: str) -> str:
    """The text without tokens: hub tokens by their shape, bearer tokens, and the value of HF_TOKEN."""
    text = _TOKEN.sub("[redacted]", text)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        secret = os.environ.get(name, "").strip()
        if len(secret) >= 4:
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
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line |= {key: value for key, value in fields.items() if key not in line or key == "request_id"}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, ensure_ascii=False, default=str))


def configure(level: str, stream: TextIO | None = None) -> None:
    """Route every logger of the process through one JSON handler on `stream` (standard output)."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
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


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """An exception that ends the process is a log line too, not a bare traceback."""
    logging.getLogger("agent_runtime").critical("uncaught exception", exc_info=(kind, error, trace))
