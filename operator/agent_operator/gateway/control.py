"""GET /demand: who waits, told at once. Layer: gateway; imports aiohttp.

The one idea: the operator asks and is kept waiting until there is news, so a wake costs one round trip and
the gateway no right to write. Answers to one who asks again at once are ANSWER_SECONDS apart at least.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web

from agent_operator.api.gateway import DEMAND_PATH, LONGEST_WAIT_SECONDS, AgentDemand, Demand
from agent_operator.gateway.core.demand import ANSWER_SECONDS, Board


class DemandPage:
    """The route and the waiting behind it."""

    def __init__(self, board: Board, demand: Callable[[], Mapping[str, AgentDemand]]) -> None:
        self._board, self._demand = board, demand
        self._news = asyncio.Event()
        self._announced = float("-inf")
        self._closing = False

    def note(self, agent: str, held: int) -> None:
        """An agent has so many held requests."""
        if self._board.note(agent, held):
            self._wake()

    def close(self) -> None:
        """Let nobody wait any longer."""
        self._closing = True
        self._wake()

    def routes(self) -> list[web.RouteDef]:
        """To be added to the control port."""
        return [web.get(DEMAND_PATH, self._answer)]

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            wait = min(LONGEST_WAIT_SECONDS, max(0.0, float(request.query.get("wait", "0"))))
        except ValueError:
            return web.Response(status=400, text="wait must be a number of seconds")
        since = request.query.get("since", "")
        if wait:
            await self._news_since(since, wait)
        body = Demand(version=self._board.version, agents=dict(self._demand())).encode()
        return web.Response(text=body, content_type="application/json")

    async def _news_since(self, since: str, wait: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        while since == self._board.version and not self._closing and loop.time() < end:
            news = self._news
            try:
                async with asyncio.timeout(end - loop.time()):
                    await news.wait()
            except TimeoutError:
                return
        # What else arrives in this moment is in the same answer.
        pause = self._announced + ANSWER_SECONDS - loop.time()
        if pause > 0 and not self._closing:
            await asyncio.sleep(min(pause, max(0.0, end - loop.time())))
        self._announced = loop.time()
