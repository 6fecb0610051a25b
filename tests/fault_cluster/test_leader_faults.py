"""Leader election under faults: kill, freeze, cut network, clocks that jump, and an orderly end.

The operators run with their default timing (15/10/2 s) as two users, and somebody keeps editing agents, so
that whoever leads always has something to write. The audit log is the judge: all that the old leader asked
for ended before the new one's first request, and that came in time.
"""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime

from tests.fault_cluster.churn import Churn
from tests.fault_cluster.conftest import Pair
from tests.fault_cluster.network import Network
from tests.fault_cluster.processes import Operator
from tests.fault_cluster.trail import Trail
from tests.support.kubectl import Kubectl, wait_for

TAKEOVER_SECONDS = 17.0
HANDOVER_SECONDS = 2.0
BUSY = 25
"""Writes that show that a leader acts."""

HOUR = 3600
LOOKS_SECONDS = 4.0
"""Two renewals of the leader and several looks of the standby."""


def wait_acting(trail: Trail, operator: Operator, more_than: int = 0, timeout: float = 40) -> None:
    """Until it has written more than so much and a bit."""
    wait_for(
        f"{operator.account} to act",
        lambda: len(trail.writes(operator.user)) >= more_than + BUSY,
        timeout,
        operator.tail,
    )


def wait_midst(operator: Operator) -> None:
    """Until it has just begun to act on an edit of all agents and has most of its writes before it."""

    def begun() -> bool:
        return any("configmaps" in write.what for write in fresh.writes(operator.user))

    while True:
        fresh = Trail()
        time.sleep(0.2)
        if not begun():
            break
    deadline = time.monotonic() + 10
    while not begun():
        assert time.monotonic() < deadline, operator.tail()
        time.sleep(0.002)


def judge(name: str, trail: Trail, old: Operator, new: Operator, since: float, limit: float) -> None:
    """The hand-over that began at `since`: nothing of the old after the first of the new, and in time."""
    before, after = trail.writes(old.user), trail.writes(new.user)
    assert len(before) >= BUSY
    assert len(after) >= BUSY
    took = after[0].received - since
    silent = after[0].received - max(write.ended for write in before)
    print(
        f"\n{name}: {took:.2f} s until the successor's first write, {silent:.2f} s after the last of its "
        f"predecessor; {len(before)} and {len(after)} writes"
    )
    late = [write for write in before if write.ended >= after[0].received]
    assert not late, (
        f"{old.account} wrote after {new.account}: {late}, the first of {new.account}: {after[0]}"
    )
    assert took <= limit


def test_after_kill_9_the_standby_acts_within_17_seconds(churn: Churn, pair: Pair) -> None:
    trail = Trail()
    old, new = pair()
    with churn.going_on():
        wait_acting(trail, old)
        wait_midst(old)
        since = old.signal(signal.SIGKILL)
        wait_acting(trail, new)
    churn.wait_converged()
    judge("kill -9", trail, old, new, since, TAKEOVER_SECONDS)


def test_a_leader_frozen_for_longer_than_its_lease_writes_nothing_when_it_goes_on(
    churn: Churn, pair: Pair
) -> None:
    trail = Trail()
    old, new = pair()
    with churn.going_on():
        wait_acting(trail, old)
        wait_midst(old)
        since = old.signal(signal.SIGSTOP)
        wait_acting(trail, new)
        time.sleep(max(0.0, since + 25 - time.time()))
        old.signal(signal.SIGCONT)
        assert old.exit_code(15) == 1, "a process that lost its lease ends and says so"
    churn.wait_converged()
    judge("freeze of 25 s", trail, old, new, since, TAKEOVER_SECONDS)
    print(f"freeze of 25 s: {old.refused_writes()} writes were wanted and not sent when it went on")


def test_a_leader_cut_off_ends_and_what_it_had_sent_never_arrives(
    churn: Churn, pair: Pair, network: Network
) -> None:
    trail = Trail()
    old, new = pair(server=network.url)
    with churn.going_on():
        wait_acting(trail, old)
        wait_midst(old)
        network.cut()
        since = time.time()
        assert old.exit_code(14) == 1, "it ends before anybody may take over"
        ended = time.time()
        wait_acting(trail, new)
        network.mend()
        wait_acting(trail, new, more_than=len(trail.writes(new.user)))
    churn.wait_converged()
    judge("network cut", trail, old, new, since, TAKEOVER_SECONDS)
    print(f"network cut: the old leader had ended {ended - since:.2f} s after the cut")


def wait_told(kubectl: Kubectl, lease: str, ahead: int) -> None:
    """Until the Lease tells a time of day that is so many seconds from the real one."""

    def told() -> bool:
        found = kubectl.get("lease", lease) or {}
        off = datetime.fromisoformat(found["spec"]["renewTime"]) - datetime.now(UTC)
        return abs(off.total_seconds() - ahead) < 60

    wait_for(f"the Lease to be {ahead:+d} s off", told, 10)


def test_clocks_that_jump_by_an_hour_neither_end_nor_delay_a_leadership(
    churn: Churn, pair: Pair, kubectl: Kubectl
) -> None:
    trail = Trail()
    old, new = pair(fake_clocks=True)
    with churn.going_on():
        wait_acting(trail, old)
        for jump in (-HOUR, HOUR):
            old.jump(jump)
            new.jump(-jump)
            wait_told(kubectl, old.lease, jump)
            time.sleep(LOOKS_SECONDS)
            assert trail.writes(new.user) == [], f"with the leader's clock {jump:+d} s off"
            wait_acting(trail, old, more_than=len(trail.writes(old.user)))
        since = old.signal(signal.SIGKILL)
        wait_acting(trail, new)
    churn.wait_converged()
    judge("kill -9 with clocks 2 h apart", trail, old, new, since, TAKEOVER_SECONDS)


def test_an_orderly_end_hands_over_within_2_seconds(churn: Churn, pair: Pair) -> None:
    trail = Trail()
    old, new = pair()
    with churn.going_on():
        wait_acting(trail, old)
        wait_midst(old)
        since = old.signal(signal.SIGTERM)
        wait_acting(trail, new)
        assert old.exit_code(10) == 0
    churn.wait_converged()
    judge("SIGTERM", trail, old, new, since, HANDOVER_SECONDS)
