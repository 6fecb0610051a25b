"""The queue's rules, in virtual time; the invariants first, as properties of any history."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_operator.controller.queue import (
    FIRST_BACKOFF_SECONDS,
    LONGEST_BACKOFF_SECONDS,
    Backoff,
    KeyQueue,
    Priority,
    QueueClosedError,
    WorkQueue,
)
from agent_operator.observability.metrics import Metrics
from tests.fakes.virtual_time import run_virtual

KEYS = st.sampled_from("abcd")


class QueueHistory(RuleBasedStateMachine):
    """Any sequence of adds, delays, takes and ends, against a model of what is owed to each key."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: KeyQueue[str] = KeyQueue()
        self.now = 0.0
        self.owed: set[str] = set()
        """Keys that were added after they were last taken."""
        self.delays: dict[str, float] = {}
        self.working: set[str] = set()
        self.rests: dict[str, float] = {}
        """When each resting key may be taken again."""

    @rule(key=KEYS, priority=st.sampled_from(Priority))
    def add(self, key: str, priority: Priority) -> None:
        is_new = self.queue.add(key, self.now, priority)
        assert is_new == (key not in self.owed)
        self.owed.add(key)

    @rule(key=KEYS, delay=st.floats(0.1, 50))
    def add_after(self, key: str, delay: float) -> None:
        self.queue.add_after(key, delay, self.now)
        self.delays[key] = min(self.now + delay, self.delays.get(key, float("inf")))

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.queue.promote(self.now)
        self.rests = {key: until for key, until in self.rests.items() if until > self.now}
        for key in [k for k, due in self.delays.items() if due <= self.now]:
            del self.delays[key]
            self.owed.add(key)

    @rule()
    def take(self) -> None:
        taken = self.queue.pop(self.now)
        if taken is None:
            busy = self.working | self.rests.keys()
            assert self.owed <= busy, "a key that is owed and idle must be handed out"
            return
        key, waited = taken
        assert key in self.owed, "only what was added is handed out"
        assert key not in self.working, "a key is never worked on twice at once"
        assert key not in self.rests, "a key that rests is not handed out"
        assert waited >= 0
        self.owed.discard(key)
        self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        rest = data.draw(st.sampled_from([0.0, 0.3, 20.0]))
        self.queue.done(key, self.now, rest)
        self.working.discard(key)
        if rest:
            self.rests[key] = self.now + rest

    @invariant()
    def depth_counts_what_could_be_taken_now(self) -> None:
        assert self.queue.depth() == len(self.owed - self.working - self.rests.keys())

    @invariant()
    def the_next_timer_is_the_earliest_delay_or_rest(self) -> None:
        assert self.queue.next_due() == min([*self.delays.values(), *self.rests.values()], default=None)


TestQueueHistory = QueueHistory.TestCase


def test_a_key_added_many_times_is_worked_on_once() -> None:
    queue: KeyQueue[str] = KeyQueue()
    for _ in range(5):
        queue.add("a", 0.0)
    assert queue.pop(1.0) == ("a", 1.0)
    assert queue.pop(1.0) is None


def test_a_key_added_while_worked_on_runs_once_more_and_not_before_the_work_ended() -> None:
    queue: KeyQueue[str] = KeyQueue()
    queue.add("a", 0.0)
    queue.pop(0.0)
    queue.add("a", 1.0)
    queue.add("a", 2.0)
    assert queue.pop(3.0) is None
    assert queue.done("a", 4.0) == 4.0
    assert queue.pop(4.0) == ("a", 3.0)
    queue.done("a", 5.0)
    assert queue.pop(5.0) is None


def test_changes_overtake_the_initial_list() -> None:
    queue: KeyQueue[str] = KeyQueue()
    for key in ("listed-1", "listed-2", "listed-3"):
        queue.add(key, 0.0, Priority.LOW)
    queue.add("changed", 0.0)
    queue.add("listed-3", 0.0)  # changed while waiting: it moves up
    order = [queue.pop(0.0) for _ in range(4)]
    assert [key for key, _ in filter(None, order)] == ["changed", "listed-3", "listed-1", "listed-2"]
    assert queue.pop(0.0) is None


