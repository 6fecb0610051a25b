"""The store in Redis (extra `redis`), shared by the replicas of an agent. Layer: agent, shell.

The one idea: optimistic locking. `update` watches the key, computes, and writes only if nobody wrote in
between (WATCH, MULTI, EXEC); otherwise it computes again from what is there now. A claim is a key that
expires, renewed and given up by scripts that compare the owner first. Any RedisError becomes
StoreUnavailableError, whose message never holds the URL, because a URL holds a password.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from agent_runtime.agent.errors import StoreUnavailableError
from agent_runtime.agent.store import Change

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("agent_runtime.agent")

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
DOWN_SECONDS = 1.0
"""After a failure everything fails at once for so long: a Redis that swallows packets must not make every
checkpoint of every run wait for its time limits."""
MAX_CONNECTIONS = 64
MAX_CONFLICTS = 50

_CLAIM = """
local holder = redis.call('get', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end
return 1
"""


def key_prefix(namespace: str, name: str) -> str:
    """What every key of this agent begins with."""
    return f"agent-runtime:{namespace}/{name}:"


class RedisStore:
    """Keys begin with `prefix` and live `ttl_seconds` after their last write."""

    durable = True

    def __init__(self, url: str, prefix: str, ttl_seconds: float = 3600.0) -> None:
        """Connects at the first use. Raises RuntimeError without the extra `redis`, ValueError for a bad
        URL."""
        try:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import ExponentialWithJitterBackoff
        except ImportError:
            raise RuntimeError(
                "agent.sessions.store Redis needs the extra 'redis': pip install 'agent-operator[redis]'"
            ) from None
        self._prefix, self.ttl_seconds = prefix, ttl_seconds
        self._down_until = 0.0
        try:
            self._redis: Redis = Redis.from_url(
                url,
                socket_connect_timeout=CONNECT_SECONDS,
                socket_timeout=ANSWER_SECONDS,
                max_connections=MAX_CONNECTIONS,
                retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), 2),
            )
        except ValueError:
            raise ValueError(
                "agent.sessions.redis_url_file: the file must hold a redis:// or rediss:// URL"
            ) from None

    async def get(self, key: str) -> bytes | None:
        """See Store."""
        async with self._answering():
            return _bytes(await self._redis.get(self._prefix + key))

    async def update(self, key: str, change: Change, ttl_seconds: float | None = None) -> bytes | None:
        """See Store."""
        from redis.exceptions import WatchError

        name, lifetime = self._prefix + key, self.ttl_seconds if ttl_seconds is None else ttl_seconds
        async with self._answering(), self._redis.pipeline(transaction=True) as pipe:
            for _ in range(MAX_CONFLICTS):
                await pipe.watch(name)
                value = change(_bytes(await pipe.get(name)))
                pipe.multi()
                if value is None:
                    pipe.delete(name)
                else:
                    pipe.set(name, value, px=max(1, int(lifetime * 1000)))
                try:
                    await pipe.execute()
                except WatchError:
                    continue
                return value
        raise StoreUnavailableError(f"{MAX_CONFLICTS} conflicting writes in a row")

    async def delete(self, key: str) -> bool:
        """See Store."""
        async with self._answering():
            return bool(await self._redis.delete(self._prefix + key))

    async def add(self, key: str, member: str) -> None:
        """See Store."""
        async with self._answering():
            await self._answer(self._redis.sadd(self._prefix + key, member))

    async def discard(self, key: str, member: str) -> None:
        """See Store."""
        async with self._answering():
            await self._answer(self._redis.srem(self._prefix + key, member))

    async def members(self, key: str) -> set[str]:
        """See Store."""
        async with self._answering():
            found = await self._answer(self._redis.smembers(self._prefix + key))
            return {member.decode() for member in found}

    async def claim(self, key: str, owner: str, seconds: float) -> bool:
        """See Store."""
        async with self._answering():
            milliseconds = str(max(1, int(seconds * 1000)))
            held = self._redis.eval(_CLAIM, 1, self._prefix + key, owner, milliseconds)
            return bool(await self._answer(held))

    async def release(self, key: str, owner: str) -> None:
        """See Store."""
        async with self._answering():
            await self._answer(self._redis.eval(_RELEASE, 1, self._prefix + key, owner))

    async def close(self) -> None:
        """See Store."""
        await self._redis.aclose()

    @staticmethod
    async def _answer(command: Any) -> Any:
        """redis-py types its commands as either an answer or an awaitable; here they are the latter."""
        return await command

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        from redis.exceptions import RedisError

        if time.monotonic() < self._down_until:
            raise StoreUnavailableError("it did not a moment ago")
        try:
            yield
        except (RedisError, OSError) as error:
            self._down_until = time.monotonic() + DOWN_SECONDS
            log.warning("redis does not answer: %s", type(error).__name__)
            raise StoreUnavailableError(type(error).__name__) from error


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)
