"""A stream as a machine: what is asked is answered once, in the order of the answers, within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import RequestError
from modelyard.serve.grpc.messages import messages
from modelyard.serve.grpc.stream import ROOM, Stream
from modelyard.serve.lane import Call

pytest.importorskip("grpc")


class FakeRpc:
    """Plays the engine: one message out at a time, one receive at a time."""

    def __init__(self) -> None:
        self.heard: Callable[[bytes | None], None] | None = None
        self.sent: Callable[[bool], None] | None = None
        self.out: list[Any] = []
        self.gone: Callable[[], None] | None = None

    def watch(self, gone: Callable[[], None]) -> None:
        self.gone = gone

    def receive(self, heard: Callable[[bytes | None], None]) -> None:
        assert self.heard is None, "two receives at a time"
        self.heard = heard

    def send(self, message: bytes, sent: Callable[[bool], None]) -> None:
        assert self.sent is None, "two messages at a time"
        self.out.append(messages()["ModelStreamInferResponse"].FromString(message))
        self.sent = sent

    def give(self, data: bytes | None) -> None:
        heard, self.heard = self.heard, None
        assert heard is not None
        heard(data)

    def went(self) -> None:
        sent, self.sent = self.sent, None
        if sent is not None:
            sent(True)


class Bench:
    def __init__(self) -> None:
        self.rpc = FakeRpc()
        self.asked: dict[str, Any] = {}
        self.calls: dict[str, Call] = {}
        self.ends: list[RequestError | None] = []
        self.stream = Stream(self.rpc, self.ask, self.ends.append)  # type: ignore[arg-type]
        self.stream.begin()

    def ask(self, data: bytes, answered: Any) -> Call:
        name = messages()["ModelInferRequest"].FromString(data).id
        if name.startswith("bad"):
            raise RequestError("it is bad", value=name)
        self.asked[name] = answered
        self.calls[name] = Call({}, 1, lambda outputs, error: None)
        return self.calls[name]

    def give(self, name: str) -> None:
        self.rpc.give(messages()["ModelInferRequest"](id=name).SerializeToString())

    def answer(self, name: str, error: RequestError | None = None) -> None:
        made = None if error else messages()["ModelInferResponse"](id=name).SerializeToString()
        self.asked.pop(name)(made, error)

    def told(self) -> list[tuple[str, bool]]:
        return [(item.infer_response.id, bool(item.error_message)) for item in self.rpc.out]


def test_answers_go_out_as_they_are_ready_and_errors_with_their_ids() -> None:
    bench = Bench()
    for name in ("a", "b", "bad", "c"):
        bench.give(name)
    bench.rpc.went()
    bench.answer("c")
    bench.answer("a", RequestError("not now", status=503))
    bench.answer("b")
    for _ in range(4):
        bench.rpc.went()
    assert bench.told() == [("bad", True), ("c", False), ("a", True), ("b", False)]
    assert bench.rpc.out[1].infer_response.parameters["triton_final_response"].bool_param
    bench.rpc.give(None)
    assert bench.ends == [None]


def test_what_is_no_message_is_answered_and_the_stream_goes_on() -> None:
    bench = Bench()

    def ask(data: bytes, answered: Any) -> Call:
        raise RequestError("unreadable")

    bench.stream._ask = ask
    bench.rpc.give(b"\xff\xff")
    assert bench.told() == [("", True)] and not bench.ends


def test_it_is_read_no_further_than_there_is_room() -> None:
    bench = Bench()
    for number in range(ROOM):
        bench.give(str(number))
    assert bench.rpc.heard is None
    bench.answer("0")
    assert bench.rpc.heard is None, "an answer that is not sent yet takes room"
    bench.rpc.went()
    assert bench.rpc.heard is not None


def test_a_client_that_leaves_drops_what_waits() -> None:
    bench = Bench()
    for name in ("a", "b"):
        bench.give(name)
    bench.answer("a")
    assert bench.rpc.gone is not None
    bench.rpc.gone()
    assert [bench.calls[name].gone for name in ("a", "b")] == [False, True]
    assert len(bench.ends) == 1 and bench.ends[0] is not None and bench.ends[0].status == 499
    bench.answer("b")
    bench.rpc.went()
    assert bench.told() == [("a", False)] and len(bench.ends) == 1


def test_a_stop_answers_what_was_read() -> None:
    bench = Bench()
    bench.give("a")
    refusal = RequestError("draining", status=503)
    bench.stream.stop(refusal)
    assert not bench.ends
    bench.give("b")
    bench.answer("a")
    bench.rpc.went()
    assert bench.told() == [("a", False)] and bench.ends == [refusal]


@given(st.lists(st.sampled_from(["give", "bad", "answer", "fail", "went"]), max_size=200), st.randoms())
@settings(max_examples=150, deadline=None)
def test_each_is_answered_once(steps: list[str], random: Any) -> None:
    bench, given_, number = Bench(), [], 0
    for step in (*steps, "end"):
        if step in ("give", "bad") and bench.rpc.heard is not None:
            number += 1
            given_.append(f"{'bad' if step == 'bad' else ''}{number}")
            bench.give(given_[-1])
        elif step in ("answer", "fail") and bench.asked:
            name = random.choice(sorted(bench.asked))
            bench.answer(name, RequestError("no") if step == "fail" else None)
        elif step == "went":
            bench.rpc.went()
    for name in sorted(bench.asked):
        bench.answer(name)
    while bench.rpc.sent is not None:
        bench.rpc.went()
    bench.rpc.give(None)
    assert sorted(name for name, _ in bench.told()) == sorted(given_)
    assert all(wrong for name, wrong in bench.told() if name.startswith("bad"))
    assert bench.ends == [None]
