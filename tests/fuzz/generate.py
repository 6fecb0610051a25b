"""Writes requests made from an OpenAPI document, one JSON object a line. Layer: tests.

`python -m tests.fuzz.generate DOCUMENT --seed S --count N --share I/K`: first what schemathesis derives from
the document by rule (every bound and every way to miss it), then what it draws at random, valid and invalid,
until there are N. The one idea: making a request costs more than answering it, so it is a process of its own,
of which K share the work. The same arguments give the same requests.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

BASE = "http://fuzz"
ROUND = 40
"""Random requests of one endpoint and mode before the next has its turn."""
NEGATIVE_SHARE = 2
"""One invalid round in so many: schemathesis needs ten times as long for them, and most of what it derives by
rule is invalid."""


def line(case: schemathesis.Case) -> str | None:
    """The request as it goes over the wire; None when HTTP cannot say it."""
    try:
        sent = requests.Request(**_known(case.as_transport_kwargs(base_url=BASE))).prepare()
    except (requests.RequestException, UnicodeError, ValueError):
        return None
    body = sent.body or b""
    data = body.encode() if isinstance(body, str) else body
    if not isinstance(data, bytes):
        return None
    headers = []
    for name, value in sent.headers.items():
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if name.lower() not in ("content-length", "transfer-encoding"):
            headers.append((name, text))
    return json.dumps(
        {
            "operation": case.operation.label,
            "mode": case.meta.generation.mode.value if case.meta else "",
            "method": sent.method,
            "target": (sent.url or "").removeprefix(BASE) or "/",
            "headers": headers,
            "body": base64.b64encode(data).decode(),
        }
    )


def _known(arguments: dict[str, Any]) -> dict[str, Any]:
    names = ("method", "url", "headers", "files", "data", "params", "auth", "cookies", "json")
    return {name: value for name, value in arguments.items() if name in names}


def by_rule(schema: Any, operations: list[Any]) -> Iterator[schemathesis.Case]:
    """What follows from each operation's bounds."""
    for operation in operations:
        yield from schema.iter_coverage_cases(
            operation,
            generation_modes=list(GenerationMode),
            generation_config=schema.config.generation_for(operation=operation),
        )


def drawn(operation: Any, mode: GenerationMode, number: int, take: Callable[[Any], None]) -> None:
    """ROUND random cases of one operation, by a seed."""

    @seed(number)
    @settings(
        max_examples=ROUND, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def collect(case: schemathesis.Case) -> None:
        take(case)

    try:
        collect()
    except Unsatisfiable:  # an operation without parameters has nothing invalid
        return


class Writer:
    """Prints requests until there are enough."""

    def __init__(self, count: int) -> None:
        self.left = count

    def take(self, case: schemathesis.Case) -> None:
        """One request."""
        if self.left > 0 and (text := line(case)) is not None:
            print(text)
            self.left -= 1


def write(document: dict[str, Any], number: int, count: int, share: tuple[int, int]) -> None:
    """This share of the requests."""
    schema = schemathesis.openapi.from_dict(document)
    first, every = share
    operations = [found.ok() for found in schema.get_all_operations()]
    writer = Writer(count)
    for case in by_rule(schema, operations[first::every]):
        writer.take(case)
    varied = [operation for operation in operations if _varies(operation)]
    turn = first
    while writer.left > 0:
        for operation in varied:
            drawn(operation, GenerationMode.POSITIVE, number + turn, writer.take)
            if turn // every % NEGATIVE_SHARE == 0:
                drawn(operation, GenerationMode.NEGATIVE, number + turn, writer.take)
            if writer.left == 0:
                return
        turn += every
        sys.stdout.flush()


def _varies(operation: Any) -> bool:
    """Whether there is anything to vary: a body, or an id in the path."""
    return bool(operation.body) or "{id}" in operation.path


def main() -> None:
    """See the module's docstring."""
    options = argparse.ArgumentParser()
    options.add_argument("document", type=Path)
    options.add_argument("--seed", type=int, required=True)
    options.add_argument("--count", type=int, required=True)
    options.add_argument("--share", default="0/1")
    given_ = options.parse_args()
    first, every = map(int, given_.share.split("/"))
    write(json.loads(given_.document.read_text()), given_.seed, given_.count, (first, every))


if __name__ == "__main__":
    main()
