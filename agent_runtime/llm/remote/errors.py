"""Every way a remote model can fail a request, in words. Layer: llm.remote, pure: looks at errors and
answers, does nothing.

The one idea: one constructor per kind of failure, so that its code, its words, whether another attempt makes
sense and what it says of the remote's health are decided once. What the remote itself said is passed on
cleaned: on one line, without the API key or any other secret, at most 500 characters. Requests'
errors name the model as callers know it, not the address behind it; the address is in the log and in the
report of a failed start.
"""

from __future__ import annotations

import json
import math
import re
import socket
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from agent_runtime.llm.base import ErrorCode, GenerationError
from agent_runtime.llm.failures import causes
from agent_runtime.llm.remote.breaker import Outcome
from agent_runtime.observability.logging import redact

MAX_MESSAGE = 500
"""Characters of the remote's own words that are passed on."""
LONGEST_RETRY_AFTER = 86_400.0

_SAYS_UNSUPPORTED = re.compile(r"(?:not |n't |un|\bno \w+ is )support", re.IGNORECASE)
"""llama.cpp answers 500 to a feature it lacks ("Only no echo is supported"): a refusal, not a failure."""


class RemoteError(GenerationError):
    """A request the remote did not answer.

    `status` is the HTTP status, None when there was none; `said` is the remote's own message, cleaned;
    `transient` means that nothing was answered yet and another attempt may succeed; `outcome` is what the
    circuit breaker learns.
    """

    def __init__(
        self,
        message: str,
        code: ErrorCode,
        *,
        retry_after: int | None = None,
        status: int | None = None,
        said: str = "",
        transient: bool = False,
        outcome: Outcome = Outcome.FAILURE,
    ) -> None:
        super().__init__(message, code, retry_after=retry_after)
        self.status, self.said = status, said
        self.transient, self.outcome = transient, outcome


_OURS = frozenset({401, 402, 403, 429})
"""Refusals of this server and not of the request: of its key, or of its exhausted quota."""


