"""The load: creates, edits and deletes many objects over a few connections. Layer: tooling.

The one idea: as fast as the API server takes it, or paced; what came of it is read from the audit log, not
here. It reuses the operator's connection, which knows how to read a kubeconfig.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agent_operator.observability.metrics import Metrics
from agent_operator.shell.connection import Connection
from agent_operator.shell.credentials import load_credentials

CONNECTIONS = 16
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


Job = Callable[[], Awaitable[object]]


class Client:
    """The administrator's requests. Use as an async context manager."""

    async def __aenter__(self) -> Client:
        self._connection = Connection(await load_credentials(), Metrics())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def send(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """One request; its JSON answer. Raises RuntimeError for anything but success and 404 of a delete."""
        async with self._connection.session.request(
            method,
            self._connection.url(path),
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": kind},
        ) as response:
            answer = await response.text()
            if response.status >= 300 and not (method == "DELETE" and response.status == 404):
                raise RuntimeError(f"{method} {path}: {response.status} {answer[:500]}")
            return json.loads(answer)

    def job(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Job:
        """The same, to be done later."""
        return lambda: self.send(method, path, body, kind)

    async def apply(self, path: str, body: dict[str, Any], manager: str) -> Any:
        """Server-side apply."""
        return await self.send("PATCH", f"{path}?fieldManager={manager}&force=true", body, APPLY)


async def in_parallel(work: Sequence[Job], *, per_second: float | None = None) -> None:
    """Does all of it over CONNECTIONS at once, begun at most `per_second`."""
    free = asyncio.Semaphore(CONNECTIONS)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(number: int, job: Job) -> None:
        if per_second is not None:
            await asyncio.sleep(began + number / per_second - loop.time())
        async with free:
            await job()

    async with asyncio.TaskGroup() as group:
        for number, job in enumerate(work):
            group.create_task(one(number, job))


def run(session: Callable[[Client], Awaitable[None]]) -> None:
    """Runs one session of requests to its end."""

    async def main() -> None:
        async with Client() as client:
            await session(client)

    asyncio.run(main())
