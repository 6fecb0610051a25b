"""A log line is data, and holds no secret."""

from __future__ import annotations

import io
import json
import logging

import pytest

from agent_runtime.observability import logging as runtime_logging


@pytest.fixture
def stream() -> io.StringIO:
    """Where a logger of the test writes, through the runtime's formatter."""
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> logging.Logger:
    """A logger that touches no global state."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(runtime_logging.JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger


def test_a_line_has_time_level_message_request_and_fields(
    logger: logging.Logger, stream: io.StringIO
) -> None:
    token = runtime_logging.request_id.set("req-1")
    logger.info("hello %s", "world", extra={"fields": {"seconds": 0.5, "level": "not overwritten"}})
    runtime_logging.request_id.reset(token)

    line = json.loads(stream.getvalue())

    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "test",
        "msg": "hello world",
        "request_id": "req-1",
        "seconds": 0.5,
    }


def test_an_exception_stays_on_its_line(logger: logging.Logger, stream: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed")

    assert len(stream.getvalue().splitlines()) == 1
    assert "ValueError: two\nlines" in json.loads(stream.getvalue())["exception"]


def test_hub_and_bearer_tokens_never_reach_the_log(
    logger: logging.Logger, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "sekret-value")

    logger.info("Authorization: Bearer abc.def sekret-value", extra={"fields": {"token": "hf_0123456789"}})

    assert not any(secret in stream.getvalue() for secret in ("abc.def", "sekret-value", "hf_0123456789"))
    assert json.loads(stream.getvalue())["token"] == "[redacted]"
