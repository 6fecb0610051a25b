"""The store, in memory and in a real Redis, by the same tests; and what only one of them does."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from agent_runtime.agent.errors import ConflictError, StoreUnavailableError
from agent_runtime.agent.redis_store import RedisStore, key_prefix
from agent_runtime.agent.store import MemoryStore, Store
from tests.support.redis_server import RedisServer


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    made = RedisStore(server.url, key_prefix("test", uuid.uuid4().hex))
    yield made
    await made.close()


async def test_a_value_is_read_changed_and_deleted(store: Store) -> None:
    assert await store.get("run:1") is None

    assert await store.update("run:1", lambda old: b"a" if old is None else b"wrong") == b"a"
    assert await store.update("run:1", lambda old: (old or b"") + b"b") == b"ab"
    assert await store.get("run:1") == b"ab"

    assert await store.update("run:1", lambda old: None) is None
    assert await store.get("run:1") is None
    assert not await store.delete("run:1")


async def test_what_a_change_raises_comes_through_and_changes_nothing(store: Store) -> None:
    await store.update("run:1", lambda old: b"a")

    def refuse(old: bytes | None) -> bytes:
        raise ConflictError("1")

    with pytest.raises(ConflictError):
        await store.update("run:1", refuse)
    assert await store.get("run:1") == b"a"


async def test_no_change_is_lost_however_many_happen_at_once(store: Store) -> None:
    async def append(number: int) -> None:
        await store.update("session:1", lambda old: (old or b"") + bytes([number]))

    await asyncio.gather(*(append(number) for number in range(30)))

    assert sorted(await store.get("session:1") or b"") == list(range(30))


async def test_an_entry_expires_after_its_last_write(store: Store) -> None:
    await store.update("run:1", lambda old: b"a", 0.01)
    await store.update("run:2", lambda old: b"a", 60)
    while await store.get("run:1") is not None:
        await asyncio.sleep(0.005)

    assert await store.get("run:2") == b"a"


async def test_sets_have_members(store: Store) -> None:
    await store.add("live", "a")
    await store.add("live", "b")
    await store.add("live", "a")
    await store.discard("live", "b")
    await store.discard("live", "never there")

    assert await store.members("live") == {"a"}
    assert await store.members("other") == set()


async def test_a_claim_is_held_by_one_until_it_is_released_or_expires(store: Store) -> None:
    assert await store.claim("claim:1", "me", 60)
    assert await store.claim("claim:1", "me", 60)
    assert not await store.claim("claim:1", "other", 60)

    await store.release("claim:1", "other")
    assert not await store.claim("claim:1", "other", 60)
    await store.release("claim:1", "me")
    assert await store.claim("claim:1", "other", 0.01)

    while not await store.claim("claim:1", "me", 60):
        await asyncio.sleep(0.005)


class Clock:
    """A time that only moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_memory_drops_what_was_written_longest_ago_of_the_same_kind() -> None:
    store = MemoryStore(max_entries=2)
    for key in ("session:1", "run:1", "session:2", "session:3"):
        await store.update(key, lambda old: b"x")

    assert await store.get("session:1") is None
    assert [await store.get(key) for key in ("run:1", "session:2", "session:3")] == [b"x"] * 3


async def test_writing_again_makes_an_entry_young() -> None:
    store = MemoryStore(max_entries=2)
    for key in ("session:1", "session:2", "session:1", "session:3"):
        await store.update(key, lambda old: b"x")

    assert await store.get("session:2") is None
    assert await store.get("session:1") == b"x"


async def test_memory_is_bounded_in_bytes() -> None:
    store = MemoryStore(max_bytes=1000)
    for number in range(10):
        await store.update(f"run:{number}", lambda old: b"x" * 300)

    assert len(store) == 3
    assert await store.get("run:9") is not None


async def test_an_expired_entry_is_gone_from_memory_once_it_was_asked_for() -> None:
    clock = Clock()
    store = MemoryStore(ttl_seconds=10, clock=clock)
    await store.update("run:1", lambda old: b"x")

    clock.now = 10
    assert await store.get("run:1") is None
    assert len(store) == 0


async def test_two_agents_in_one_redis_do_not_see_each_other(redis_server: RedisServer) -> None:
    one = RedisStore(redis_server.url, key_prefix("ns", "one"))
    two = RedisStore(redis_server.url, key_prefix("ns", "two"))
    await one.update("run:1", lambda old: b"x")

    assert await two.get("run:1") is None
    assert await one._redis.keys("agent-runtime:ns/one:*") == [b"agent-runtime:ns/one:run:1"]
    await one.close()
    await two.close()


async def test_a_redis_that_is_down_is_an_error_that_names_what_to_check_and_no_secret() -> None:
    store = RedisStore("redis://:hunter2@127.0.0.1:1/0", "p:")

    for operation in (
        store.get("run:1"),
        store.update("run:1", lambda old: b"x"),
        store.delete("run:1"),
        store.add("live", "a"),
        store.members("live"),
        store.claim("claim:1", "me", 1),
        store.release("claim:1", "me"),
    ):
        with pytest.raises(StoreUnavailableError) as error:
            await operation
        assert "agent.sessions.redis_url_file" in error.value.message
        assert "hunter2" not in error.value.message
    await store.close()


async def test_redis_serves_again_once_it_is_back(monkeypatch) -> None:
    monkeypatch.setattr("agent_runtime.agent.redis_store.DOWN_SECONDS", 0.05)
    with RedisServer() as server:
        store = RedisStore(server.url, "p:")
        await store.update("run:1", lambda old: b"x")
        server.stop()
        with pytest.raises(StoreUnavailableError):
            await store.get("run:1")

        server.start()

        while await _down(store):
            await asyncio.sleep(0.01)
        await store.update("run:1", lambda old: b"x")
        await store.close()


async def _down(store: RedisStore) -> bool:
    try:
        return await store.get("run:1") is not None
    except StoreUnavailableError:
        return True


async def test_after_a_failure_a_redis_is_left_alone_for_a_moment() -> None:
    """One that swallows packets would else make everybody wait for its time limits."""
    store = RedisStore("redis://127.0.0.1:1/0", "p:")
    with pytest.raises(StoreUnavailableError, match="ConnectionError"):
        await store.get("run:1")

    with pytest.raises(StoreUnavailableError, match="a moment ago"):
        await store.get("run:1")
    await store.close()


def test_a_url_that_is_none_is_refused_by_its_field() -> None:
    with pytest.raises(ValueError, match=r"redis_url_file: .* redis:// or rediss:// URL"):
        RedisStore("not a url", "p:")
