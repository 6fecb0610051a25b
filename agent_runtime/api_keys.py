"""API keys: what an entry says, and who a presented key belongs to. Layer: shared, pure: pydantic only;
the runtime admits by it, and so does the operator's gateway before it holds a request.

The one idea: a key is a long random string, so its plain SHA-256 is all that is kept. Stretching (bcrypt,
argon2) buys time against guessing the words people choose; against 256 random bits there is nothing to guess,
and it would only cost the server at every request. A presented key is compared with every entry in constant
time, found or not, so the time tells nothing.

An entry is one of

- `sha256:<64 hex digits>`, what `new_key` writes and the form to prefer: the Secret then holds no key;
- the key itself, at least 24 printable characters without blanks, hashed when read and then forgotten;
- a JSON object with `sha256` and any of `models`, `tools` (lists of names; all when absent),
  `requests_per_minute`, `tokens_per_minute`, `max_concurrency` (unlimited when absent), `expires` (RFC 3339)
  and `admin` (may change parameters on the admin port).

A bad entry admits nobody and disturbs no other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

MIN_KEY_CHARACTERS = 24
MAX_ENTRY_CHARACTERS = 64 * 1024
KEY_PREFIX = "ao-"
KEY_BYTES = 32

_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
_KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one key may use; None is unlimited. Tokens are read and generated ones together."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller that was recognised. `models` and `tools` None allow all; `expires` is in Unix seconds."""

    name: str
    models: frozenset[str] | None = None
    tools: frozenset[str] | None = None
    limits: Limits = Limits()
    expires: float | None = None
    admin: bool = False

    def may_use_model(self, model: str) -> bool:
        """Whether this key was given the model."""
        return self.models is None or model in self.models

    def may_use_tool(self, tool: str) -> bool:
        """Whether this key was given the tool."""
        return self.tools is None or tool in self.tools


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key's SHA-256 and whom it stands for."""

    digest: bytes = field(repr=False)
    principal: Principal


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Every valid entry, and a sentence for each that is not. Never changed, only replaced."""

    entries: tuple[KeyEntry, ...] = ()
    problems: tuple[str, ...] = ()


class KeyEntryError(ValueError):
    """An entry that cannot be used; the message names it and the field, never a value."""


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a presented key is not accepted."""

    code: Literal["missing_api_key", "invalid_api_key", "expired_api_key"]


WORDS: Mapping[str, str] = {
    "missing_api_key": "No API key was sent: send it as `Authorization: Bearer KEY`.",
    "invalid_api_key": "The API key is not known here. Check it, or ask whoever runs this server for one.",
    "expired_api_key": "The API key has expired. Ask whoever runs this server for a new one.",
}
"""What a client is told, by the code of Denied. The key is never repeated."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")
    models: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    max_concurrency: int | None = Field(default=None, ge=1)
    expires: AwareDatetime | None = None
    admin: bool = False


def parse_entry(name: str, text: str) -> KeyEntry:
    """The entry called `name` from its text. Raises KeyEntryError."""
    text = text.strip()
    if len(text) > MAX_ENTRY_CHARACTERS:
        raise KeyEntryError(f"API key '{name}': the entry is longer than {MAX_ENTRY_CHARACTERS} characters")
    if text.startswith("{"):
        return _from_json(name, text)
    if text.startswith("sha256:"):
        found = _HASH.fullmatch(text)
        if found is None:
            raise KeyEntryError(f"API key '{name}': after 'sha256:' there must be exactly 64 hex digits")
        return KeyEntry(bytes.fromhex(found[1]), Principal(name))
    if len(text) < MIN_KEY_CHARACTERS or not _KEY.fullmatch(text):
        raise KeyEntryError(
            f"API key '{name}': it must be 'sha256:<64 hex digits>', a JSON object, or a key of at least "
            f"{MIN_KEY_CHARACTERS} printable ASCII characters without blanks; `agent-runtime keys new` makes "
            "one"
        )
    return KeyEntry(digest(text), Principal(name))


def _from_json(name: str, text: str) -> KeyEntry:
    try:
        entry = _Entry.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise KeyEntryError(f"API key '{name}': {where}: {first['msg']}") from None
    principal = Principal(
        name,
        models=None if entry.models is None else frozenset(entry.models),
        tools=None if entry.tools is None else frozenset(entry.tools),
        limits=Limits(entry.requests_per_minute, entry.tokens_per_minute, entry.max_concurrency),
        expires=None if entry.expires is None else entry.expires.timestamp(),
        admin=entry.admin,
    )
    return KeyEntry(bytes.fromhex(entry.sha256), principal)


def parse_lines(text: str) -> Iterable[tuple[str, str]]:
    """Names and entries of a single file: one entry per line, `ENTRY` or `NAME ENTRY`.

    Empty lines and lines that begin with `#` are skipped. An entry without a name is called after its line. A
    first word as long as a key is no name: names are shown in messages, and it may be a key with a remark.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        first, _, rest = entry.partition(" ")
        if rest and not first.startswith("{") and len(first) < MIN_KEY_CHARACTERS:
            yield first, rest.strip()
        else:
            yield f"line-{number}", entry


def key_ring(entries: Iterable[tuple[str, str]], problems: Iterable[str] = ()) -> KeyRing:
    """The ring of these (name, text) pairs. Of two entries with the same name or key the first one counts."""
    accepted: dict[bytes, KeyEntry] = {}
    names: set[str] = set()
    found = list(problems)
    for name, text in entries:
        try:
            entry = parse_entry(name, text)
        except KeyEntryError as error:
            found.append(str(error))
            continue
        if entry.digest in accepted:
            other = accepted[entry.digest].principal.name
            found.append(f"API key '{name}': it is the same key as '{other}', which counts")
        elif name in names:
            found.append(f"API key '{name}': the name is used twice; the first one counts")
        else:
            accepted[entry.digest] = entry
            names.add(name)
    return KeyRing(tuple(accepted.values()), tuple(found))


def digest(key: str) -> bytes:
    """The SHA-256 of a key, 32 bytes."""
    return hashlib.sha256(key.encode()).digest()


def verify(ring: KeyRing, presented: str | None, now: float) -> Principal | Denied:
    """Whose key was presented; `now` is in Unix seconds.

    Every entry is compared, so neither the position of the right one nor its absence shows in the time.
    """
    if not presented:
        return Denied("missing_api_key")
    seen = digest(presented)
    match: Principal | None = None
    for entry in ring.entries:
        if hmac.compare_digest(entry.digest, seen):
            match = entry.principal
    if match is None:
        return Denied("invalid_api_key")
    if match.expires is not None and now >= match.expires:
        return Denied("expired_api_key")
    return match


def presented_key(headers: Mapping[bytes, bytes]) -> str | None:
    """The key in a request's headers (lower-case names), or None.

    `Authorization: Bearer` comes first (OpenAI's clients), then `api-key` (Azure's) and `x-api-key`.
    """
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for name in (b"api-key", b"x-api-key"):
        if value := headers.get(name, b"").decode("latin-1").strip():
            return value
    return None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A fresh key, to be shown once, and the entry to put into the Secret."""

    key: str = field(repr=False)
    entry: str


def new_key(entropy: Callable[[int], bytes] = secrets.token_bytes) -> NewKey:
    """A key of 256 random bits: `ao-` and 43 characters of URL-safe base64."""
    random = base64.urlsafe_b64encode(entropy(KEY_BYTES)).rstrip(b"=").decode()
    key = KEY_PREFIX + random
    return NewKey(key, f"sha256:{digest(key).hex()}")
