"""Structured logs. Layer: observability; imports the standard library and python-json-logger.

The one idea: one formatter on the root logger, so our lines and kopf's are the same JSON; which object,
generation and reconcile a line belongs to comes from context variables and needs no argument passing.
Imports of this module are absolute, so its name does not hide the standard library's.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

LEVELS = ("debug", "info", "warning", "error")

FIELDS = ("timestamp", "level", "logger", "message", "object", "generation", "reconcileID", "exc_info")
"""Fields a line may have besides explicit extras; the first four are in every line."""

_context: ContextVar[MutableMapping[str, Any] | None] = ContextVar("log_context", default=None)


@contextmanager
def log_context(**fields: Any) -> Iterator[None]:
    """Add fields to every line logged in the block, in this task and those it starts."""
    token = _context.set({**(_context.get() or {}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def add_to_context(**fields: Any) -> None:
    """Add fields to the innermost block, for what is known only later (the generation)."""
    current = _context.get()
    if current is not None:
        current.update(fields)


class Formatter(JsonFormatter):
    """One JSON object per line; times in RFC 3339, UTC, milliseconds."""

    def __init__(self) -> None:
        # kopf attaches its settings and the object's reference to records; the former is noise.
        super().__init__(reserved_attrs=[*RESERVED_ATTRS, "settings", "k8s_skip", "k8s_ref"])

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        created = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["timestamp"] = created.replace("+00:00", "Z")
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        super().add_fields(log_data, record, message_dict)
        reference = getattr(record, "k8s_ref", None)
        if reference:
            log_data["object"] = f"{reference.get('namespace')}/{reference.get('name')}"
        log_data.update(_context.get() or {})


def configure_logging(level: str, stream: IO[str] | None = None) -> None:
    """Replace the root handlers by ours. `level` is one of LEVELS."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # One line per watch event per object, and per-request noise, are for debugging only.
    if level != "debug":
        for name in ("kopf.objects", "kopf._core.reactor.running", "asyncio", "aiohttp.access"):
            logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
