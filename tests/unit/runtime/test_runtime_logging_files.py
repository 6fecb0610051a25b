"""Lines reach stream and file in order, and nobody waits for a disk."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.observability import log_output
from agent_runtime.observability import logging as runtime_logging
from tests.model.training import REPOSITORY

log = logging.getLogger("agent_runtime.test")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The process's logging as it was."""
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level = root.handlers[:], root.level
    log_output.lost.clear()
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], sys.excepthook = handlers, hook
    root.setLevel(level)
    logging.captureWarnings(False)
    log_output.lost.clear()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class StuckStream(io.StringIO):
    """A stream whose reader has stopped: every write waits for `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.writing = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.writing.set()
        self.go.wait()
        return super().write(text)


def test_with_a_path_every_line_is_in_both_places(tmp_path: Path) -> None:
    stream, path = io.StringIO(), tmp_path / "logs" / "deep" / "runtime.log"
    runtime_logging.configure("info", stream, path=str(path))

    for number in range(100):
        log.info("line %d", number, extra={"fields": {"number": number}})
    runtime_logging.flush()

    assert [line["number"] for line in lines(stream.getvalue())] == list(range(100))
    assert path.read_text() == stream.getvalue()


def test_a_file_is_rotated_at_its_size_and_old_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "runtime.log"
    runtime_logging.configure("info", io.StringIO(), path=str(path), max_bytes=2000, backups=2)

    for number in range(200):
        log.info("line", extra={"fields": {"number": number}})
    runtime_logging.flush()

    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["runtime.log", "runtime.log.1", "runtime.log.2"]
    kept = [line["number"] for name in reversed(files) for line in lines((tmp_path / name).read_text())]
    assert kept == list(range(kept[0], 200)), "the newest lines, without a gap"
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())


@pytest.mark.parametrize("make", ["file_in_the_way", "a_folder", "read_only_proc"])
def test_a_path_that_cannot_be_written_is_refused_before_anything_changes(tmp_path: Path, make: str) -> None:
    if make == "file_in_the_way":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "runtime.log"
    elif make == "a_folder":
        path = tmp_path
    else:
        path = Path("/proc/agent-runtime/runtime.log")
    before = logging.getLogger().handlers[:]

    with pytest.raises(ValueError, match=r"runtime\.logging\.path") as refused:
        runtime_logging.configure("info", io.StringIO(), path=str(path))

    assert str(path) in str(refused.value) and "writable volume" in str(refused.value)
    assert logging.getLogger().handlers == before


def test_an_unknown_level_is_refused_before_anything_changes() -> None:
    before = logging.getLogger().handlers[:]

    with pytest.raises(ValueError, match="debug, info, warning, error"):
        runtime_logging.configure("loud", io.StringIO())

    assert logging.getLogger().handlers == before


def test_a_stuck_stream_holds_up_nobody_and_the_lost_lines_are_counted() -> None:
    stream = StuckStream()
    handler = log_output.QueuedOutput([log_output._WriterStream(stream)], size=10)
    handler.setFormatter(runtime_logging.JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("taken")
    assert stream.writing.wait(10)

    for number in range(25):
        logger.info("line %d", number)  # returns: were it waiting, the test would never end

    assert log_output.lost["queue_full"] == 15
    stream.go.set()
    handler.close()
    assert [line["msg"] for line in lines(stream.getvalue())] == ["taken", *(f"line {n}" for n in range(10))]


def test_the_end_of_the_process_does_not_wait_for_a_stuck_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_output, "FLUSH_SECONDS", 0.05)
    stream = StuckStream()
    handler = log_output.QueuedOutput([log_output._WriterStream(stream)])
    handler.emit(logging.makeLogRecord({"msg": "never written"}))

    handler.flush()
    handler.close()  # returns: were it waiting, the test would never end

    stream.go.set()


def test_a_full_disk_costs_lines_and_is_counted(tmp_path: Path) -> None:
    """/dev/full is a file whose every write fails with ENOSPC."""
    stream = io.StringIO()
    full = log_output._WriterFile("/dev/full", maxBytes=0, backupCount=0)
    handler = log_output.QueuedOutput([full, log_output._WriterStream(stream)])
    handler.emit(logging.makeLogRecord({"msg": "hello"}))

    handler.flush()
    handler.close()

    assert stream.getvalue() == "hello\n"
    assert log_output.lost["write_failed"] == 1


def test_lines_carry_the_request_they_were_written_in() -> None:
    """The writer's thread knows no request; the line must be made before it gets there."""
    stream = io.StringIO()
    runtime_logging.configure("info", stream, queued=True)
    request = runtime_logging.request_id.set("req-1")
    trace = runtime_logging.trace_ids.set(("a" * 32, "b" * 16))
    log.info("inside")
    runtime_logging.request_id.reset(request)
    runtime_logging.trace_ids.reset(trace)
    log.info("outside")
    runtime_logging.flush()

    inside, outside = lines(stream.getvalue())

    assert (inside["request_id"], inside["trace_id"], inside["span_id"]) == ("req-1", "a" * 32, "b" * 16)
    assert not {"request_id", "trace_id", "span_id"} & outside.keys()


def test_the_level_changes_while_running() -> None:
    stream = io.StringIO()
    runtime_logging.configure("warning", stream)
    log.info("not yet")

    runtime_logging.set_level("debug")
    log.debug("now")

    assert runtime_logging.level() == "debug"
    assert [line["msg"] for line in lines(stream.getvalue())] == ["now"]


def test_configuring_again_loses_no_line(tmp_path: Path) -> None:
    stream = io.StringIO()
    runtime_logging.configure("info", stream, queued=True)
    log.info("before")

    runtime_logging.configure("info", stream, path=str(tmp_path / "runtime.log"))
    log.info("after")
    runtime_logging.flush()

    assert [line["msg"] for line in lines(stream.getvalue())] == ["before", "after"]


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "raise RuntimeError('the last word')"])
def test_the_last_lines_of_a_process_are_written(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "runtime.log"
    program = (
        "import logging\n"
        "from agent_runtime.observability import logging as runtime_logging\n"
        f"runtime_logging.configure('info', path={str(path)!r})\n"
        "for number in range(500): logging.info('line')\n"
        f"{ending}\n"
    )

    subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=False,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip

    written = lines(path.read_text())
    assert [line["msg"] for line in written[:500]] == ["line"] * 500
    if "RuntimeError" in ending:
        assert "the last word" in written[-1]["exception"]


def test_text_that_is_no_unicode_costs_no_line(tmp_path: Path) -> None:
    path = tmp_path / "runtime.log"
    with (tmp_path / "stdout").open("w", encoding="utf-8") as stream:
        runtime_logging.configure("info", stream, path=str(path))
        log.info("half a pair: \ud800")
        runtime_logging.flush()

    assert "half a pair" in path.read_text() and "half a pair" in (tmp_path / "stdout").read_text()


def test_a_wrong_call_of_the_logger_is_not_mistaken_for_a_full_disk(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runtime_logging.configure("info", io.StringIO())

    log.info("%d", "no number")

    assert "--- Logging error ---" in capsys.readouterr().err
    assert log_output.lost["write_failed"] == 0


def test_a_new_api_key_never_reaches_the_log() -> None:
    from agent_runtime.api_keys import new_key

    stream, key = io.StringIO(), new_key().key
    runtime_logging.configure("info", stream)

    log.info("got %s", key, extra={"fields": {"header": f"x-api-key: {key}"}})

    assert key not in stream.getvalue() and "[redacted]" in stream.getvalue()
