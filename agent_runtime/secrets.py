"""Secrets, from where they are given to where they are used. Layer: shell; standard library only.

The one idea: a secret lives in one variable of this process and nowhere else. Reading one makes the log
replace it in every line; one that came by the environment is removed from it, because every child process
inherits the environment and /proc shows it.

A keyring or settings library does neither: they are about where a secret is kept, not where it may leak to.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from agent_runtime.observability.logging import register_secret

ENVIRONMENT_SECRETS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
"""Variables that hold secrets of the model sources."""
SIZE_LIMIT = 64 * 1024
"""Bytes of the longest secret file that is read; a longer one is some other file."""

_taken: dict[str, str] = {}


class SecretError(Exception):
    """A secret cannot be read; the text names the file and what to do, never the value."""


def take_secrets(names: Iterable[str] = ENVIRONMENT_SECRETS) -> None:
    """Takes all of them out of the environment; to be called once, before any thread or child exists."""
    for name in names:
        take_secret(name)


def take_secret(name: str) -> str | None:
    """The secret in this environment variable, which is removed; None when it is unset or blank.

    Asking again gives the same value. The removal also wipes the bytes behind /proc/self/environ.
    """
    value = os.environ.get(name)
    if value is not None:
        _wipe(name, value)
        del os.environ[name]
        if value := value.strip():
            _taken[name] = value
            register_secret(value)
    return _taken.get(name)


def environment_secret(name: str) -> str | None:
    """The secret `take_secret` took, else the one in the environment now, which stays there.

    For code that may run inside somebody else's program, whose environment is not ours to change.
    """
    if value := os.environ.get(name, "").strip():
        register_secret(value)
        return value
    return _taken.get(name)


def read_secret(path: str | Path) -> str:
    """The secret in a file, without the white space around it.

    Read anew on each call, so that a rotated Secret volume takes effect. Raises SecretError naming the file.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise SecretError(f"Cannot read the secret file {path}: {error.strerror or error}.") from error
    if len(raw) > SIZE_LIMIT:
        raise SecretError(f"The secret file {path} is longer than {SIZE_LIMIT} bytes.")
    try:
        value = raw.decode().strip()
    except UnicodeDecodeError:
        # Not chained: the error's text would quote bytes of the secret.
        raise SecretError(f"The secret file {path} is not UTF-8 text.") from None
    if not value:
        raise SecretError(f"The secret file {path} is empty.")
    if not value.isprintable():
        raise SecretError(f"The secret file {path} has more than one line or unprintable characters.")
    register_secret(value)
    return value


def _wipe(name: str, value: str) -> None:
    """Overwrites the variable's bytes where the C library keeps them.

    Unsetting a variable only drops the pointer: the kernel goes on showing the block the process was started
    with in /proc/PID/environ, to anybody who shares the user.
    """
    library = ctypes.CDLL(None)
    library.getenv.restype = ctypes.c_void_p
    address = library.getenv(os.fsencode(name))
    if address and ctypes.string_at(address) == os.fsencode(value):
        ctypes.memset(address, ord("-"), len(os.fsencode(value)))
