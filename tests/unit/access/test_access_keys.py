"""An entry admits exactly the key it was made for, and a bad one admits nobody."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.api_keys import (
    Denied,
    KeyEntryError,
    KeyRing,
    Limits,
    Principal,
    key_ring,
    new_key,
    parse_entry,
    parse_lines,
    presented_key,
    verify,
)

KEY = "a-plain-key-of-enough-characters"
SHA = hashlib.sha256(KEY.encode()).hexdigest()


def ring(*entries: tuple[str, str]) -> KeyRing:
    made = key_ring(entries)
    assert made.problems == ()
    return made


@pytest.mark.parametrize("text", [f"sha256:{SHA}", KEY, f"{KEY}\n", json.dumps({"sha256": SHA})])
def test_every_form_of_an_entry_admits_its_key_and_no_other(text: str) -> None:
    made = ring(("web", text))

    assert verify(made, KEY, now=0.0) == Principal("web")
    assert verify(made, KEY + "x", now=0.0) == Denied("invalid_api_key")


def test_an_object_carries_scopes_limits_and_expiry() -> None:
    text = json.dumps(
        {
            "sha256": SHA, "models": ["geo"], "tools": [], "requests_per_minute": 60, "max_concurrency": 2,
            "tokens_per_minute": 1000, "expires": "2030-01-01T00:00:00Z", "admin": True,
        }
    )  # fmt: skip

    principal = parse_entry("web", text).principal

    assert principal == Principal(
        "web", frozenset({"geo"}), frozenset(), Limits(60, 1000, 2),
        datetime(2030, 1, 1, tzinfo=UTC).timestamp(), admin=True,
    )  # fmt: skip
    assert principal.may_use_model("geo") and not principal.may_use_model("other")
    assert not principal.may_use_tool("search")


def test_a_key_without_scopes_may_use_everything() -> None:
    principal = parse_entry("web", KEY).principal

    assert principal.may_use_model("anything") and principal.may_use_tool("anything")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("short", "at least 24"),
        ("two words that are long enough", "without blanks"),
        ("", "at least 24"),
        ("sha256:1234", "exactly 64 hex digits"),
        ('{"sha256": "1234"}', "sha256"),
        ("{}", "sha256"),
        (json.dumps({"sha256": SHA, "model": ["geo"]}), "model"),
        (json.dumps({"sha256": SHA, "requests_per_minute": 0}), "requests_per_minute"),
        (json.dumps({"sha256": SHA, "requests_per_minute": "60"}), "requests_per_minute"),
        (json.dumps({"sha256": SHA, "expires": "2030-01-01T00:00:00"}), "expires"),
        (json.dumps({"sha256": SHA, "expires": "tomorrow"}), "expires"),
        (json.dumps({"sha256": SHA, "models": "geo"}), "models"),
        ("{not json", "JSON"),
        ("x" * 70_000, "longer than"),
    ],
)
def test_a_bad_entry_is_refused_by_name_and_field(text: str, named: str) -> None:
    with pytest.raises(KeyEntryError) as refused:
        parse_entry("web", text)

    assert "'web'" in str(refused.value) and named in str(refused.value)


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=8, max_size=200))
def test_what_an_entry_holds_is_never_repeated_in_its_error(secret: str) -> None:
    for text in (f"{secret} and more", f"sha256:{secret}", f'{{"sha256": "{secret}"}}', f"{{{secret}"):
        with pytest.raises(KeyEntryError) as refused:
            parse_entry("web", text)
        assert secret not in str(refused.value)


def test_a_bad_entry_disables_itself_only() -> None:
    made = key_ring([("bad", "short"), ("web", KEY)])

    assert [entry.principal.name for entry in made.entries] == ["web"]
    assert len(made.problems) == 1 and "'bad'" in made.problems[0]


def test_the_same_key_twice_counts_once_and_is_told() -> None:
    made = key_ring([("a", KEY), ("b", f"sha256:{SHA}")])

    assert verify(made, KEY, 0.0) == Principal("a")
    assert "'b'" in made.problems[0] and "'a'" in made.problems[0]


def test_an_expired_key_is_told_from_an_unknown_one() -> None:
    made = ring(("web", json.dumps({"sha256": SHA, "expires": "1970-01-01T00:01:40Z"})))

    assert isinstance(verify(made, KEY, now=99.9), Principal)
    assert verify(made, KEY, now=100.0) == Denied("expired_api_key")
    assert verify(made, "another-key", now=100.0) == Denied("invalid_api_key")


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_key_is_told_from_a_wrong_one(nothing: str | None) -> None:
    assert verify(ring(("web", KEY)), nothing, 0.0) == Denied("missing_api_key")


@given(
    st.lists(st.text(alphabet="abcdef0123456789", min_size=24, max_size=40), unique=True, max_size=8),
    st.text(),
)
def test_a_ring_admits_its_keys_and_nothing_else(keys: list[str], other: str) -> None:
    made = key_ring([(f"key-{number}", key) for number, key in enumerate(keys)])

    for number, key in enumerate(keys):
        assert verify(made, key, 0.0) == Principal(f"key-{number}")
    if other not in keys:
        assert isinstance(verify(made, other, 0.0), Denied)


def test_an_empty_ring_admits_nobody() -> None:
    assert verify(KeyRing(), KEY, 0.0) == Denied("invalid_api_key")


def test_a_file_holds_one_entry_a_line_with_or_without_a_name() -> None:
    text = f'# who may call\n\nweb sha256:{SHA}\n{KEY}2\nbatch {{"sha256": "{"0" * 64}"}}\n'

    made = key_ring(parse_lines(text))

    assert [entry.principal.name for entry in made.entries] == ["web", "line-4", "batch"]


def test_a_key_followed_by_a_remark_is_refused_without_being_repeated() -> None:
    made = key_ring(parse_lines(f"{KEY} for the website"))

    assert made.entries == () and "line-1" in made.problems[0]
    assert KEY not in made.problems[0]


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({b"authorization": b"Bearer abc"}, "abc"),
        ({b"authorization": b"bearer  abc "}, "abc"),
        ({b"api-key": b"abc"}, "abc"),
        ({b"x-api-key": b"abc"}, "abc"),
        ({b"authorization": b"Basic abc", b"x-api-key": b"def"}, "def"),
        ({b"authorization": b"Bearer abc", b"x-api-key": b"def"}, "abc"),
        ({b"authorization": b"Basic abc"}, None),
        ({b"authorization": b"Bearer "}, None),
        ({}, None),
    ],
)
def test_a_key_is_found_where_clients_put_it(headers: dict[bytes, bytes], key: str | None) -> None:
    assert presented_key(headers) == key


def test_a_new_key_opens_with_its_entry_and_is_not_shown_by_accident() -> None:
    made = new_key()

    assert made.key.startswith("ao-") and len(made.key) == 46
    assert isinstance(verify(ring(("web", made.entry)), made.key, 0.0), Principal)
    assert made.key not in repr(made) and made.key not in made.entry


def test_new_keys_differ_by_their_entropy_alone() -> None:
    assert new_key(lambda n: b"\0" * n) == new_key(lambda n: b"\0" * n)
    assert new_key(lambda n: b"\0" * n) != new_key(lambda n: b"\1" * n)
