"""A secret leaves the environment, enters no text, and is asked for by the name of its place."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.observability.logging import JsonFormatter, redact, register_secret
from agent_runtime.secrets import SIZE_LIMIT, SecretError, environment_secret, read_secret, take_secret


def test_a_taken_secret_leaves_the_environment_and_stays_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET_A", " value-of-a\n")

    first, again = take_secret("TEST_SECRET_A"), take_secret("TEST_SECRET_A")

    assert first == again == environment_secret("TEST_SECRET_A") == "value-of-a"
    assert "TEST_SECRET_A" not in os.environ
    assert redact("it is value-of-a.") == "it is [redacted]."


def test_a_secret_that_is_only_looked_at_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET_B", "value-of-b")

    assert environment_secret("TEST_SECRET_B") == "value-of-b"
    assert os.environ["TEST_SECRET_B"] == "value-of-b"
    assert "value-of-b" not in redact("value-of-b")


def test_an_address_that_is_its_own_permission_loses_its_signature() -> None:
    address = "https://cdn/x?X-Amz-Credential=AKIA%2Fs3&X-Amz-Expires=60&X-Amz-Signature=0af3&Signature=b~c"

    said = redact(f"GET {address} failed")

    assert said == (
        "GET https://cdn/x?X-Amz-Credential=[redacted]&X-Amz-Expires=60&X-Amz-Signature=[redacted]"
        "&Signature=[redacted] failed"
    )


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_a_secret_that_is_not_there_is_none(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("TEST_SECRET_C", value)

    assert take_secret("TEST_SECRET_C") is None


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-value\n")
    first = read_secret(file)
    file.write_text("second-value\n")

    assert (first, read_secret(file)) == ("first-value", "second-value")
    assert redact("first-value second-value") == "[redacted] [redacted]"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"one\ntwo", "more than one line"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * (SIZE_LIMIT + 1), "longer than"),
    ],
)
def test_a_file_that_holds_no_secret_is_named_and_not_quoted(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SecretError) as caught:
        read_secret(file)

    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    assert "two" not in str(caught.value)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40))
def test_no_registered_secret_is_ever_in_a_line_of_the_log(secret: str) -> None:
    # A marker keeps the value from being part of a line's own words, such as a time.
    value = f"s3cr3t-{secret}-t3rc3s"
    register_secret(value)
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "got %s", (value,), None)
    record.fields = {"also": {"nested": value}}

    line = JsonFormatter().format(record)

    assert value not in json.dumps(json.loads(line), ensure_ascii=False)
    assert json.loads(line)["msg"] == "got [redacted]"
