from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import DataError, ObjectMissing
from modelyard.data.contract import Column, Contract
from modelyard.data.fingerprint import fingerprint
from modelyard.data.physical import plain, tensor_column
from modelyard.data.snapshot import Snapshot, load_part, take_snapshot
from modelyard.data.split import HashSplit, Split, TimeSplit
from modelyard.data.tensors import features

LARGE = pa.table({"id": np.arange(20_000), "x": np.random.default_rng(0).normal(size=20_000)})


@pytest.mark.parametrize("split", [HashSplit(), HashSplit(key="id"), TimeSplit("id")])
def test_fractions_are_met(split: Split) -> None:
    shares = np.bincount(split.assign(LARGE), minlength=3) / LARGE.num_rows
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.015)


@pytest.mark.parametrize("split", [HashSplit(), HashSplit(key="id"), TimeSplit("id")])
def test_the_order_of_rows_does_not_matter(split: Split) -> None:
    order = np.random.default_rng(1).permutation(LARGE.num_rows)
    np.testing.assert_array_equal(split.assign(LARGE.take(order)), split.assign(LARGE)[order])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=40, max_size=80), st.sampled_from(["", "other"]))
def test_equal_keys_and_equal_rows_stay_together(keys: list[int], salt: str) -> None:
    keys = [*keys, 0, 1, 2]
    for table, split in (
        (pa.table({"k": keys, "x": np.arange(len(keys))}), HashSplit(key="k", salt=salt)),
        (pa.table({"k": keys}), HashSplit(salt=salt)),
        (pa.table({"k": keys}), TimeSplit("k")),
    ):
        parts = split.assign(table)
        of_key: dict[int, set[int]] = {}
        for key, part in zip(keys, parts.tolist(), strict=True):
            of_key.setdefault(key, set()).add(part)
        assert all(len(found) == 1 for found in of_key.values())
        assert set(parts.tolist()) == {0, 1, 2}


def test_rows_stay_where_they_are_when_others_come() -> None:
    split = HashSplit(key="id")
    np.testing.assert_array_equal(split.assign(LARGE.slice(0, 5000)), split.assign(LARGE)[:5000])


def test_chunks_and_integer_widths_do_not_matter() -> None:
    small = LARGE.set_column(0, "id", LARGE.column("id").cast(pa.int32()))
    chunked = pa.concat_tables([small.slice(0, 7), small.slice(7)])
    np.testing.assert_array_equal(HashSplit(key="id").assign(chunked), HashSplit(key="id").assign(LARGE))


def test_another_salt_deals_otherwise() -> None:
    assert (HashSplit(salt="a").assign(LARGE) != HashSplit(salt="b").assign(LARGE)).any()


