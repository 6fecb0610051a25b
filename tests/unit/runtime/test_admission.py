"""The queue is bounded, fair, and loses no slot."""

from __future__ import annotations

import asyncio

import pytest

from agent_runtime.admission import Admission, Load, QueueFullError


async def test_slots_then_queue_then_refusal() -> None:
    admission = Admission(max_concurrency=2, max_queued_requests=1)
    await admission.acquire()
    await admission.acquire()
    waiting = asyncio.create_task(admission.acquire())
    await asyncio.sleep(0)

    with pytest.raises(QueueFullError) as refused:
        await admission.acquire()

    assert refused.value.retry_after >= 1
    assert admission.load == Load(running=2, waiting=1)
    admission.release(0.1)
    await waiting
    assert admission.load == Load(running=2, waiting=0)


async def test_a_queue_of_length_zero_refuses_at_once() -> None:
    admission = Admission(1, 0)
    await admission.acquire()

    with pytest.raises(QueueFullError):
        await admission.acquire()


async def test_a_request_that_leaves_the_queue_takes_nothing_with_it() -> None:
    admission = Admission(1, 1)
    await admission.acquire()
    leaver = asyncio.create_task(admission.acquire())
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    stayer = asyncio.create_task(admission.acquire())
    await asyncio.sleep(0)

    admission.release(0.1)
    await stayer

    assert admission.load == Load(running=1, waiting=0)


async def test_places_are_given_in_order_of_arrival() -> None:
    admission, order = Admission(1, 10), []

    async def one(number: int) -> None:
        await admission.acquire()
        order.append(number)
        admission.release(0.0)

    await admission.acquire()
    tasks = [asyncio.create_task(one(number)) for number in range(5)]
    await asyncio.sleep(0)
    admission.release(0.0)
    await asyncio.gather(*tasks)

    assert order == [0, 1, 2, 3, 4]
    assert admission.load == Load(0, 0)


async def test_a_thousand_requests_with_random_departures_leave_nothing_behind() -> None:
    admission, most = Admission(4, 1000), 0

    async def one(number: int) -> None:
        nonlocal most
        await admission.acquire()
        most = max(most, admission.load.running)
        try:
            await asyncio.sleep(0)
        finally:
            admission.release(0.0)

    tasks = [asyncio.create_task(one(number)) for number in range(1000)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert admission.load == Load(0, 0)
    assert most == 4
