"""The circuit breaker as a pure state machine: any history, in no time."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.llm.remote.breaker import (
    Circuit,
    Outcome,
    Phase,
    Policy,
    Ticket,
    admit,
    record,
    retry_after,
)

POLICY = Policy()
FAILURE, SUCCESS, UNKNOWN = Outcome.FAILURE, Outcome.SUCCESS, Outcome.UNKNOWN


def closed_after(*outcomes: Outcome, now: float = 0.0) -> Circuit:
    """A circuit after these outcomes of calls begun when it was closed."""
    circuit = Circuit()
    _, ticket = admit(circuit, now)
    assert ticket is not None
    for outcome in outcomes:
        circuit = record(circuit, POLICY, ticket, outcome, now=now, jitter=0.5)
    return circuit


def opened(times: int = 1, jitter: float = 0.5) -> tuple[Circuit, float]:
    """A circuit that opened this often in a row, and when."""
    now, circuit = 0.0, closed_after(*[FAILURE] * 5)
    for _ in range(times - 1):
        now = circuit.until
        circuit, probe = admit(circuit, now)
        assert probe is not None
        circuit = record(circuit, POLICY, probe, FAILURE, now=now, jitter=jitter)
    return circuit, now


def test_five_failures_open_it_and_four_do_not() -> None:
    assert closed_after(*[FAILURE] * 4).phase is Phase.CLOSED
    assert closed_after(*[FAILURE] * 5).phase is Phase.OPEN


def test_failures_among_more_successes_do_not_open_it() -> None:
    circuit = closed_after(*[SUCCESS, SUCCESS, FAILURE] * 40)

    assert circuit.phase is Phase.CLOSED
    assert sum(failed for _, failed in circuit.outcomes) > POLICY.failures  # the count alone would


def test_half_of_the_last_twenty_outcomes_opens_it() -> None:
    assert closed_after(*[SUCCESS, FAILURE] * 9, SUCCESS, SUCCESS).phase is Phase.OPEN  # at five of nine


def test_old_failures_are_forgotten() -> None:
    circuit = closed_after(*[FAILURE] * 4)
    _, ticket = admit(circuit, 40.0)
    assert ticket is not None

    circuit = record(circuit, POLICY, ticket, FAILURE, now=40.0, jitter=0.5)

    assert circuit.phase is Phase.CLOSED
    assert circuit.outcomes == ((40.0, True),)


def test_unknown_outcomes_change_nothing() -> None:
    assert closed_after(*[UNKNOWN] * 100) == Circuit()


def test_open_refuses_until_the_cool_down_is_over_and_then_lets_one_through() -> None:
    circuit, _ = opened()

    assert admit(circuit, circuit.until - 0.001)[1] is None
    assert retry_after(circuit, circuit.until - 2.0) == 2.0
    circuit, probe = admit(circuit, circuit.until)
    assert probe == Ticket(circuit.epoch, probe=True)
    assert circuit.phase is Phase.HALF_OPEN
    assert admit(circuit, 1e9)[1] is None
    assert retry_after(circuit, 1e9) == 1.0


def test_a_probe_that_succeeds_closes_it_and_all_is_forgotten() -> None:
    circuit, _ = opened(3)
    circuit, probe = admit(circuit, circuit.until)
    assert probe is not None

    circuit = record(circuit, POLICY, probe, SUCCESS, now=circuit.until, jitter=0.5)

    assert circuit == Circuit(epoch=circuit.epoch)


def test_a_probe_that_fails_later_counts_as_one_failure() -> None:
    circuit, _ = opened()
    circuit, probe = admit(circuit, circuit.until)
    assert probe is not None
    circuit = record(circuit, POLICY, probe, SUCCESS, now=10.0, jitter=0.5)

    circuit = record(circuit, POLICY, probe, FAILURE, now=11.0, jitter=0.5)

    assert circuit.phase is Phase.CLOSED
    assert circuit.outcomes == ((11.0, True),)


def test_a_cancelled_probe_makes_room_for_the_next() -> None:
    circuit, _ = opened()
    circuit, probe = admit(circuit, circuit.until)
    assert probe is not None

    circuit = record(circuit, POLICY, probe, UNKNOWN, now=10.0, jitter=0.5)

    assert admit(circuit, 10.0)[1] is not None


def test_calls_begun_before_it_opened_say_nothing_afterwards() -> None:
    late = Ticket(epoch=0, probe=False)
    circuit, _ = opened()

    for outcome in Outcome:
        assert record(circuit, POLICY, late, outcome, now=1.0, jitter=0.5) == circuit
    half_open, _ = admit(circuit, circuit.until)
    for outcome in Outcome:
        assert record(half_open, POLICY, late, outcome, now=9.0, jitter=0.5) == half_open


@given(st.integers(1, 2000), st.floats(0, 1, exclude_max=True))
def test_cool_downs_double_up_to_a_minute_and_are_spread_by_a_fifth(times: int, jitter: float) -> None:
    before = Circuit(phase=Phase.HALF_OPEN, opened=times - 1, epoch=7, probing=True)

    after = record(before, POLICY, Ticket(7, probe=True), FAILURE, now=100.0, jitter=jitter)

    expected = min(60.0, 5.0 * 2.0 ** min(times - 1, 10))
    assert after.opened == times
    assert 0.8 * expected <= after.until - 100.0 <= 1.2 * expected


@dataclass
class World:
    """A circuit with calls under way."""

    now: float = 0.0
    circuit: Circuit = field(default_factory=Circuit)
    under_way: list[Ticket] = field(default_factory=list)

    def step(self, wait: float, action: Outcome | None, which: int, jitter: float) -> None:
        self.now += wait
        if action is None:
            self.circuit, ticket = admit(self.circuit, self.now)
            self.under_way += [] if ticket is None else [ticket]
        elif self.under_way:
            ticket = self.under_way.pop(which % len(self.under_way))
            self.circuit = record(self.circuit, POLICY, ticket, action, now=self.now, jitter=jitter)

    @property
    def probes(self) -> int:
        return sum(t.probe and t.epoch == self.circuit.epoch for t in self.under_way)


STEPS = st.lists(
    st.tuples(
        st.floats(0, 20),
        st.sampled_from([None, None, FAILURE, FAILURE, SUCCESS, UNKNOWN]),
        st.integers(0, 20),
        st.floats(0, 1, exclude_max=True),
    ),
    max_size=80,
)


@given(STEPS)
def test_in_any_history_one_probe_goes_at_a_time_and_it_is_never_stuck(
    steps: list[tuple[float, Outcome | None, int, float]],
) -> None:
    world = World()
    for step in steps:
        world.step(*step)

        # At most one probe is under way, and it is remembered exactly while it is.
        if world.circuit.phase is Phase.HALF_OPEN:
            assert world.probes == int(world.circuit.probing) <= 1
        # The state does not grow.
        assert len(world.circuit.outcomes) <= POLICY.window
        # An open circuit refuses for at most 72 seconds.
        if world.circuit.phase is Phase.OPEN:
            assert world.circuit.until <= world.now + 72.0
            assert retry_after(world.circuit, world.now) <= 72.0
        # Once nothing is under way, somebody may call within that time.
        if not world.under_way:
            assert admit(world.circuit, world.now + 72.0)[1] is not None


@given(STEPS)
def test_without_failures_it_never_refuses(steps: list[tuple[float, Outcome | None, int, float]]) -> None:
    world = World()
    for wait, action, which, jitter in steps:
        world.step(wait, SUCCESS if action is FAILURE else action, which, jitter)

        assert admit(world.circuit, world.now)[1] is not None