def test_another_process_deals_alike() -> None:
    code = (
        "import numpy as np, pyarrow as pa; from modelyard.data.split import HashSplit;"
        "print(HashSplit(key='k').assign(pa.table({'k': [f'k{i}' for i in range(200)]})).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = HashSplit(key="k").assign(pa.table({"k": [f"k{place}" for place in range(200)]}))
    assert json.loads(done.stdout) == here.tolist()


def test_the_deal_is_pinned_for_ever() -> None:
    # A release that dealt rows otherwise would leak yesterday's test rows into today's training.
    table = pa.table({"k": [f"k{place}" for place in range(24)], "n": [None, *range(23)]})
    got = "".join(map(str, HashSplit().assign(table).tolist()))
    assert got == PINNED


def test_tensors_are_dealt_by_content() -> None:
    values = np.random.default_rng(2).normal(size=(50, 2, 2)).astype(np.float32)
    values[25:] = values[:25]
    parts = HashSplit().assign(pa.table({"x": tensor_column(values)}))
    np.testing.assert_array_equal(parts[:25], parts[25:])


def test_missing_keys_are_dealt_by_content() -> None:
    table = pa.table({"k": pa.array([None] * 60, pa.string()), "x": np.arange(60)})
    assert set(HashSplit(key="k").assign(table).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("rows", [3, 4, 5, 10, 30])
def test_tiny_tables_fill_every_part(rows: int) -> None:
    table = pa.table({"x": np.arange(rows)})
    for split in (HashSplit(), TimeSplit("x")):
        counts = np.bincount(split.assign(table), minlength=3)
        assert (counts > 0).all()


@pytest.mark.parametrize(
    ("split", "table", "word"),
    [
        (HashSplit(), pa.table({"x": [1, 1, 2, 2]}), "cannot be split"),
        (HashSplit(), pa.table({"x": pa.array([], pa.int64())}), "cannot be split"),
        (HashSplit(key="y"), pa.table({"x": [1, 2, 3]}), "'y'"),
        (TimeSplit("y"), pa.table({"x": [1, 2, 3]}), "'y'"),
        (TimeSplit("x"), pa.table({"x": ["a", "b", "c"]}), "order rows"),
        (TimeSplit("x"), pa.table({"x": [1, None, 2]}), "missing in 1"),
        (TimeSplit("x"), pa.table({"x": [1.0, float("nan"), 2]}), "missing in 1"),
        (TimeSplit("x"), pa.table({"x": pa.array([], pa.int64())}), "cannot be split"),
    ],
)
def test_what_cannot_be_split_is_refused(split: Split, table: pa.Table, word: str) -> None:
    with pytest.raises(DataError, match=word):
        split.assign(table)


@pytest.mark.parametrize(
    "fractions", [(1.0, 0.0, 0.0), (0.5, 0.5), (0.5, 0.2, 0.2), (0.9, 0.2, -0.1), ("a", 0, 1)]
)
def test_wrong_fractions_are_refused(fractions: Any) -> None:
    for make in (lambda: HashSplit(fractions), lambda: TimeSplit("x", fractions)):
        with pytest.raises(DataError, match="fractions"):
            make()


def test_the_newest_are_tested() -> None:
    times = pa.array(np.arange(100)[::-1] * 86_400_000_000, pa.timestamp("us"))
    parts = TimeSplit("t").assign(pa.table({"t": times}))
    assert parts[:15].tolist() == [2] * 15 and parts[-70:].tolist() == [0] * 70


def test_a_snapshot_is_the_same_on_every_take(table: pa.Table, contract: Contract, objects: Any) -> None:
    first = take_snapshot(table, contract, HashSplit(), objects)
    held = dict(objects.held)
    again = take_snapshot(
        pa.concat_tables([table.slice(0, 9), table.slice(9)]), contract, HashSplit(), objects
    )
    assert again == first and objects.held == held
    assert Snapshot.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_whatever_differs_gives_another_digest(table: pa.Table, contract: Contract, objects: Any) -> None:
    other = table.set_column(2, "height", pa.array([1.75] * 40))
    digests = {
        take_snapshot(table, contract, HashSplit(), objects).digest,
        take_snapshot(other, contract, HashSplit(), objects).digest,
        take_snapshot(table, replace(contract, owner="x"), HashSplit(), objects).digest,
        take_snapshot(table, contract, HashSplit(salt="x"), objects).digest,
        take_snapshot(table, contract, TimeSplit("seen"), objects).digest,
    }
    assert len(digests) == 5


def test_parts_come_back_as_they_were(table: pa.Table, contract: Contract, objects: Any) -> None:
    split = HashSplit()
    snapshot = take_snapshot(table, contract, split, objects)
    parts = split.assign(plain(table))
    for index, name in enumerate(("train", "validation", "test")):
        part = load_part(snapshot, name, objects)
        assert part.equals(table.filter(pa.array(parts == index)))
        assert part.num_rows == snapshot.parts[name].rows
        assert features(part, contract)["scan"].shape[1:] == (2, 2)
    assert sum(part.rows for part in snapshot.parts.values()) == snapshot.rows == 40


def test_unknown_and_ignored_personal_columns_are_not_stored(
    table: pa.Table, contract: Contract, objects: Any
) -> None:
    more = table.append_column("mail", pa.array(["a@b.org"] * 40)).append_column("extra", pa.array([1] * 40))
    wide = replace(
        contract, columns=(*contract.columns, Column("mail", "text", "ignored", privacy="personal"))
    )
    snapshot = take_snapshot(more, wide, HashSplit(), objects)
    assert load_part(snapshot, "train", objects).column_names == table.column_names


def test_bad_tables_make_no_snapshot(table: pa.Table, contract: Contract, objects: Any) -> None:
    one = table.set_column(table.column_names.index("risk"), "risk", pa.array(["low"] * 40))
    for wrong, word in (
        (table.slice(0, 0), "empty"),
        (table.drop(["age"]), "'age'"),
        (one, "1 class"),
        (table.append_column("age", table.column("age")), "share a name"),
    ):
        with pytest.raises(DataError, match=word):
            take_snapshot(wrong, contract, HashSplit(), objects)
    assert not objects.held


def test_loading_verifies(table: pa.Table, contract: Contract, objects: Any) -> None:
    snapshot = take_snapshot(table, contract, HashSplit(), objects)
    with pytest.raises(DataError, match="did you mean 'train'"):
        load_part(snapshot, "trian", objects)
    value = snapshot.to_json()
    value["parts"]["train"]["rows"] += 1
    with pytest.raises(DataError, match="changed"):
        Snapshot.from_json(value)
    with pytest.raises(DataError, match="version"):
        Snapshot.from_json({**snapshot.to_json(), "version": 2})
    digest = snapshot.parts["test"].object
    objects.held[digest] = b"not parquet"
    with pytest.raises(DataError, match="not Parquet"):
        load_part(snapshot, "test", objects)
    del objects.held[digest]
    with pytest.raises(ObjectMissing):
        load_part(snapshot, "test", objects)


def test_the_fingerprint_sees_every_change() -> None:
    tables = [
        {"a": pa.array([1, 2])},
        {"a": pa.array([2, 1])},
        {"a": pa.array([1, 2], pa.int32())},
        {"b": pa.array([1, 2])},
        {"a": pa.array([1, None])},
        {"a": pa.array([1, 0])},
        {"a": pa.array([1.0, 2.0])},
        {"a": pa.array([1.0, float("nan")])},
        {"a": pa.array([1.0, None])},
        {"a": pa.array(["1", "2"])},
        {"a": pa.array(["12", ""])},
        {"a": pa.array(["12", None])},
        {"a": tensor_column(np.array([[1, 2], [3, 4]]))},
        {"a": tensor_column(np.array([[[1], [2]], [[3], [4]]]))},
        {"a": pa.array([1, 2]), "c": pa.array([1, 2])},
    ]
    assert len({fingerprint(pa.table(columns)) for columns in tables}) == len(tables)


def test_the_fingerprint_ignores_chunks_slices_and_metadata(table: pa.Table) -> None:
    pieces = pa.concat_tables([table.slice(0, 3), table.slice(3, 20), table.slice(23)])
    longer = pa.concat_tables([table, table])
    assert fingerprint(pieces) == fingerprint(table) == fingerprint(longer.slice(40))
    assert fingerprint(table.replace_schema_metadata({"a": "b"})) == fingerprint(table)


PINNED = "010000000000210202202020"
