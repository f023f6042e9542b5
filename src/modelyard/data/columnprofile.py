"""The distribution of one column: of numbers, of categories, or of the statistics of tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.data.sketch import Floats, Sketch

TRACKED = 64
"""How many categories are counted one by one; the rest count as other."""


@dataclass(frozen=True, slots=True)
class NumericProfile:
    """Numbers: of `count` values, `missing` were null, `nan` not a number and `inf` infinite.

    `mean`, `m2` (the sum of squared deviations), `min` and `max` are of the finite rest; `min` and `max`
    are `None` when there is no finite value. `sketch` holds the quantiles.
    """

    count: int
    missing: int
    nan: int
    inf: int
    mean: float
    m2: float
    min: float | None
    max: float | None
    sketch: Sketch = field(default_factory=Sketch)
    kind: Literal["numeric"] = "numeric"

    @staticmethod
    def of(values: npt.NDArray[Any], null: int = 0, *, anchor: float = 0.0) -> NumericProfile:
        """The profile of float values `[N]`; `null` of the NaN among them are really nulls."""
        finite = np.asarray(values, np.float64)
        unknown = np.isnan(finite)
        infinite = int(np.isinf(finite).sum())
        nan = int(unknown.sum())
        if nan or infinite:
            finite = finite[np.isfinite(finite)]
        mean = float(finite.mean()) if len(finite) else 0.0
        return NumericProfile(
            count=len(values),
            missing=null,
            nan=nan - null,
            inf=infinite,
            mean=mean,
            m2=float(((finite - mean) ** 2).sum()),
            min=float(finite.min()) if len(finite) else None,
            max=float(finite.max()) if len(finite) else None,
            sketch=Sketch.of(finite, anchor),
        )

    @property
    def finite(self) -> int:
        """How many values are finite numbers."""
        return self.count - self.missing - self.nan - self.inf

    @property
    def missing_rate(self) -> float:
        """The share that is null or NaN; 0 of nothing is 0."""
        return (self.missing + self.nan) / self.count if self.count else 0.0

    @property
    def std(self) -> float:
        """The standard deviation of the finite values (divided by n); NaN when there is none."""
        return math.sqrt(self.m2 / self.finite) if self.finite else math.nan

    def merge(self, other: NumericProfile) -> NumericProfile:
        """The profile of both sets of values (Chan, Golub and LeVeque 1979 for mean and m2)."""
        mine, theirs = self.finite, other.finite
        total = mine + theirs
        delta = other.mean - self.mean
        lows = [value for value in (self.min, other.min) if value is not None]
        highs = [value for value in (self.max, other.max) if value is not None]
        # Two whole terms, not mean + delta * share: so that the order of the two does not matter.
        mean = (self.mean * mine + other.mean * theirs) / total if total else 0.0
        return NumericProfile(
            count=self.count + other.count,
            missing=self.missing + other.missing,
            nan=self.nan + other.nan,
            inf=self.inf + other.inf,
            mean=mean,
            m2=self.m2 + other.m2 + (delta * delta * mine * theirs / total if total else 0.0),
            min=min(lows, default=None),
            max=max(highs, default=None),
            sketch=self.sketch.merge(other.sketch),
        )

    def cdf(self, x: npt.ArrayLike) -> Floats:
        """The share of finite values at most x, to within a bucket of the sketch."""
        return self.sketch.cdf(x)

    def quantile(self, q: float) -> float:
        """The q-quantile of the finite values, within 1 % and inside the observed range; NaN when empty."""
        value = self.sketch.quantile(q)
        if self.min is None or self.max is None:
            return value
        return min(max(value, self.min), self.max)

    def histogram(self, edges: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """How many finite values lie between ascending edges, to within a bucket of the sketch."""
        return self.sketch.histogram(edges)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "count": self.count,
            "missing": self.missing,
            "nan": self.nan,
            "inf": self.inf,
            "mean": self.mean,
            "m2": self.m2,
            "min": self.min,
            "max": self.max,
            "sketch": self.sketch.to_json(),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> NumericProfile:
        return NumericProfile(
            count=int(value["count"]),
            missing=int(value["missing"]),
            nan=int(value["nan"]),
            inf=int(value["inf"]),
            mean=float(value["mean"]),
            m2=float(value["m2"]),
            min=None if value["min"] is None else float(value["min"]),
            max=None if value["max"] is None else float(value["max"]),
            sketch=Sketch.from_json(value["sketch"]),
        )


@dataclass(frozen=True, slots=True)
class CategoricalProfile:
    """Categories: `counts` of the contract's first 64 values (0 included), `other` of all else.

    `missing` counts nulls and empty texts; `count` is all of it together.
    """

    count: int
    missing: int
    counts: Mapping[str, int]
    other: int = 0
    kind: Literal["categorical"] = "categorical"

    @staticmethod
    def of(values: pa.ChunkedArray, categories: tuple[str, ...]) -> CategoricalProfile:
        """The profile of a text column by the categories that are promised."""
        found: dict[str | None, int] = {
            item["values"]: item["counts"] for item in pc.value_counts(values).to_pylist()
        }
        missing = found.pop(None, 0) + found.pop("", 0)
        counts = {category: found.pop(category, 0) for category in categories[:TRACKED]}
        return CategoricalProfile(len(values), missing, counts, sum(found.values()))

    @property
    def missing_rate(self) -> float:
        """The share that is null or empty; 0 of nothing is 0."""
        return self.missing / self.count if self.count else 0.0

    def merge(self, other: CategoricalProfile) -> CategoricalProfile:
        """The profile of both sets of values; other categories are a `ValueError`."""
        if self.counts.keys() != other.counts.keys():
            raise ValueError(f"categories {list(self.counts)} and {list(other.counts)} do not merge")
        return CategoricalProfile(
            self.count + other.count,
            self.missing + other.missing,
            {category: count + other.counts[category] for category, count in self.counts.items()},
            self.other + other.other,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "count": self.count,
            "missing": self.missing,
            # A list, because the order of the categories means something and canonical JSON sorts keys.
            "counts": [[category, count] for category, count in self.counts.items()],
            "other": self.other,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> CategoricalProfile:
        return CategoricalProfile(
            int(value["count"]),
            int(value["missing"]),
            {str(category): int(count) for category, count in value["counts"]},
            int(value["other"]),
        )


@dataclass(frozen=True, slots=True)
class TensorProfile:
    """Tensors: of `count` rows, `missing` were null; `statistics` are profiles of one number a row.

    The statistics are `mean`, `std`, `min`, `max` and `zeros` (the share of elements that are 0).
    """

    count: int
    missing: int
    statistics: Mapping[str, NumericProfile]
    kind: Literal["tensor"] = "tensor"

    @staticmethod
    def of(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> TensorProfile:
        """The profile of tensors `[N, *S]` of which `missing` `[N]` are null."""
        rows = values.reshape(len(values), math.prod(values.shape[1:]))
        if missing.any():
            rows = rows[~missing]
        if rows.dtype.kind != "f" or rows.dtype.itemsize < 4:
            rows = rows.astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = rows.mean(axis=1, dtype=np.float64)
            # The mean of squares, without a copy of the tensors the size of the data.
            square = np.einsum("ij,ij->i", rows, rows, dtype=np.float64) / rows.shape[1]
            statistics = {
                "mean": mean,
                "std": np.sqrt(np.maximum(square - mean * mean, 0.0)),
                "min": rows.min(axis=1),
                "max": rows.max(axis=1),
                "zeros": 1.0 - np.count_nonzero(rows, axis=1) / rows.shape[1],
            }
        return TensorProfile(
            len(values),
            int(missing.sum()),
            {name: NumericProfile.of(column) for name, column in statistics.items()},
        )

    @property
    def missing_rate(self) -> float:
        """The share of rows that are null; 0 of nothing is 0."""
        return self.missing / self.count if self.count else 0.0

    def merge(self, other: TensorProfile) -> TensorProfile:
        """The profile of both sets of tensors."""
        return TensorProfile(
            self.count + other.count,
            self.missing + other.missing,
            {name: one.merge(other.statistics[name]) for name, one in self.statistics.items()},
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "count": self.count,
            "missing": self.missing,
            "statistics": {name: item.to_json() for name, item in self.statistics.items()},
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TensorProfile:
        return TensorProfile(
            int(value["count"]),
            int(value["missing"]),
            {name: NumericProfile.from_json(item) for name, item in value["statistics"].items()},
        )
