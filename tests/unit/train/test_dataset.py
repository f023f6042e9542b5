from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelyard.core.errors import TrainError
from modelyard.train.dataset import Dataset


def test_one_class_only_is_refused(points: Dataset) -> None:
    with pytest.raises(TrainError, match=r"only one class: got \['left'\]"):
        replace(points, train_targets=np.zeros_like(points.train_targets))


def test_an_empty_part_is_refused(points: Dataset) -> None:
    nothing = {name: array[:0] for name, array in points.validation.items()}
    with pytest.raises(TrainError, match="validation part is empty"):
        replace(points, validation=nothing, validation_targets=points.validation_targets[:0])


def test_no_feature_unequal_rows_and_unequal_columns_are_refused(points: Dataset) -> None:
    with pytest.raises(TrainError, match="no feature"):
        replace(points, train={})
    with pytest.raises(TrainError, match="has 80 rows and the targets 81"):
        replace(points, train={"a": points.train["a"][:80], "b": points.train["b"]})
    with pytest.raises(TrainError, match="different columns"):
        replace(points, train={"a": points.train["a"]})


def test_a_target_that_is_no_number_or_no_label_is_refused(points: Dataset, prices: Dataset) -> None:
    with pytest.raises(TrainError, match="targets hold NaN"):
        replace(prices, train_targets=np.where(np.arange(80) == 3, np.nan, prices.train_targets))
    with pytest.raises(TrainError, match="no index into the labels"):
        replace(points, validation_targets=points.validation_targets + 1)


def test_the_digest_sees_every_value(points: Dataset, prices: Dataset) -> None:
    assert points.digest() == replace(points).digest()
    changed = {**points.train, "a": points.train["a"].copy()}
    changed["a"][5, 0] += 1e-3
    assert replace(points, train=changed).digest() != points.digest()
    text = {**prices.train, "color": np.where(np.arange(80)[:, None] == 0, "green", prices.train["color"])}
    text["color"] = text["color"].astype(object)
    assert replace(prices, train=text).digest() != prices.digest()


def test_a_sample_keeps_every_class(points: Dataset) -> None:
    small = points.sample(5, seed=1)
    assert small.rows == 5
    assert set(small.train_targets) == {0, 1, 2}
    assert points.sample(1000) is points
