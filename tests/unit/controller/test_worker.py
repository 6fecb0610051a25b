"""Nothing a reconcile does may stop its worker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent_operator.controller.queue import WorkQueue
from agent_operator.controller.worker import REST_SECONDS, Workers
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.kube import InvalidError, UnavailableError
from tests.fakes.virtual_time import run_virtual


@dataclass
class Done:
    retry: bool = False
    requeue_after: float | None = None
    patient: bool = False
    repeated: bool = False


class Bench:
    """Workers over a scripted reconcile; `calls` are (time, key)."""

    def __init__(self, script: Callable[[str, int], Awaitable[Done]], count: int = 1) -> None:
        self.metrics = Metrics()
        self.queue: WorkQueue[str] = WorkQueue(self.metrics, jitter=lambda: 0.0)
        self.calls: list[tuple[float, str]] = []
        self._script = script
        self.workers = Workers(self.queue, self._reconcile, self.metrics, count=count, timeout=30)

    async def _reconcile(self, key: str) -> Done:
        self.calls.append((round(asyncio.get_running_loop().time(), 4), key))
        return await self._script(key, len(self.calls))

    async def run(self, *keys: str, seconds: float) -> None:
        task = asyncio.create_task(self.workers.run())
        for key in keys:
            self.queue.add(key)
        await asyncio.sleep(seconds)
        self.queue.close()
        await task

    def count(self, result: str) -> float | None:
        labels = {"controller": "agentdeployment", "result": result}
        return self.metrics.registry.get_sample_value("agentoperator_reconcile_total", labels)


def play(bench: Bench, *keys: str, seconds: float = 1000) -> Bench:
    run_virtual(bench.run(*keys, seconds=seconds))
    return bench


def test_an_error_is_retried_with_growing_pauses_until_it_succeeds() -> None:
    async def script(_: str, call: int) -> Done:
        if call < 4:
            raise UnavailableError("down")
        return Done()

    bench = play(Bench(script), "a")
    assert [at for at, _ in bench.calls] == [0.0, 0.005, 0.015, 0.035]
    assert bench.count("error") == 3
    assert bench.count("success") == 1


def test_keys_that_need_no_request_let_others_run_in_between() -> None:
    async def script(_: str, __: int) -> Done:
        return Done()

    bench = Bench(script)
    turns: list[int] = []

    async def lease() -> None:
        while len(bench.calls) < 50:
            turns.append(len(bench.calls))
            await asyncio.sleep(0)

    async def scenario() -> None:
        await asyncio.gather(bench.run(*(f"key-{n}" for n in range(50)), seconds=1), lease())

    run_virtual(scenario())
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 2


def test_an_error_that_never_ends_is_tried_a_handful_of_times_an_hour() -> None:
    async def script(_: str, __: int) -> Done:
        raise UnavailableError("down")

    bench = play(Bench(script), "a", seconds=3600)
    assert 18 <= len(bench.calls) <= 22


def test_what_can_never_succeed_is_not_tried_again() -> None:
    async def script(_: str, __: int) -> Done:
        raise InvalidError("spec.ports: required")

    bench = play(Bench(script), "a")
    assert len(bench.calls) == 1
    assert bench.count("terminal") == 1


def test_a_bug_in_one_reconcile_leaves_the_worker_alive() -> None:
    async def script(key: str, _: int) -> Done:
        if key == "bad":
            raise TypeError("a bug")
        return Done()

    bench = play(Bench(script), "bad", "good", seconds=0.001)
    assert [key for _, key in bench.calls] == ["bad", "good"]
    assert bench.metrics.registry.get_sample_value(
        "agentoperator_reconcile_errors_total", {"controller": "agentdeployment"}
    ) == 1  # fmt: skip


def test_a_reconcile_that_hangs_is_cancelled_and_retried() -> None:
    async def script(_: str, call: int) -> Done:
        if call == 1:
            await asyncio.Event().wait()
        return Done()

    bench = play(Bench(script), "a")
    assert [at for at, _ in bench.calls] == [0.0, 30.005]


def test_a_requeue_comes_back_when_asked_and_not_earlier() -> None:
    async def script(_: str, call: int) -> Done:
        return Done(requeue_after=60.0) if call == 1 else Done()

    bench = play(Bench(script), "a")
    assert [at for at, _ in bench.calls] == [0.0, 60.0]
    assert bench.count("requeue_after") == 1


def test_a_retry_grows_like_an_error_but_not_beyond_the_requeue() -> None:
    async def script(_: str, __: int) -> Done:
        return Done(retry=True, requeue_after=2.0)

    bench = play(Bench(script), "a", seconds=9)
    starts = [at for at, _ in bench.calls]
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(starts)]
    assert pauses == [*[REST_SECONDS] * 6, 0.32, 0.64, 1.28, 2.0, 2.0]


def test_workers_run_side_by_side_and_finish_what_they_began_when_closed() -> None:
    finished: list[str] = []

    async def script(key: str, _: int) -> Done:
        await asyncio.sleep(10)
        finished.append(key)
        return Done()

    bench = play(Bench(script, count=2), "a", "b", "c", seconds=5)
    assert sorted(finished) == ["a", "b"]
    assert [at for at, _ in bench.calls] == [0.0, 0.0]


def test_a_reconcile_stuck_beyond_cancellation_is_unhealthy() -> None:
    async def scenario() -> tuple[bool, bool]:
        async def script(_: str, __: int) -> Done:
            return Done()

        bench = Bench(script)
        bench.queue.add("a")
        await bench.queue.get()  # taken, and never done
        await asyncio.sleep(60)
        before = bench.workers.healthy()
        await asyncio.sleep(20)
        return before, bench.workers.healthy()

    assert run_virtual(scenario()) == (True, False)


def test_after_a_reconcile_the_news_of_the_next_moment_is_one_piece_of_work() -> None:
    async def script(_: str, __: int) -> Done:
        return Done()

    async def scenario() -> None:
        task = asyncio.create_task(bench.workers.run())
        for _ in range(20):  # one edit every 10 ms
            bench.queue.add("a")
            await asyncio.sleep(0.01)
        await asyncio.sleep(10)
        bench.queue.close()
        await task

    bench = Bench(script)
    run_virtual(scenario())
    assert [at for at, _ in bench.calls] == [0.0, REST_SECONDS]


def test_who_keeps_writing_the_same_rests_longer_each_time_until_once_there_was_nothing_to_write() -> None:
    async def script(_: str, call: int) -> Done:
        bench.queue.add("a")  # somebody else changes it back at once
        return Done(repeated=call != 6)

    bench = Bench(script)
    bench.workers._rests._jitter = lambda: 0.0
    play(bench, "a", seconds=11)
    starts = [at for at, _ in bench.calls]
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(starts)]
    assert pauses[:7] == [0.3, 0.6, 1.2, 2.4, 4.8, 0.3, 0.3]


def test_a_patient_requeue_waits_behind_changes() -> None:
    async def script(key: str, call: int) -> Done:
        await asyncio.sleep(2)
        return Done(requeue_after=1.0, patient=True) if key == "a" and call == 1 else Done()

    async def scenario() -> None:
        task = asyncio.create_task(bench.workers.run())
        bench.queue.add("a")
        await asyncio.sleep(0.1)
        bench.queue.add("b")
        await asyncio.sleep(2.5)
        bench.queue.add("c")  # after the requeue of a is due, before a worker is free
        await asyncio.sleep(20)
        bench.queue.close()
        await task

    bench = Bench(script)
    run_virtual(scenario())
    assert [key for _, key in bench.calls] == ["a", "b", "c", "a"]
