"""What stays in memory: the budget, the pins, what is in use, and GreedyDual-Size's own order."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelyard.serve.residency import Residency

NAMES = tuple("abcdefgh")
PARTS = st.dictionaries(st.sampled_from("uvwxyz"), st.just(0), min_size=1, max_size=3)


def sized(parts: Mapping[str, int]) -> dict[Hashable, int]:
    """A part has one size, whoever holds it."""
    return {part: 10 * (ord(part) - ord("t")) for part in parts}


class Machine(RuleBasedStateMachine):
    """Endpoints come, are used, become busy and go, as they would in a service."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned = frozenset("ab")
        self.residency = Residency(100, self.pinned)
        self.held: dict[str, dict[Hashable, int]] = {}
        self.busy: set[str] = set()
        self.newest = ""

    @rule(name=st.sampled_from(NAMES), parts=PARTS, seconds=st.floats(0, 10))
    def load(self, name: str, parts: dict[str, int], seconds: float) -> None:
        self.newest = name
        self.held[name] = sized(parts)
        self.residency.admit(name, self.held[name], seconds)
        self.take(self.residency.make_room(in_use=self.busy.__contains__, keep=name))

    @rule(room=st.integers(0, 200))
    def make_room(self, room: int) -> None:
        self.newest = ""
        self.take(self.residency.make_room(room, in_use=self.busy.__contains__))

    @rule(name=st.sampled_from(NAMES))
    def use(self, name: str) -> None:
        self.residency.use(name)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def begin_or_end(self, data: st.DataObject) -> None:
        self.busy ^= {data.draw(st.sampled_from(sorted(self.held)))}

    @rule(name=st.sampled_from(NAMES))
    def unload(self, name: str) -> None:
        self.residency.remove(name)
        self.held.pop(name, None)
        self.busy.discard(name)

    def take(self, gone: list[str]) -> None:
        assert len(set(gone)) == len(gone)
        for name in gone:
            assert name not in self.pinned and name not in self.busy and name != self.newest
            del self.held[name]
        stay = {name for name in self.held if name in self.pinned | self.busy | {self.newest}}
        fixed = {part: size for name in stay for part, size in self.held[name].items()}
        # Over the budget only by what may not go: the pinned, the busy, or the one that was asked for.
        assert self.residency.bytes <= max(100, sum(fixed.values()))

    @invariant()
    def counts(self) -> None:
        shared = {part: size for parts in self.held.values() for part, size in parts.items()}
        assert self.residency.bytes == sum(shared.values())
        assert {name for name in NAMES if name in self.residency} == set(self.held)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 60)), max_size=60))
def test_never_over_the_budget_except_for_one_that_is_larger(loads: list[tuple[str, int]]) -> None:
    residency = Residency(50)
    for number, (name, size) in enumerate(loads):
        residency.admit(name, {number: size}, 0.01)
        residency.make_room(keep=name)
        assert residency.bytes <= 50 or (len(residency) == 1 and size > 50)


def test_what_is_dear_to_load_and_small_stays() -> None:
    residency = Residency(100)
    residency.admit("large", {1: 50}, 0.1)
    residency.admit("dear", {2: 50}, 1.0)
    assert residency.make_room(10) == ["large"]
    residency.admit("small", {3: 5}, 0.1)
    assert residency.make_room(60) == ["dear"]


def test_among_equals_the_one_used_last_stays() -> None:
    residency = Residency(30)
    for name in "abc":
        residency.admit(name, {name: 10}, 0.1)
    residency.use("a")
    assert residency.make_room(10) == ["b"]
    residency.admit("d", {"d": 10}, 0.1)
    assert residency.make_room(10) == ["c"]


def test_what_is_not_used_sinks_below_what_was_cheaper() -> None:
    residency = Residency(20)
    residency.admit("dear", {0: 10}, 1.0)
    gone: list[str] = []
    for number in range(1, 60):
        residency.admit(f"cheap{number}", {number: 10}, 0.1)
        gone += residency.make_room(keep=f"cheap{number}")
        if "dear" in gone:
            break
    # The floor rises with the evictions: some ten of the cheap ones outweigh one that was ten times dearer.
    assert gone[-1] == "dear" and 10 <= len(gone) <= 25


def test_shared_weights_count_once_and_go_with_the_last() -> None:
    residency = Residency(100, frozenset({"pinned"}))
    residency.admit("pinned", {"weights": 80}, 0.1)
    residency.admit("twin", {"weights": 80}, 0.1)
    assert residency.bytes == 80
    residency.admit("other", {"else": 10}, 5.0)
    # The twin would free nothing: the pinned one holds the same weights.
    assert residency.make_room(20) == ["other"]
    assert residency.make_room(inf) == []  # type: ignore[arg-type]
    assert "twin" in residency
