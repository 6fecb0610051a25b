"""What the gateway decides, on data and in virtual time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from agent_operator.api.gateway import Route
from agent_operator.gateway.core import answers, choice, heads, prefix, slices, wake
from agent_operator.gateway.core.demand import Board
from agent_operator.gateway.core.hold import HoldQueue
from agent_runtime.stats import Stats
from tests.support.gateway import endpoint, our_slice, slice_of

ROUTE = Route(namespace="team", agent="geo", backend_service="geo")


@dataclass
class Pod:
    name: str
    in_flight: int = 0
    others: int = 0
    served: int = 0

    @property
    def seed(self) -> int:
        return choice.seed_of(self.name)


def test_the_pod_with_the_least_to_do_is_chosen_whoever_gave_it_the_rest() -> None:
    pods = [Pod("a", in_flight=2), Pod("b", in_flight=0, others=3), Pod("c", in_flight=1)]
    assert choice.least_loaded(pods) is pods[2]
    assert choice.least_loaded(pods, below=1) is None
    assert choice.least_loaded([]) is None


def test_among_equals_turns_are_taken() -> None:
    pods = [Pod("a"), Pod("b"), Pod("c")]
    for _ in range(9):
        pod = choice.least_loaded(pods)
        assert pod is not None
        pod.served += 1
    assert [pod.served for pod in pods] == [3, 3, 3]


def test_a_prefix_stays_with_its_pod_until_that_pod_has_much_more_than_the_mean() -> None:
    pods = [Pod(f"pod-{number}", in_flight=10) for number in range(4)]
    home = choice.affine(pods, 42)
    assert home is not None
    assert choice.affine(list(reversed(pods)), 42) is home, "the order of the pods means nothing"
    home.in_flight = 12
    assert choice.affine(pods, 42) is home
    home.in_flight = 15
    away = choice.affine(pods, 42)
    assert away is not home
    assert away is not None


def test_prefixes_spread_evenly_and_only_those_of_a_pod_that_goes_move() -> None:
    pods = [Pod(f"pod-{number}", in_flight=100) for number in range(5)]
    before = {key: choice.affine(pods, key) for key in range(1, 5001)}
    counts = Counter(pod.name for pod in before.values() if pod is not None)
    assert min(counts.values()) > 850
    after = {key: choice.affine(pods[1:], key) for key in before}
    assert all(after[key] is pod for key, pod in before.items() if pod is not pods[0])


BODY = b'{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"hello"}'


@pytest.mark.parametrize(
    "other, same",
    [
        (BODY + b',{"role":"assistant","content":"x"}]}', True),
        (BODY + b'],"max_tokens":5,"stream":true}', True),
        (BODY.replace(b"hello", b"goodbye") + b"]}", False),
        (BODY.replace(b'"m"', b'"n"') + b"]}", False),
        (BODY.replace(b'"s"', b'"t"') + b"]}", False),
    ],
)
def test_what_two_requests_must_share_to_go_to_one_pod(other: bytes, same: bool) -> None:
    assert (prefix.affinity_key(BODY + b"]}") == prefix.affinity_key(other)) is same


def test_a_client_may_say_itself_what_belongs_together() -> None:
    one = b'{"model":"m","user":"ann","messages":[{"role":"user","content":"a"}]}'
    assert prefix.affinity_key(one) == prefix.affinity_key(one.replace(b'"a"', b'"b"'))
    assert prefix.affinity_key(one) != prefix.affinity_key(one.replace(b"ann", b"bob"))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"no json", b'{"model":"m"}', b'{"messages":[]}', b"[" * 60_000]
)
def test_where_there_is_no_beginning_there_is_no_key(body: bytes) -> None:
    assert prefix.affinity_key(body) is None


def test_a_large_body_is_judged_by_its_first_bytes() -> None:
    large = b"x" * prefix.PARSED_BYTES
    assert prefix.affinity_key(large + b"a") == prefix.affinity_key(large + b"b") is not None


@pytest.mark.parametrize(
    "body, stream",
    [
        (b'{"stream": true}', True),
        (b'{"stream":\n true}', True),
        (b'{"stream": false}', False),
        (b'{"tool": {"stream": true}}', False),
        (b'{"content": "\\"stream\\": true"}', False),
        (b"", False),
    ],
)
def test_a_stream_is_what_asks_to_be_one(body: bytes, stream: bool) -> None:
    assert prefix.wants_stream(body) is stream


def test_only_changes_that_matter_make_a_version() -> None:
    board = Board("x")
    first = board.version
    assert board.note("a/b", 1)
    assert board.version != first
    assert not board.note("a/b", 2)
    assert board.note("a/b", 100)
    assert not board.note("a/b", 110)
    assert board.note("a/b", 130)
    assert board.note("a/b", 0)
    assert not board.note("a/b", 0)


def test_one_who_comes_back_is_first_again_whatever_the_bounds() -> None:
    queue: HoldQueue[str] = HoldQueue(2, 100)
    assert queue.offer("a", 10, 0, 100) is None
    assert queue.offer("b", 10, 1, 50) is None
    assert queue.offer("c", 10, 2, 100) == "requests"
    assert queue.take() == "a"
    assert queue.offer("d", 95, 3, 100) == "bytes"
    queue.put_back("a", 95, 0, 100)
    assert list(queue) == ["a", "b"]
    assert queue.oldest() == 0
    assert queue.expire(60) == ["b"]
    assert queue.total == 2


def test_the_wait_a_client_is_told_is_what_is_left_of_a_usual_wake() -> None:
    wakes = wake.Wakes()
    assert wakes.retry_after(0) == wake.UNKNOWN_SECONDS
    for start, seconds in ((0, 10), (100, 20), (200, 12)):
        wakes.begin(start)
        wakes.end(start + seconds)
    wakes.begin(300)
    assert wakes.retry_after(304) == 8
    assert wakes.retry_after(400) == 1
    wakes.drop()
    wakes.end(500)
    assert wakes.retry_after(600) == 12, "nobody waited: no wake was observed"


def stats(**facts: Any) -> Stats:
    return Stats.model_validate({"since": 0, "uptime_seconds": 1, "model": {"served_name": "m"}, **facts})


@pytest.mark.parametrize(
    "pods, found, words",
    [
        (0, None, "scheduling"),
        (1, None, "starting"),
        (1, stats(state="STARTING"), "starting"),
        (
            1,
            stats(state="LOADING", download={"source": "x", "bytes_done": 43, "bytes_total": 100}),
            "downloading 43 %",
        ),
        (1, stats(state="LOADING"), "loading"),
        (1, stats(state="WARMING"), "warming"),
    ],
)
def test_a_waiting_client_is_told_how_far_its_agent_is(pods: int, found: Stats | None, words: str) -> None:
    assert wake.progress(pods, found) == words


def test_comments_are_neither_many_nor_few() -> None:
    assert not wake.comment_due("loading", "starting", 0.5)
    assert wake.comment_due("loading", "starting", 1.0)
    assert not wake.comment_due("loading", "loading", 4.0)
    assert wake.comment_due("loading", "loading", 5.0)


def test_the_view_of_an_agent_comes_from_all_its_slices() -> None:
    ours = our_slice(ROUTE, 20_001)
    pods = slice_of(
        "geo-x", "geo", "geo", 8000, [endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "b", ready=False)]
    )
    more = slice_of("geo-y", "geo", "geo", 8000, [endpoint("10.0.0.3", "c", terminating=True)])
    preview = slice_of("geo-p", "geo-preview", "geo", 8000, [endpoint("10.0.0.9", "z")])
    view = slices.read([pods, more, preview, ours])
    assert view is not None
    assert (view.route, view.port) == (ROUTE, 20_001)
    assert [(pod.name, pod.ready, pod.terminating) for pod in view.pods] == [
        ("a", True, False), ("b", False, False), ("c", False, True),
    ]  # fmt: skip
    assert slices.read([pods, more]) is None


def test_an_endpoint_that_says_nothing_of_itself_is_ready() -> None:
    bare = slice_of("geo-x", "geo", "geo", 8000, [{"addresses": ["10.0.0.1"]}])
    view = slices.read([our_slice(ROUTE, 20_001), bare])
    assert view is not None
    assert view.pods[0].ready
    assert view.pods[0].name == "10.0.0.1"


def test_a_head_keeps_everything_but_what_concerns_the_connection() -> None:
    raw = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\nX: 1\r\n\r\n"
    head = heads.clean(raw)
    assert head.raw == b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX: 1\r\n\r\n"
    assert (head.method, head.length, head.chunked, head.close) == (b"POST", 5, False, False)


def test_a_connection_header_cannot_take_the_framing_away() -> None:
    raw = b"POST / HTTP/1.1\r\nConnection: content-length, transfer-encoding\r\nContent-Length: 5\r\n\r\n"
    assert b"Content-Length: 5" in heads.clean(raw).raw


def test_errors_have_the_runtimes_shape() -> None:
    raw = answers.hold_full("requests", 7).response(close=True)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nretry-after: 7" in head
    assert b"\r\ncontent-length: %d" % len(body) in head
    assert body.startswith(b'{"error":{"message":')
