from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import RequestError
from modelyard.data.contract import Column, Contract
from modelyard.data.live import Breach, LiveContract
from modelyard.data.tensors import features, table_of
from modelyard.data.validate import validate

CONTRACT = Contract(
    "t",
    (
        Column("n", "number", minimum=-1.5, maximum=0.1),
        Column("m", "number", missing_max=1),
        Column("i", "integer", minimum=0, maximum=10),
        Column("b", "boolean", missing_max=1),
        Column("c", "category", categories=("a", "ö")),
        Column("d", "category", categories=("a", "b"), missing_max=1),
        Column("t", "text"),
        Column("x", "tensor", shape=(2,), datatype="FP32", minimum=0, maximum=1),
        Column("y", "category", "label", categories=("0", "1")),
    ),
)

number = st.one_of(st.floats(width=32), st.sampled_from([0.0, 1.0, 0.5, -1.5, np.float32(0.1).item(), 10.0]))
text = st.sampled_from(["a", "b", "ö", "", "zz"])
batch = st.integers(1, 6).flatmap(
    lambda rows: st.fixed_dictionaries(
        {
            **{name: st.lists(number, min_size=rows, max_size=rows) for name in "nmi"},
            "b": st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), min_size=rows, max_size=rows),
            **{name: st.lists(text, min_size=rows, max_size=rows) for name in "cdt"},
            "x": st.lists(st.tuples(number, number), min_size=rows, max_size=rows),
        }
    )
)


@settings(max_examples=60, deadline=None)
@given(batch)
def test_live_and_batch_find_the_same(columns: dict[str, list]) -> None:
    tensors = {
        name: np.array(values, object if name in "cdt" else np.float32).reshape(len(values), -1)
        for name, values in columns.items()
    }
    live = {(item.column, item.rule, item.rows) for item in LiveContract(CONTRACT).breaches(tensors)}
    # The table holds the very float32 that the model gets.
    plain = {
        name: pa.array(values, pa.float32())
        if name in "nmib"
        else pa.array([value or None for value in values])
        for name, values in columns.items()
        if name != "x"
    }
    table = table_of({**{column.name: tensors[column.name] for column in CONTRACT.features}}, CONTRACT)
    for name, values in plain.items():
        table = table.set_column(table.column_names.index(name), name, pa.chunked_array([values]))
    batch = {
        (item.column, item.rule, item.rows)
        for item in validate(table, CONTRACT, label=False).findings
        if CONTRACT.column(item.column).missing_max == 0 or item.rule != "missing"
    }
    assert live == {item for item in batch if item[1] != "type"}


def test_good_rows_break_nothing(table: pa.Table, contract: Contract) -> None:
    assert LiveContract(contract).breaches(features(table, contract)) == ()


def test_a_breach_names_column_rule_rows_and_example(table: pa.Table, contract: Contract) -> None:
    tensors = features(table, contract)
    tensors["height"] = tensors["height"].copy()
    tensors["height"][3:5] = 9.0
    assert LiveContract(contract).breaches(tensors) == (Breach("height", "maximum", 2, "9"),)


def test_an_absent_input_is_a_request_error(contract: Contract) -> None:
    with pytest.raises(RequestError, match="'age'"):
        LiveContract(contract).breaches({})


@pytest.mark.serial
def test_a_small_batch_takes_microseconds() -> None:
    columns = tuple(Column(f"c{place}", "number", minimum=0, maximum=1) for place in range(20))
    live = LiveContract(Contract("t", (*columns, Column("y", "number", "label"))))
    tensors = {column.name: np.full((1, 1), 0.5, np.float32) for column in columns}
    best = min(_seconds(live, tensors) for _ in range(20))
    assert best / len(columns) < 3e-6


def _seconds(live: LiveContract, tensors: dict[str, np.ndarray]) -> float:
    start = time.perf_counter()
    for _ in range(100):
        live.breaches(tensors)
    return (time.perf_counter() - start) / 100


def test_the_module_needs_neither_arrow_nor_duckdb() -> None:
    import subprocess
    import sys

    code = (
        "import sys; import modelyard.data.live, modelyard.data.rows; "
        "print([name for name in ('pyarrow', 'duckdb', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
