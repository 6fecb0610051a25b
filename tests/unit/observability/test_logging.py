"""Every line is one JSON object with known fields, ours and kopf's alike."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import kopf
import pytest

from agent_operator.observability.logging import FIELDS, add_to_context, configure_logging, log_context


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("info", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_logger_and_message(stream: io.StringIO) -> None:
    logging.getLogger("agent_operator.x").info("applied %s", "Service")
    (line,) = lines(stream)
    assert list(line) == list(FIELDS[:4])
    assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None
    assert (line["level"], line["logger"], line["message"]) == ("info", "agent_operator.x", "applied Service")


def test_inside_a_reconcile_lines_name_object_generation_and_reconcile(stream: io.StringIO) -> None:
    with log_context(object="ns/geo", reconcileID="abc"):
        add_to_context(generation=3)
        logging.getLogger("anything").warning("hm")
    logging.getLogger("anything").warning("outside")
    inside, outside = lines(stream)
    assert {k: inside[k] for k in ("object", "generation", "reconcileID")} == {
        "object": "ns/geo", "generation": 3, "reconcileID": "abc",
    }  # fmt: skip
    assert "object" not in outside


def test_what_kopf_says_about_an_object_names_it_in_the_same_field(stream: io.StringIO) -> None:
    extra = {"k8s_ref": {"namespace": "ns", "name": "geo"}, "settings": kopf.OperatorSettings()}
    logging.getLogger("kopf.objects").error("handler failed", extra=extra)
    (line,) = lines(stream)
    assert line["object"] == "ns/geo"
    assert set(line) <= set(FIELDS)


def test_an_exception_stays_on_its_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("bad\nnews")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (line,) = lines(stream)
    assert "ValueError" in line["exc_info"]


def test_debug_lines_are_not_written_at_info(stream: io.StringIO) -> None:
    logging.getLogger("x").debug("noise")
    logging.getLogger("kopf.objects").info("Handler succeeded, for each of a thousand events")
    assert lines(stream) == []
