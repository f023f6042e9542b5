"""Journals of the prediction log: what was written comes back, and what is damaged is said to be."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.core.spec import DATATYPES, numpy_type
from modelyard.data.contract import Column, Contract
from modelyard.serve.journal import MAGIC, Journal, read_journal
from modelyard.serve.piece import Piece
from modelyard.serve.segment import finish_segment, read_segment

CONTRACT = Contract(
    "m",
    (
        Column("x", "tensor", shape=(2,), datatype="FP32"),
        Column("note", "text"),
        Column("y", "category", role="label", categories=("a", "b")),
    ),
)
RELEASE = SimpleNamespace(digest="sha256:" + "b" * 64, version="1", labels=("a", "b"), contract=CONTRACT)
EVERY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def piece(*counts: int, broken: bool = False, **other: Any) -> Piece:
    rows = sum(counts)
    return Piece(
        "primary",
        "ok",
        [f"r{number}" for number in range(len(counts))],
        list(counts),
        np.arange(len(counts), dtype=np.float64) + 0.5,
        np.full(len(counts), 0.001),
        {"x": np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2),
         "note": np.array([["é" * number] for number in range(rows)], object)},
        {"probabilities": np.array([[0.25, 0.75]] * rows, np.float32)},
        [["x: maximum"]] * rows if broken else [],
        **other,
    )  # fmt: skip


def written(path: Path, *pieces: Piece) -> Path:
    with Journal(path, "e", RELEASE) as journal:
        for item in pieces:
            journal.add(item)
    assert journal.size == path.stat().st_size
    return path


def test_pieces_come_back_as_they_were(tmp_path: Path) -> None:
    put = [piece(1, 2), piece(3, broken=True), piece(1)]
    facts, found = read_journal(written(tmp_path / "a.journal", *put))
    assert (facts.endpoint, facts.release()) == ("e", facts.release())
    assert facts.release().contract == CONTRACT and facts.release().labels == ("a", "b")
    for was, now in zip(put, found, strict=True):
        for name in Piece.__struct_fields__:
            np.testing.assert_equal(getattr(now, name), getattr(was, name))


@EVERY
@given(
    datatype=st.sampled_from([name for name in DATATYPES if name != "BYTES"]),
    shape=st.lists(st.integers(1, 3), min_size=0, max_size=3),
    strided=st.booleans(),
)
def test_every_datatype_and_shape(tmp_path: Path, datatype: str, shape: list[int], strided: bool) -> None:
    values = np.random.default_rng(0).integers(0, 2, (4, *shape)).astype(numpy_type(datatype))
    if strided:
        values = values[::-2]
    item = piece(len(values))
    item.inputs = {"t": values, "nothing": np.zeros((len(values), 0), np.int8)}
    (back,) = read_journal(written(tmp_path / "a.journal", item))[1]
    np.testing.assert_array_equal(back.inputs["t"], values)
    assert back.inputs["t"].dtype == values.dtype and back.inputs["nothing"].shape == (len(values), 0)


def test_as_rows_and_as_parquet(tmp_path: Path) -> None:
    path = written(tmp_path / "a.journal", piece(1, 2), piece(1, broken=True))
    rests: list[None] = []
    table = read_segment(path, lambda: rests.append(None))
    assert table["id"].to_pylist() == ["r0", "r1.0", "r1.1", "r0"] and len(rests) == 2
    assert table["breaches"].to_pylist() == [[], [], [], ["x: maximum"]]
    assert table["label"].to_pylist() == ["b"] * 4
    finish_segment(path)
    assert not path.exists() and read_segment(path.with_suffix(".parquet")).equals(table)


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    bad = piece(1)
    bad.inputs["note"] = np.array([[b"bytes"]], object)
    with pytest.raises(TypeError, match="texts"):
        written(tmp_path / "a.journal", piece(1), bad)
    with Journal(tmp_path / "a.journal", "e", RELEASE):
        pass
    assert list(tmp_path.iterdir()) == []


def test_wherever_it_is_cut_it_is_said(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.journal", piece(2)).read_bytes()
    torn = tmp_path / "b.journal"
    for length in range(len(whole)):
        torn.write_bytes(whole[:length])
        with pytest.raises(OSError, match=r"cut short|no journal"):
            read_segment(torn)


@EVERY
@given(data=st.data())
def test_whatever_is_changed_it_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.journal"
    whole = bytearray(written(path, piece(1, 2)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(whole))
    with suppress(OSError):
        assert read_segment(path).num_rows == 3


def test_without_a_head_it_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    path.write_bytes(MAGIC + bytes(16))
    with pytest.raises(OSError, match="does not say"):
        read_segment(path)
