"""The queue is bounded, fair, and loses no slot."""

from __future__ import annotations

import asyncio

import pytest

from agent_runtime.admission import Admission, Load, QueueFullError


def admission(slots: int, queued: int, tokens: int = 1000) -> Admission:
    """An admission with these bounds."""
    return Admission(slots, queued, tokens)


async def waiting(queue: Admission, slots: int = 1, tokens: int = 0) -> asyncio.Task[None]:
    """A request that waits."""
    task = asyncio.create_task(queue.acquire(slots, tokens))
    await asyncio.sleep(0)
    return task


async def test_slots_then_queue_then_refusal() -> None:
    queue = admission(2, 1)
    await queue.acquire()
    await queue.acquire()
    waiting = asyncio.create_task(queue.acquire())
    await asyncio.sleep(0)

    with pytest.raises(QueueFullError) as refused:
        await queue.acquire()

    assert refused.value.retry_after >= 1
    assert queue.load == Load(running=2, waiting=1)
    queue.release(0.1)
    await waiting
    assert queue.load == Load(running=2, waiting=0)


async def test_a_queue_of_length_zero_refuses_at_once() -> None:
    queue = admission(1, 0)
    await queue.acquire()

    with pytest.raises(QueueFullError):
        await queue.acquire()


async def test_a_request_that_leaves_the_queue_takes_nothing_with_it() -> None:
    queue = admission(1, 1)
    await queue.acquire()
    leaver = asyncio.create_task(queue.acquire())
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    stayer = asyncio.create_task(queue.acquire())
    await asyncio.sleep(0)

    queue.release(0.1)
    await stayer

    assert queue.load == Load(running=1, waiting=0)


async def test_places_are_given_in_order_of_arrival() -> None:
    queue, order = admission(1, 10), []

    async def one(number: int) -> None:
        await queue.acquire()
        order.append(number)
        queue.release(0.0)

    await queue.acquire()
    tasks = [asyncio.create_task(one(number)) for number in range(5)]
    await asyncio.sleep(0)
    queue.release(0.0)
    await asyncio.gather(*tasks)

    assert order == [0, 1, 2, 3, 4]
    assert queue.load == Load(0, 0)


async def test_a_thousand_requests_with_random_departures_leave_nothing_behind() -> None:
    queue, most = admission(4, 1000), 0

    async def one(number: int) -> None:
        nonlocal most
        await queue.acquire()
        most = max(most, queue.load.running)
        try:
            await asyncio.sleep(0)
        finally:
            queue.release(0.0)

    tasks = [asyncio.create_task(one(number)) for number in range(1000)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert queue.load == Load(0, 0)
    assert most == 4


async def test_the_queue_is_bounded_in_tokens_but_one_request_may_be_as_long_as_it_is() -> None:
    queue = admission(1, 10, tokens=100)
    await queue.acquire()
    long = await waiting(queue, tokens=5000)

    with pytest.raises(QueueFullError) as refused:
        await queue.acquire(tokens=1)

    assert refused.value.bound == "the token queue"
    assert queue.load == Load(running=1, waiting=1, waiting_tokens=5000)
    queue.release(0.1)
    await long
    assert queue.load == Load(running=1, waiting=0)


async def test_a_request_for_several_slots_waits_for_all_of_them_and_is_not_overtaken() -> None:
    queue = admission(4, 10)
    await queue.acquire(3)
    wide, narrow = await waiting(queue, slots=3), await waiting(queue)

    assert queue.load.waiting == 2
    queue.release(0.1, 3)
    await asyncio.gather(wide, narrow)

    assert queue.load == Load(running=4, waiting=0)


async def test_a_request_wider_than_the_server_runs_alone() -> None:
    queue = admission(2, 10)
    await queue.acquire()
    wide = await waiting(queue, slots=5)

    queue.release(0.1)
    await wide

    assert queue.load.running == 5


async def test_more_slots_are_given_to_who_waits_and_fewer_turn_nobody_away() -> None:
    queue = admission(1, 10)
    await queue.acquire()
    second = await waiting(queue)

    queue.resize(2, 0, 1000)
    await second
    queue.resize(1, 0, 1000)

    assert queue.load == Load(running=2, waiting=0)
    with pytest.raises(QueueFullError):
        await queue.acquire()


async def test_a_request_that_leaves_at_the_moment_of_its_turn_gives_the_slot_back() -> None:
    queue = admission(1, 10)
    await queue.acquire()
    leaver, stayer = await waiting(queue), await waiting(queue)

    queue.release(0.1)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    await stayer

    assert queue.load == Load(running=1, waiting=0)