def test_who_waits_behind_changes_goes_first_once_it_has_waited_ten_seconds_longer() -> None:
    queue: KeyQueue[str] = KeyQueue()
    queue.add("patient", 0.0, Priority.LOW)
    queue.add("early", 9.9)
    queue.add("late", 10.1)
    assert [taken[0] for _ in range(3) if (taken := queue.pop(11.0))] == ["early", "patient", "late"]


def test_of_several_delays_the_earliest_counts() -> None:
    queue: KeyQueue[str] = KeyQueue()
    queue.add_after("a", 10.0, 0.0)
    queue.add_after("a", 2.0, 0.0)
    queue.add_after("a", 5.0, 0.0)
    assert queue.promote(1.9) == 0
    assert queue.promote(2.0) == 1
    queue.pop(2.0)
    queue.done("a", 2.0)
    assert queue.promote(100.0) == 0


@given(st.integers(0, 5000), st.floats(0, 1))
def test_backoff_stays_between_five_milliseconds_and_a_thousand_seconds(failures: int, jitter: float) -> None:
    backoff: Backoff[str] = Backoff(lambda: jitter)
    backoff._failures["a"] = failures
    assert 0.75 * FIRST_BACKOFF_SECONDS <= backoff.next("a") <= LONGEST_BACKOFF_SECONDS


def test_backoff_doubles_per_key_until_forgotten() -> None:
    backoff: Backoff[str] = Backoff(lambda: 0.0)
    assert [backoff.next("a") for _ in range(4)] == [0.005, 0.01, 0.02, 0.04]
    assert backoff.next("b") == 0.005
    backoff.forget("a")
    assert backoff.next("a") == 0.005


def test_a_waiting_worker_gets_a_delayed_key_exactly_when_it_is_due() -> None:
    async def scenario() -> float:
        queue: WorkQueue[str] = WorkQueue(Metrics())
        queue.add_after("late", 100.0)
        queue.add_after("soon", 7.5)
        assert await queue.get() == "soon"
        return asyncio.get_running_loop().time()

    assert run_virtual(scenario()) == pytest.approx(7.5)


def test_every_key_reaches_exactly_one_of_many_workers() -> None:
    async def scenario() -> Counter[str]:
        queue: WorkQueue[str] = WorkQueue(Metrics())
        seen: Counter[str] = Counter()

        async def work() -> None:
            while True:
                key = await queue.get()
                seen[key] += 1
                await asyncio.sleep(0.1)
                queue.done(key)

        workers = [asyncio.create_task(work()) for _ in range(4)]
        await asyncio.sleep(0)
        for number in range(100):
            queue.add(f"key-{number}")
        await asyncio.sleep(10)
        for worker in workers:
            worker.cancel()
        return seen

    seen = run_virtual(scenario())
    assert len(seen) == 100
    assert set(seen.values()) == {1}


def test_closing_wakes_waiting_workers_and_hands_out_nothing_more() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue(Metrics())
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(1)
        queue.close()
        with pytest.raises(QueueClosedError):
            await waiting
        queue.add("a")
        with pytest.raises(QueueClosedError):
            await queue.get()

    run_virtual(scenario())


def test_metrics_follow_the_queue() -> None:
    async def scenario() -> Metrics:
        metrics = Metrics()
        queue: WorkQueue[str] = WorkQueue(metrics, jitter=lambda: 0.0)
        queue.add("a")
        queue.add("a")
        queue.add("b")
        assert _value(metrics, "workqueue_depth") == 2
        await asyncio.sleep(3)
        await queue.get()
        await asyncio.sleep(4)
        assert _value(metrics, "workqueue_longest_running_processor_seconds") == 4
        assert _value(metrics, "workqueue_unfinished_work_seconds") == 4
        queue.retry("a")
        queue.done("a")
        return metrics

    metrics = run_virtual(scenario())
    assert _value(metrics, "workqueue_adds_total") == 2
    assert _value(metrics, "workqueue_retries_total") == 1
    assert _value(metrics, "workqueue_queue_duration_seconds_sum") == 3
    assert _value(metrics, "workqueue_work_duration_seconds_sum") == 4


def _value(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"name": "agentdeployment"})
