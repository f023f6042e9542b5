"""The batcher as a pure machine: nothing lost, nothing twice, limits kept, shapes never mixed."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.serve.batcher import Batcher


@dataclass
class Item:
    number: int
    rows: int
    shape: str = ""
    gone: bool = False
    deadline: float = inf


def test_it_takes_what_is_there_and_waits_for_nobody() -> None:
    batcher: Batcher[Item] = Batcher(100)
    assert batcher.take(4) == ([], 0)
    items = [Item(number, 1) for number in range(6)]
    for item in items:
        assert batcher.offer(item)
    assert batcher.take(4)[0] == items[:4]
    assert batcher.take(4)[0] == items[4:]
    assert batcher.waiting == 0


def test_a_large_call_goes_alone_and_is_never_cut() -> None:
    batcher: Batcher[Item] = Batcher(100)
    small, large, after = Item(0, 1), Item(1, 9), Item(2, 1)
    for item in (small, large, after):
        batcher.offer(item)
    assert [batcher.take(4)[0] for _ in range(3)] == [[small], [large], [after]]


def test_there_is_room_for_so_many() -> None:
    batcher: Batcher[Item] = Batcher(3)
    assert batcher.offer(Item(0, 2))
    assert batcher.offer(Item(1, 1))
    assert not batcher.offer(Item(2, 1))
    batcher.take(4)
    assert batcher.offer(Item(3, 50)), "an empty queue takes a call of any size"


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="one item"):
        Batcher(0)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from("abc"), st.booleans()), max_size=40),
    st.integers(1, 8),
    st.lists(st.booleans(), max_size=80),
)
def test_every_call_comes_out_once_in_order_with_its_own_kind(
    calls: list[tuple[int, str, bool]], limit: int, takes: list[bool]
) -> None:
    batcher: Batcher[Item] = Batcher(10_000)
    out: list[Item] = []
    pending = [Item(number, *call) for number, call in enumerate(calls)]
    items = list(pending)
    while pending or batcher.waiting:
        if pending and not (takes and takes.pop()):
            item = pending.pop(0)
            assert batcher.offer(item, item.shape)
            continue
        batch, taken = batcher.take(limit)
        assert taken == sum(item.rows for item in batch)
        assert len({item.shape for item in batch}) <= 1
        assert sum(item.rows for item in batch) <= max(limit, batch[0].rows if batch else 0)
        out += batch
        if not batch and not pending:
            break
    assert sorted(item.number for item in out) == [item.number for item in items if not item.gone]
    for shape in "abc":
        numbers = [item.number for item in out if item.shape == shape]
        assert numbers == sorted(numbers)
    assert batcher.waiting == 0
