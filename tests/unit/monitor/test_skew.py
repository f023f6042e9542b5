from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from modelyard.monitor.skew import judge_skew


def offline_of(log: pa.Table) -> pa.Table:
    names = [name for name in log.column_names if name.startswith("in_")]
    table = log.select(["id", *names]).rename_columns(["id", *(name.removeprefix("in_") for name in names)])
    return table.take(np.random.default_rng(0).permutation(table.num_rows))


def test_equal_features_in_another_order_are_quiet(world: Any) -> None:
    log = world.log(300, 21)
    report = judge_skew(log, offline_of(log), world.contract)
    assert report.quiet and len(report.verdicts) == 4


def test_a_float32_in_serving_is_no_skew(world: Any, put: Any) -> None:
    log = world.log(300, 21)
    weights = pa.array(log["in_weight"].to_numpy().astype(np.float32), from_pandas=True)
    assert judge_skew(put(log, "in_weight", weights), offline_of(log), world.contract).quiet


def test_one_feature_computed_otherwise_is_named_with_both_values(world: Any, put: Any) -> None:
    log = world.log(300, 21)
    colours = [str(value).upper() for value in log["in_colour"].to_pylist()]
    (alarm,) = judge_skew(put(log, "in_colour", colours), offline_of(log), world.contract).alarms
    assert (alarm.kind, alarm.subject) == ("skew", "colour")
    assert "in 300 of 300 rows" in alarm.cause and " instead of " in alarm.cause


def test_few_common_keys_are_too_few(world: Any) -> None:
    log = world.log(300, 21)
    report = judge_skew(log, offline_of(log).slice(0, 10), world.contract)
    assert not report.judged and "10 joined of 200" in report.unjudged[0].why
