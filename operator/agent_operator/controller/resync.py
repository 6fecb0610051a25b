"""The slow safety net. Layer: controller; knows nothing of agents.

The one idea: watches are trusted but verified. Now and then everything is listed again (which finds
deletions a broken watch did not tell) and every key is queued at a random moment of the period, at low
priority, so the net costs a trickle and never a wave.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from agent_operator.controller.informer import Informer
from agent_operator.controller.queue import Priority, WorkQueue
from agent_operator.shell.kube import Kube, KubeError

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

SETTLE_SECONDS = 30.0
"""When the list is first verified: what was deleted between our list and the watch's shows then."""

RETRY_SECONDS = 30.0


async def resync(
    kube: Kube,
    informer: Informer[K],
    queue: WorkQueue[K],
    keys: Callable[[], Iterable[K]],
    *,
    period: float,
    jitter: Callable[[], float] = random.random,
) -> None:
    """Run forever; `period` in seconds, each round up to a tenth longer. Never raises KubeError."""
    wait = min(SETTLE_SECONDS, period)
    rounds = 0
    while True:
        await asyncio.sleep(wait)
        try:
            news = await informer.sync(kube)
        except KubeError as error:
            logger.warning("resync could not list: %s", error)
            wait = min(RETRY_SECONDS, period)
            continue
        if news and rounds:
            logger.info("resync found %d objects the watches had not told about", news)
        if rounds:
            for key in keys():
                queue.add_after(key, period * jitter(), Priority.LOW)
        rounds += 1
        wait = period * (1 + 0.1 * jitter())
