from __future__ import annotations

import numpy as np
import pytest

from modelyard.data.contract import Column
from modelyard.data.validation_plan import Plan, Rule, shown


def test_a_planned_rule_is_said_to_be_checked() -> None:
    plan, column = Plan(), Column("x", "number")
    low, high = (
        Rule(column, name, f"x {sign} 0", promise=name) for name, sign in (("low", "<"), ("high", ">"))
    )
    plan.add(low)
    plan.add(high)
    assert plan.rules == {"x": [low, high]}
    assert plan.checked == ["x: low", "x: high"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1 + 0.2, "0.3"),
        (np.float32(0.1), "0.100000001"),
        (2**62, str(2**62)),
        (None, "None"),
        ("a" * 60, "a" * 60),
        ("a" * 61, "a" * 59 + "…"),
        ("größe", "größe"),
    ],
)
def test_values_are_shown_short(value: object, text: str) -> None:
    assert shown(value) == text
