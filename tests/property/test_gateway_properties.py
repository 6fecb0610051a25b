"""Invariants of the gateway's hold queue and of its choice of pods.

Whatever happens in whatever order: nobody waits who has left, nobody is served twice, the bytes are the sum
of those who wait, the bounds hold for all who came by the front door, and no deadline is forgotten.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_operator.gateway.core import choice, heads
from agent_operator.gateway.core.heads import BadHeadError
from agent_operator.gateway.core.hold import HoldQueue

MOST, BYTES = 5, 1000


@dataclass
class _Model:
    size: int
    since: float
    deadline: float


class Holding(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue: HoldQueue[int] = HoldQueue(MOST, BYTES)
        self.model: dict[int, _Model] = {}
        self.taken: dict[int, _Model] = {}
        self.now, self.number = 0.0, 0

    @rule(size=st.integers(0, 600), seconds=st.floats(0.1, 100))
    def offer(self, size: int, seconds: float) -> None:
        self.number += 1
        refused = self.queue.offer(self.number, size, self.now, self.now + seconds)
        used = sum(one.size for one in self.model.values())
        if len(self.model) >= MOST:
            assert refused == "requests"
        elif used + size > BYTES:
            assert refused == "bytes"
        else:
            assert refused is None
            self.model[self.number] = _Model(size, self.now, self.now + seconds)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), more=st.integers(1, 300))
    def grow(self, data: st.DataObject, more: int) -> None:
        item = data.draw(st.sampled_from(list(self.model)))
        fits = sum(one.size for one in self.model.values()) + more <= BYTES
        assert self.queue.grow(item, more) is fits
        self.model[item].size += more if fits else 0

    @rule()
    def take(self) -> None:
        expected = next(iter(self.model), None)
        assert self.queue.take() == expected
        if expected is not None:
            self.taken[expected] = self.model.pop(expected)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(list(self.taken)))
        one = self.taken.pop(item)
        self.queue.put_back(item, one.size, one.since, one.deadline)
        self.model = {item: one, **self.model}

    @rule(number=st.integers(0, 60))
    def leave(self, number: int) -> None:
        assert self.queue.remove(number) is (number in self.model)
        self.model.pop(number, None)

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        expected = {item for item, one in self.model.items() if one.deadline <= self.now}
        assert set(self.queue.expire(self.now)) == expected
        for item in expected:
            del self.model[item]

    @invariant()
    def agrees(self) -> None:
        assert list(self.queue) == list(self.model)
        assert self.queue.size == sum(one.size for one in self.model.values())
        due = min((one.deadline for one in self.model.values()), default=None)
        assert self.queue.next_deadline() == due
        assert self.queue.oldest() == next((one.since for one in self.model.values()), None)


Holding.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHolding = Holding.TestCase


def test_a_queue_through_which_many_pass_keeps_nothing_of_them() -> None:
    queue: HoldQueue[int] = HoldQueue(10, 10_000)
    for number in range(10_000):
        assert queue.offer(number, 1, float(number), 1e9) is None
        assert queue.remove(number)
    assert len(queue._deadlines) <= 100


@dataclass
class _Pod:
    name: str
    in_flight: int
    others: int
    served: int = 0
    seed: int = field(default=0)

    def __post_init__(self) -> None:
        self.seed = choice.seed_of(self.name)


pods = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12).map(
    lambda loads: [_Pod(f"pod-{n}", mine, others) for n, (mine, others) in enumerate(loads)]
)


@given(pods, st.integers(0, 2**64 - 1))
def test_affinity_always_finds_a_pod_and_never_one_beyond_the_bound(found: list[_Pod], key: int) -> None:
    chosen = choice.affine(found, key)
    assert chosen is not None
    total = sum(pod.in_flight + pod.others for pod in found) + 1
    assert chosen.in_flight + chosen.others + 1 <= math.ceil(choice.BOUND * total / len(found))


@given(pods, st.one_of(st.none(), st.integers(0, 120)))
def test_least_load_is_least(found: list[_Pod], below: int | None) -> None:
    chosen = choice.least_loaded(found, below)
    loads = [pod.in_flight + pod.others for pod in found]
    if chosen is None:
        assert below is not None
        assert min(loads) >= below
    else:
        assert chosen.in_flight + chosen.others == min(loads)


names = st.sampled_from(
    ["Connection", "keep-alive", "TE", "X-A", "Expect", "Content-Length", "Upgrade", "Host"]
)
values = st.text("abc, ;=0123456789-", max_size=12)


@given(st.lists(st.tuples(names, values), max_size=8))
def test_cleaning_a_head_twice_changes_nothing_more_and_never_touches_the_first_line(
    headers: list[tuple[str, str]],
) -> None:
    lines = ["POST /v1/x HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    raw = ("\r\n".join(lines) + "\r\n\r\n").encode()
    try:
        once = heads.clean(raw).raw
    except BadHeadError:
        return
    assert once.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert once.endswith(b"\r\n\r\n")
    assert heads.clean(once).raw == once
    assert not {b"connection", b"te", b"upgrade", b"expect"} & set(heads.headers_of(once))
