"""Two candidates and one Lease, in virtual time: never two leaders, and never none for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_operator.controller.leader import LeaderElector, LeadershipLostError, Timing
from agent_operator.shell.kinds import LEASE
from agent_operator.shell.kube import UnavailableError
from tests.fakes.kube import FakeApiServer, FakeKube
from tests.fakes.virtual_time import run_virtual


class Candidate:
    """An elector with its own connection and its own idea of the time of day."""

    def __init__(self, server: FakeApiServer, identity: str, skew_seconds: float = 0) -> None:
        self.kube: FakeKube = server.client()
        self.slept_seconds = 0.0
        self.elector = LeaderElector(
            self.kube,
            namespace="ops",
            name="agent-operator",
            identity=identity,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=clock() + skew_seconds),
            jitter=lambda: 0.5,
            clock=lambda: clock() + self.slept_seconds,
        )
        self.led_at: float | None = None
        self.lost_at: float | None = None

    async def live(self) -> None:
        await self.elector.acquire()
        self.led_at = clock()
        try:
            await self.elector.hold()
        except LeadershipLostError:
            self.lost_at = clock()

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.live())


def clock() -> float:
    return asyncio.get_running_loop().time()


def two(scenario: Callable[[FakeApiServer, Candidate, Candidate], Awaitable[None]]) -> None:
    async def run() -> None:
        server = FakeApiServer()
        a, b = Candidate(server, "a"), Candidate(server, "b")
        await scenario(server, a, b)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    run_virtual(run())


def holder(server: FakeApiServer) -> str:
    return str(server.objects[LEASE, "ops", "agent-operator"]["spec"]["holderIdentity"])


def test_the_first_candidate_creates_the_lease_and_the_second_waits() -> None:
    async def scenario(server: FakeApiServer, a: Candidate, b: Candidate) -> None:
        a.start()
        await asyncio.sleep(0.1)
        b.start()
        await asyncio.sleep(300)
        assert a.elector.leads()
        assert b.led_at is None
        assert holder(server) == "a"
        assert server.objects[LEASE, "ops", "agent-operator"]["spec"]["leaseTransitions"] == 0

    two(scenario)


def test_of_two_that_create_at_the_same_moment_one_wins() -> None:
    async def scenario(server: FakeApiServer, a: Candidate, b: Candidate) -> None:
        a.start()
        b.start()
        await asyncio.sleep(60)
        assert [a.elector.leads(), b.elector.leads()].count(True) == 1

    two(scenario)


def test_after_a_kill_the_standby_leads_when_the_lease_it_saw_expires() -> None:
    async def scenario(server: FakeApiServer, a: Candidate, b: Candidate) -> None:
        leader = a.start()
        await asyncio.sleep(0.1)
        b.start()
        await asyncio.sleep(100)
        killed_at = clock()
        leader.cancel()  # no release: like kill -9
        await asyncio.sleep(30)
        assert b.led_at is not None
        renewed_at = 100.0  # every 2 s; the standby sees it one look later at most, and looks every 0.6 s
        assert 15 <= b.led_at - renewed_at <= 15.7
        assert b.led_at - killed_at <= 15.7
        assert server.objects[LEASE, "ops", "agent-operator"]["spec"]["leaseTransitions"] == 1

    two(scenario)


def test_a_released_lease_is_taken_over_at_the_next_look() -> None:
    async def scenario(server: FakeApiServer, a: Candidate, b: Candidate) -> None:
        leader = a.start()
        await asyncio.sleep(0.1)
        b.start()
        await asyncio.sleep(100)
        leader.cancel()
        await a.elector.release()
        assert holder(server) == ""
        assert not a.elector.leads()
        released_at = clock()
        await asyncio.sleep(30)
        assert b.led_at is not None
        assert b.led_at - released_at <= 0.7

    two(scenario)


@pytest.mark.parametrize("killed_after", [100.0, 100.7, 101.3, 101.9])
def test_no_moment_of_the_kill_makes_the_takeover_longer(killed_after: float) -> None:
    async def scenario(_: FakeApiServer, a: Candidate, b: Candidate) -> None:
        leader = a.start()
        await asyncio.sleep(0.33)
        b.start()
        await asyncio.sleep(killed_after - 0.33)
        leader.cancel()
        await asyncio.sleep(30)
        assert b.led_at is not None
        assert 13 <= b.led_at - killed_after <= 15.7

    two(scenario)


def test_a_standby_looks_three_times_in_a_retry_time_and_no_more() -> None:
    async def scenario(server: FakeApiServer, a: Candidate, b: Candidate) -> None:
        a.start()
        await asyncio.sleep(10)
        a.kube.down = True  # silent, and well within its lease
        server.log.clear()
        b.start()
        await asyncio.sleep(9)
        assert 13 <= len(server.log) <= 18
        assert {verb for verb, *_ in server.log} == {"get"}

    two(scenario)


def test_a_machine_that_slept_through_its_lease_may_not_write_when_it_wakes_up() -> None:
    async def scenario(_: FakeApiServer, a: Candidate, b: Candidate) -> None:
        a.start()
        await asyncio.sleep(100)
        assert a.elector.write_seconds() > 0
        a.slept_seconds = 11  # the loop's own clock stood still
        assert not a.elector.leads()
        assert a.elector.write_seconds() == 0
        await asyncio.sleep(3)
        assert a.lost_at is not None

    two(scenario)


def test_a_write_is_given_the_time_until_others_may_write() -> None:
    async def scenario(_: FakeApiServer, a: Candidate, b: Candidate) -> None:
        assert a.elector.write_seconds() == 0
        a.start()
        await asyncio.sleep(0.1)
        assert 14.8 <= a.elector.write_seconds() <= 15
        a.kube.down = True
        await asyncio.sleep(9.8)
        assert 5 <= a.elector.write_seconds() <= 5.2
        await asyncio.sleep(0.2)
        assert a.elector.write_seconds() == 0

    two(scenario)


def test_a_leader_cut_off_stops_before_the_standby_starts() -> None:
    async def scenario(_: FakeApiServer, a: Candidate, b: Candidate) -> None:
        a.start()
        await asyncio.sleep(0.1)
        b.start()
        await asyncio.sleep(100)
        a.kube.down = True
        await asyncio.sleep(60)
        assert a.lost_at is not None
        assert b.led_at is not None
        assert a.lost_at - 100 <= 12.1
        assert b.led_at - a.lost_at >= 3

    two(scenario)


def test_a_leader_whose_requests_hang_stops_in_time_as_well() -> None:
    async def scenario(_: FakeApiServer, a: Candidate, b: Candidate) -> None:
        a.start()
        await asyncio.sleep(100)
        a.kube.hangs = True
        await asyncio.sleep(60)
        assert a.lost_at is not None
        assert a.lost_at <= 112.1
        assert not a.elector.leads()

    two(scenario)


def test_one_lost_answer_costs_nothing_because_the_lease_is_read_again() -> None:
    async def scenario(server: FakeApiServer, a: Candidate, b: Candidate) -> None:
        a.start()
        await asyncio.sleep(10)
        server.edit(LEASE, "ops", "agent-operator", lambda o: o["metadata"].update(labels={"x": "y"}))
        await asyncio.sleep(60)
        assert a.elector.leads()
        assert a.lost_at is None

    two(scenario)


def test_a_deleted_lease_is_created_again_by_its_leader() -> None:
    async def scenario(server: FakeApiServer, a: Candidate, b: Candidate) -> None:
        a.start()
        await asyncio.sleep(10)
        server.drop(LEASE, "ops", "agent-operator")
        await asyncio.sleep(60)
        assert a.lost_at is None
        assert holder(server) == "a"

    two(scenario)


def test_a_leader_that_sees_somebody_else_in_the_lease_gives_up() -> None:
    async def scenario(server: FakeApiServer, a: Candidate, b: Candidate) -> None:
        a.start()
        await asyncio.sleep(10)
        server.edit(LEASE, "ops", "agent-operator", lambda o: o["spec"].update(holderIdentity="thief"))
        await asyncio.sleep(3)
        assert a.lost_at is not None
        assert not a.elector.leads()

    two(scenario)


def test_acquiring_survives_an_api_server_that_is_down() -> None:
    async def scenario(server: FakeApiServer, a: Candidate, b: Candidate) -> None:
        server.fail("get", "Lease", UnavailableError("down"), times=20)
        a.start()
        await asyncio.sleep(120)
        assert a.elector.leads()

    two(scenario)


@settings(max_examples=60, deadline=None)
@given(
    skew=st.floats(-3600, 3600),
    latencies=st.tuples(st.floats(0, 3), st.floats(0, 3)),
    cuts=st.lists(st.tuples(st.floats(1, 60), st.sampled_from("ab"), st.booleans()), max_size=8),
)
def test_whatever_clocks_and_networks_do_there_are_never_two_leaders(
    skew: float, latencies: tuple[float, float], cuts: list[tuple[float, str, bool]]
) -> None:
    async def run() -> None:
        server = FakeApiServer()
        both = {"a": Candidate(server, "a"), "b": Candidate(server, "b", skew_seconds=skew)}

        async def live_for_ever(candidate: Candidate) -> None:
            while True:
                await candidate.live()

        for candidate, latency in zip(both.values(), latencies, strict=True):
            candidate.kube.latency = latency
        tasks = [asyncio.create_task(live_for_ever(candidate)) for candidate in both.values()]
        write_ends = dict.fromkeys(both, 0.0)  # of the longest write either could have begun
        for pause, name, down in cuts:
            both[name].kube.down = down
            for _ in range(int(pause / 0.5) + 1):
                await asyncio.sleep(0.5)
                leaders = [key for key, c in both.items() if c.elector.leads()]
                assert len(leaders) <= 1
                for key, candidate in both.items():
                    write_ends[key] = max(write_ends[key], clock() + candidate.elector.write_seconds())
                    assert all(clock() >= write_ends[key] for other in leaders if other != key)
        for task in tasks:
            task.cancel()

    run_virtual(run())


def test_timing_that_could_make_two_leaders_is_refused() -> None:
    with pytest.raises(ValueError, match="retry"):
        Timing(lease=10, renew=10, retry=2)
