"""Tells a run's followers that there is news. Layer: agent; asyncio only.

The one idea: what must not be lost is in the run itself (see journal), so a follower is only told up to
which event it may read, plus the pieces of text being generated, which are for watching. A follower that
does not keep up loses pieces of text and nothing else, and never makes the run wait.
"""

from __future__ import annotations

import asyncio
from collections import deque

KEPT_ITEMS = 1024

News = str | int | None
"""A piece of text; the number of events there are now; or None: look at the run again."""


class Follower:
    """One reader, of the text being generated too or of the events alone."""

    def __init__(self, text: bool) -> None:
        self.text = text
        self._items: deque[News] = deque(maxlen=KEPT_ITEMS)
        self._wake = asyncio.Event()

    def put(self, item: News) -> None:
        """There is news."""
        if isinstance(item, str) and not self.text:
            return
        self._items.append(item)
        self._wake.set()

    async def next(self, seconds: float) -> tuple[News, bool]:
        """The next news, and whether there was any within this time."""
        if not self._items:
            self._wake.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return None, False
        return self._items.popleft(), True


class Followers:
    """All readers, by run."""

    def __init__(self) -> None:
        self._by_run: dict[str, set[Follower]] = {}

    def join(self, run_id: str, text: bool = True) -> Follower:
        """A new reader of this run."""
        follower = Follower(text)
        self._by_run.setdefault(run_id, set()).add(follower)
        return follower

    def leave(self, run_id: str, follower: Follower) -> None:
        """It reads no more."""
        readers = self._by_run.get(run_id, set())
        readers.discard(follower)
        if not readers:
            self._by_run.pop(run_id, None)

    def tell(self, run_id: str, item: News) -> None:
        """News for the readers of this run."""
        for follower in self._by_run.get(run_id, ()):
            follower.put(item)

    def watch_text(self, run_id: str) -> bool:
        """Whether anybody reads the text as it is generated."""
        return any(follower.text for follower in self._by_run.get(run_id, ()))