class Errors:
    """The constructors. `served_name` is the model's name for callers."""

    def __init__(self, served_name: str) -> None:
        self._subject = f"The remote model behind '{served_name}'"

    def clean(self, text: str) -> str:
        """The text on one line, printable, without secrets, at most MAX_MESSAGE characters."""
        line = " ".join("".join(c if c.isprintable() else " " for c in redact(text)).split())
        return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 3] + "..."

    def status(self, status: int, headers: Mapping[str, str], body: bytes) -> RemoteError:
        """The error an HTTP answer other than 2xx is."""
        text, kind = _message_of(body)
        said = self.clean(text)
        wait = retry_after_of(headers)
        if status == 429 and kind != "insufficient_quota":
            return self._answered(
                "remote_overloaded", "is at capacity", status, said, transient=True,
                retry_after=max(1, math.ceil(wait or 0)),
            )  # fmt: skip
        if status == 408:
            return self._answered("remote_unreachable", "timed out", status, said, transient=True, bad=True)
        if status >= 500 and status != 501 and not _SAYS_UNSUPPORTED.search(said):
            return self._answered(
                "remote_failed", "failed", status, said, transient=True, bad=True,
                retry_after=None if wait is None else max(1, math.ceil(wait)),
            )  # fmt: skip
        if 300 <= status < 400:
            said = "it redirects elsewhere; give the address it redirects to as the base URL"
        if status == 401:  # the remote's words often quote a part of the key
            said = "the API key is missing or wrong; check the Secret it comes from"
        # Our key, our bill and our address are nothing the caller could mend.
        code: ErrorCode = "remote_denied" if status < 400 or status in _OURS else "remote_refused"
        return self._answered(code, "refused the request", status, said)

    def in_stream(self, error: Any) -> RemoteError:
        """The error an `error` object inside a stream is; by then the HTTP status was already 200."""
        fields = error if isinstance(error, dict) else {"message": str(error)}
        said = self.clean(_text(fields.get("message")) or "no message")
        code, kind = fields.get("code"), str(fields.get("type"))
        if code == 429 or kind == "rate_limit_error":
            return self._answered("remote_overloaded", "is at capacity", 429, said, retry_after=1)
        if kind == "invalid_request_error" or (isinstance(code, int) and 400 <= code < 500):
            status = code if isinstance(code, int) else 400
            return self._answered("remote_refused", "refused the request", status, said)
        return RemoteError(f"{self._subject} failed while answering: {said}", "remote_failed", said=said)

    def transport(self, error: httpx2.HTTPError, *, answering: bool) -> RemoteError:
        """The error of a connection; `answering` once a piece of the answer has been read."""
        if isinstance(error, httpx2.PoolTimeout):
            return RemoteError(
                f"{self._subject} has no free connection: all are in use. Retry after 1 s.",
                "remote_overloaded", retry_after=1, outcome=Outcome.UNKNOWN,
            )  # fmt: skip
        if _is_garbage(error):
            return self.garbage(self.clean(str(error)) or type(error).__name__)
        if answering:
            return self.cut("the connection was cut")
        why, transient = _connection_failure(error)
        return RemoteError(
            f"{self._subject} cannot be reached: {self.clean(why)}.",
            "remote_unreachable",
            transient=transient,
        )

    def no_first_byte(self, seconds: float) -> RemoteError:
        """Nothing came within the time-out; not repeated, because the caller has waited long enough."""
        return RemoteError(
            f"{self._subject} cannot be reached: nothing came within {seconds:g} s.", "remote_unreachable"
        )

    def stalled(self, seconds: float) -> RemoteError:
        """The stream stopped without ending."""
        return RemoteError(
            f"{self._subject} stopped in the middle of its answer: nothing more came within {seconds:g} s.",
            "remote_unreachable",
        )

    def cut(self, why: str) -> RemoteError:
        """The stream ended before the answer did."""
        return RemoteError(f"{self._subject} broke off in the middle of its answer: {why}.", "remote_failed")

    def garbage(self, detail: str) -> RemoteError:
        """What came is not an answer of this API."""
        return RemoteError(
            f"{self._subject} sent something that is no answer of an OpenAI-compatible API: {detail}. "
            "Check that the base URL includes the version path, for example /v1.",
            "remote_failed",
        )

    def circuit_open(self, seconds: float, last: str) -> RemoteError:
        """The remote failed too often just now and is not called."""
        wait = max(1, math.ceil(seconds))
        return RemoteError(
            f"{self._subject} failed repeatedly and is not called for now. Retry after {wait} s. "
            f"The last failure: {last}",
            "remote_unreachable", retry_after=wait, outcome=Outcome.UNKNOWN,
        )  # fmt: skip

    def refused(self, what: str) -> RemoteError:
        """Something this remote, or any remote, does not offer; `what` goes on after the model's name."""
        return RemoteError(f"{self._subject} {what}", "remote_refused", outcome=Outcome.SUCCESS)

    def no_logprobs(self) -> RemoteError:
        """Log-probabilities were asked for; this remote has none."""
        return self.refused(
            "offers no log-probabilities. Leave out logprobs and decisions over candidates, or use a server "
            "that reports them (vLLM, SGLang, llama.cpp, this runtime) or a local model."
        )

    def bad_grammar(self, what: str) -> GenerationError:
        """A constraint that cannot be passed on."""
        return GenerationError(f"{self._subject} {what}", "invalid_grammar")

    def deadline(self) -> GenerationError:
        """The request's own time is up."""
        return GenerationError(
            f"{self._subject} did not answer before the request's deadline.", "deadline_exceeded"
        )

    def _answered(
        self,
        code: ErrorCode,
        what: str,
        status: int,
        said: str,
        *,
        transient: bool = False,
        bad: bool = False,
        retry_after: int | None = None,
    ) -> RemoteError:
        words = f": {said}" if said else "."
        hint = f" Retry after {retry_after} s." if retry_after is not None else ""
        return RemoteError(
            f"{self._subject} {what} (HTTP {status}){words}{hint}", code,
            retry_after=retry_after, status=status, said=said, transient=transient,
            outcome=Outcome.FAILURE if bad else Outcome.SUCCESS,
        )  # fmt: skip


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds the remote asks to wait: `retry-after-ms`, or Retry-After as seconds or as a date (RFC 9110,
    10.2.3), which is taken relative to the answer's own Date so that clocks need not agree."""
    lowered = {name.lower(): value for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(lowered[name]) * unit
        except (KeyError, ValueError):
            continue
        return min(LONGEST_RETRY_AFTER, max(0.0, seconds)) if math.isfinite(seconds) else None
    try:
        until = parsedate_to_datetime(lowered["retry-after"])
        seconds = (until - parsedate_to_datetime(lowered["date"])).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None
    return min(LONGEST_RETRY_AFTER, max(0.0, seconds))


def _message_of(body: bytes) -> tuple[str, str]:
    """The message and the error code in an error's body, in the shapes servers use: `{"error": {"message",
    "code"}}` (OpenAI), `{"message"}` (vLLM), `{"error": "..."}` (TGI), `{"detail": ...}` (FastAPI), text."""
    text = body.decode(errors="replace").strip()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ("", "") if text.startswith("<") else (text, "")
    if not isinstance(found, dict):
        return text, ""
    inner = found.get("error", found)
    if not isinstance(inner, dict):
        return _text(inner), ""
    for name in ("message", "detail"):
        if inner.get(name):
            return _text(inner[name]), str(inner.get("code"))
    return text, str(inner.get("code"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _is_garbage(error: httpx2.HTTPError) -> bool:
    if isinstance(error, httpx2.RemoteProtocolError):  # h11 has one class for broken HTTP and for hanging up
        return not any(word in str(error).lower() for word in ("disconnected", "closed"))
    return isinstance(error, (httpx2.SSEError, httpx2.DecodingError))


def _connection_failure(error: httpx2.HTTPError) -> tuple[str, bool]:
    """Why there is no connection, in words, and whether another attempt makes sense."""
    chain = list(causes(error))
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({link.verify_message})", False
    for kind, words, transient in _CONNECTION_FAILURES:
        if any(isinstance(link, kind) for link in chain):
            return words, transient
    return "the connection was cut before the answer began", True


_CONNECTION_FAILURES: tuple[tuple[type[BaseException], str, bool], ...] = (
    (ssl.SSLError, "no TLS connection can be made (is it an https address?)", False),
    (socket.gaierror, "its host name cannot be resolved", True),
    (ConnectionRefusedError, "the connection was refused", True),
    (httpx2.ConnectTimeout, "no connection was made in time", True),
    (httpx2.TimeoutException, "it did not read the request in time", False),
    (httpx2.ProxyError, "the HTTP proxy refused the connection", True),
    (httpx2.ConnectError, "no connection could be made", True),
)
