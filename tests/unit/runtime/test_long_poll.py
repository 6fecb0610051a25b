"""A poll is answered when there is news, and costs nobody anything until then."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

import pytest

from agent_runtime.admission import Admission
from agent_runtime.api.errors import ApiError
from agent_runtime.api.long_poll import PACE_SECONDS, Changes, LongPoll, Moment, Poll, poll_of
from agent_runtime.state import Work

DEADLINE = 60.0
READY, DRAINING = "READY", "DRAINING"


class World:
    """What is so now, and the polls that wait for it to change. The pace goes by `now`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.moment = Moment(0, READY)
        self.changes = Changes()
        self.polls = LongPoll(self.changes, lambda: self.moment, lambda: self.now)
        self.tasks: list[asyncio.Task[None]] = []

    def poll(
        self, load: int, *, wait: float = 600, state: str | None = None, connection: str = "a"
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(self.polls.hold(Poll(wait, load, state), connection))
        self.tasks.append(task)
        return task

    def becomes(self, load: int, state: str = READY, work: Work = Work.IDLE) -> None:
        self.moment = Moment(load, state, work)
        self.changes.tell()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def answered(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(DEADLINE):
        await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0)


async def held(world: World, task: asyncio.Task[None]) -> None:
    """The poll waits for a change."""
    await until(lambda: world.changes.waiting > 0 or task.done())
    assert not task.done()


async def test_a_poll_that_knows_another_load_is_answered_at_once(world: World) -> None:
    world.moment = Moment(3, READY)

    await answered(world.poll(2))
    await answered(world.poll(4, connection="b"))


async def test_a_poll_that_knows_what_is_so_is_answered_by_the_first_change(world: World) -> None:
    waiting = world.poll(0)
    await held(world, waiting)

    world.becomes(1)

    await answered(waiting)


async def test_a_change_that_is_over_when_it_is_looked_at_is_none(world: World) -> None:
    waiting = world.poll(0)
    await held(world, waiting)

    world.becomes(1)
    world.becomes(0)
    await until(lambda: world.changes.waiting > 0)

    assert not waiting.done()


@pytest.mark.parametrize("state", [None, READY])
async def test_another_state_answers_whether_it_was_named_or_found(world: World, state: str | None) -> None:
    waiting = world.poll(0, state=state)
    await held(world, waiting)

    world.becomes(0, DRAINING)

    await answered(waiting)


async def test_a_poll_that_knows_another_state_is_answered_at_once(world: World) -> None:
    await answered(world.poll(0, state="LOADING"))


async def test_an_engine_that_stalls_answers_although_nobody_tells(world: World) -> None:
    world.moment = Moment(1, READY, Work.BUSY)
    waiting = world.poll(1)
    await held(world, waiting)

    world.moment = Moment(1, READY, Work.STALLED)

    await answered(waiting)


async def test_a_stalled_engine_is_told_once_and_not_again_and_again(world: World) -> None:
    world.moment = Moment(1, READY, Work.STALLED)
    waiting = world.poll(1)
    await held(world, waiting)

    world.becomes(1, work=Work.BUSY)

    await answered(waiting)


async def test_without_a_change_it_is_answered_when_its_time_is_over(world: World) -> None:
    await answered(world.poll(0, wait=0))
    waiting = world.poll(0, wait=30, connection="b")
    await held(world, waiting)

    world.now += 30
    world.changes.tell()

    await answered(waiting)


async def test_under_steady_change_one_connection_is_answered_every_half_second(world: World) -> None:
    known, times = 0, []
    world.becomes(1)
    for _ in range(4):
        asked = world.poll(known)
        while not asked.done():
            world.becomes(world.moment.load + 1)
            world.now += 0.05
            await asyncio.sleep(0.01)
        times.append(world.now)
        known = world.moment.load

    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(gap >= PACE_SECONDS - 0.05 for gap in gaps), gaps


async def test_the_pace_of_one_connection_holds_up_no_other_and_ends_with_the_wait(world: World) -> None:
    world.moment = Moment(1, READY)
    await answered(world.poll(0))
    paced = world.poll(0)
    await answered(world.poll(0, connection="b"))

    assert not paced.done()
    world.now += PACE_SECONDS
    await answered(paced)


async def test_a_rise_after_a_quiet_time_is_answered_at_once(world: World) -> None:
    world.moment = Moment(1, READY)
    await answered(world.poll(0))
    waiting = world.poll(1)
    await held(world, waiting)
    world.now += 10

    world.becomes(2)
    for _ in range(10):
        await asyncio.sleep(0)  # turns of the loop, no time

    assert waiting.done()


async def test_the_end_answers_everybody_and_holds_nobody_any_more(world: World) -> None:
    world.moment = Moment(1, READY)
    await answered(world.poll(0))
    waiting, paced = world.poll(1, connection="b"), world.poll(0)
    await held(world, waiting)

    world.changes.close()

    await answered(waiting)
    await answered(paced)
    await answered(world.poll(1))


async def test_whoever_leaves_leaves_nothing_behind(world: World) -> None:
    waiting = [world.poll(0, connection=str(number)) for number in range(8)]
    await until(lambda: world.changes.waiting == 8)

    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert (world.changes.waiting, world.polls.remembered) == (0, 0)
    await answered(world.poll(1))
    assert world.polls.remembered == 1
    await until(lambda: world.polls.remembered == 0)


async def test_every_way_into_and_out_of_admission_is_a_change() -> None:
    changes: list[tuple[int, int]] = []
    admission = Admission(1, 4, 100, lambda: changes.append((admission.load.running, admission.load.waiting)))

    await admission.acquire()
    second, third = (asyncio.create_task(admission.acquire()) for _ in range(2))
    await until(lambda: admission.load.waiting == 2)
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    admission.release(0.1)
    await second
    admission.release(0.1)

    assert [load for load, last in zip(changes, [None, *changes], strict=False) if load != last] == [
        (1, 0), (1, 1), (1, 2), (1, 1), (1, 0), (0, 0),
    ]  # fmt: skip


def test_without_wait_nothing_is_a_poll() -> None:
    assert poll_of({}) is None
    assert poll_of({"load": "nonsense", "state": "?"}) is None


@pytest.mark.parametrize(
    ("query", "poll"),
    [
        ({"wait": "10", "load": "0"}, Poll(10, 0)),
        ({"wait": "0.5", "load": "17", "state": "LOADING"}, Poll(0.5, 17, "LOADING")),
        ({"wait": "60", "load": "1", "other": "x"}, Poll(60, 1)),
    ],
)
def test_a_poll_is_read_from_its_query(query: dict[str, str], poll: Poll) -> None:
    assert poll_of(query) == poll


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"wait": "10"}, "load"),
        *(({"wait": text, "load": "0"}, "wait") for text in ("", "x", "-1", "61", "nan", "inf", "1e999")),
        *(({"wait": "1", "load": text}, "load") for text in ("", "x", "-1", "1.5", "²", "1" * 5000)),
        *(({"wait": "1", "load": "0", "state": text}, "state") for text in ("", "ready", "GONE")),
    ],
)
def test_a_query_that_cannot_be_understood_is_refused_by_name(query: dict[str, str], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        poll_of(query)

    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "invalid_value", param)
