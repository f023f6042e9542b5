from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import ContractError
from modelyard.core.spec import TensorSpec
from modelyard.data.contract import Column, Contract

LABEL = Column("y", "number", "label")


def test_inputs_follow_the_one_tensor_rule(contract: Contract) -> None:
    assert contract.inputs() == (
        TensorSpec("age", "FP32", (-1, 1)),
        TensorSpec("height", "FP32", (-1, 1)),
        TensorSpec("smoker", "FP32", (-1, 1)),
        TensorSpec("city", "BYTES", (-1, 1)),
        TensorSpec("note", "BYTES", (-1, 1)),
        TensorSpec("scan", "FP32", (-1, 2, 2)),
    )


def test_roles_are_found(contract: Contract) -> None:
    assert contract.label.name == "risk"
    assert contract.labels == ("low", "high")
    assert contract.task == "classification"
    assert contract.key is not None and contract.key.name == "id"
    assert contract.order is not None and contract.order.name == "seen"


def test_json_round_trip_keeps_the_digest(contract: Contract) -> None:
    again = Contract.from_json(contract.to_json())
    assert again == contract
    assert again.digest == contract.digest


def test_a_later_version_is_refused(contract: Contract) -> None:
    with pytest.raises(ContractError, match="version"):
        Contract.from_json({**contract.to_json(), "version": 2})


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"kind": "numbr"}, "did you mean 'number'"),
        ({"kind": "number", "role": "featur"}, "did you mean 'feature'"),
        ({"kind": "number", "privacy": "secret"}, "privacy"),
        ({"kind": "number", "missing_max": 1.5}, "missing_max"),
        ({"kind": "number", "missing_max": "few"}, "missing_max"),
        ({"kind": "number", "minimum": 3, "maximum": 1}, "swap"),
        ({"kind": "number", "minimum": float("nan")}, "minimum"),
        ({"kind": "text", "minimum": 3}, "no range"),
        ({"kind": "category"}, "categories"),
        ({"kind": "category", "categories": ()}, "categories"),
        ({"kind": "category", "categories": ("a", "a")}, "each value once"),
        ({"kind": "category", "categories": ("a", "")}, "not empty"),
        ({"kind": "category", "categories": (1, 2)}, "quotes"),
        ({"kind": "number", "categories": ("a",)}, "only a category"),
        ({"kind": "tensor", "datatype": "FP32"}, "shape"),
        ({"kind": "tensor", "datatype": "FP32", "shape": (0,)}, "shape"),
        ({"kind": "tensor", "datatype": "BYTES", "shape": (2,)}, "datatype"),
        ({"kind": "number", "shape": (2,)}, "only a tensor"),
        ({"kind": "timestamp"}, "derive numbers"),
        ({"kind": "text", "role": "label"}, "label"),
        ({"kind": "number", "role": "key"}, "key"),
        ({"kind": "text", "role": "order"}, "order"),
        ({"kind": "number", "retention": "long"}, "30d"),
        ({"kind": "number", "deprecated": "no"}, "true or false"),
        ({"kind": "number", "owner": 3}, "a text"),
    ],
)
def test_a_promise_that_contradicts_itself_is_refused(facts: dict[str, Any], word: str) -> None:
    with pytest.raises(ContractError) as caught:
        Column("x", **facts)
    assert word in str(caught.value)
    assert "column 'x'" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "facts", "word"),
    [
        ((Column("x", "number"),), {}, "no label"),
        ((LABEL,), {}, "no feature"),
        ((Column("x", "number"), Column("x", "number"), LABEL), {}, "share a name"),
        ((Column("x", "number"), LABEL, Column("z", "number", "label")), {}, "at most one label"),
        ((Column("x", "number"), LABEL), {"freshness": "7d"}, "order column"),
        ((Column("x", "number"), LABEL), {"freshness": "weekly"}, "30d"),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(
    columns: tuple[Column, ...], facts: dict[str, str], word: str
) -> None:
    with pytest.raises(ContractError) as caught:
        Contract("t", columns, **facts)
    assert word in str(caught.value)


def test_an_unknown_column_gets_a_hint(contract: Contract) -> None:
    with pytest.raises(ContractError, match="did you mean 'height'"):
        contract.column("hight")


def test_an_unknown_key_gets_a_hint() -> None:
    with pytest.raises(ContractError, match="did you mean 'minimum'"):
        Column.from_json({"name": "x", "kind": "number", "minimun": 1})


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True))
def test_any_name_survives_json(names: list[str]) -> None:
    contract = Contract("t", (*(Column(name + "f", "number") for name in names), LABEL))
    assert Contract.from_json(contract.to_json()) == contract
