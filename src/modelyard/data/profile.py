"""The reference distribution of a table or of predictions: small, and mergeable across parts and time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelyard.core.errors import DataError
from modelyard.core.format import check_format
from modelyard.data.columnprofile import CategoricalProfile, NumericProfile, TensorProfile
from modelyard.data.contract import Column, Contract
from modelyard.data.physical import Table, as_floats, as_text, fits, plain, tensor_values
from modelyard.data.sketch import anchor_of

FORMAT = 1
"""Version of the stored form. Raise it when an old reader would misread a new profile."""

ColumnProfile: TypeAlias = NumericProfile | CategoricalProfile | TensorProfile


@dataclass(frozen=True, slots=True)
class Profile:
    """The distribution of each column over `rows` rows. Its size follows from the columns alone."""

    rows: int
    columns: Mapping[str, ColumnProfile]

    def merge(self, other: Profile) -> Profile:
        """The profile of both sets of rows; counts are exact, means and variances to rounding.

        Raises `ValueError` when the two do not profile the same columns under the same contract.
        """
        if self.columns.keys() != other.columns.keys():
            raise ValueError(f"profiles of {sorted(self.columns)} and {sorted(other.columns)} do not merge")
        merged = {name: _merged(name, one, other.columns[name]) for name, one in self.columns.items()}
        return Profile(self.rows + other.rows, merged)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": FORMAT,
            "rows": self.rows,
            "columns": {name: column.to_json() for name, column in self.columns.items()},
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Profile:
        """The inverse of `to_json`; raises `DataError` for a version or kind that is not known."""
        check_format(value.get("version"), FORMAT, "the profile", DataError, key="version")
        return Profile(
            int(value["rows"]), {name: _column_from_json(item) for name, item in value["columns"].items()}
        )


def profile(
    table: Table, contract: Contract, *, extra: Mapping[str, npt.NDArray[Any]] | None = None
) -> Profile:
    """Profiles the features and the label that the table has, and `extra` columns such as predictions.

    Numbers, integers and booleans become `NumericProfile`, categories `CategoricalProfile`, texts the
    `NumericProfile` of their length in characters, tensors `TensorProfile`. Columns that are keys, times,
    ignored, absent, or of a type that does not fit are left out. In `extra`, text is counted by the
    contract's labels and numbers are profiled as numbers, whatever their shape `[N]` or `[N, 1]`.
    """
    table = plain(table)
    columns: dict[str, ColumnProfile] = {}
    for column in contract.columns:
        if column.role not in ("feature", "label") or column.name not in table.column_names:
            continue
        values = table.column(column.name)
        if fits(values.type, column.kind):
            columns[column.name] = _profiled(values, column)
    for name, array in (extra or {}).items():
        if len(array) != table.num_rows:
            raise ValueError(f"{name!r} has {len(array)} rows, the table has {table.num_rows}")
        columns[name] = _profiled_array(np.asarray(array).reshape(len(array)), contract.labels)
    return Profile(table.num_rows, columns)


def merged(profiles: Iterable[Profile]) -> Profile:
    """The profile of all the rows behind one or more profiles; `ValueError` for none."""
    result: Profile | None = None
    for item in profiles:
        result = item if result is None else result.merge(item)
    if result is None:
        raise ValueError("there is no profile to merge")
    return result


def _profiled(values: pa.ChunkedArray, column: Column) -> ColumnProfile:
    if column.kind == "category":
        return CategoricalProfile.of(as_text(values), column.categories or ())
    if column.kind == "tensor":
        return TensorProfile.of(*tensor_values(values))
    null = values.null_count
    if column.kind == "text":
        import pyarrow.compute as pc

        return NumericProfile.of(as_floats(pc.utf8_length(as_text(values))), null, anchor=0.0)
    return NumericProfile.of(as_floats(values), null, anchor=anchor_of(column.minimum, column.maximum))


def _profiled_array(values: npt.NDArray[Any], labels: tuple[str, ...]) -> ColumnProfile:
    if values.dtype.kind in "OUS":
        text = pa.chunked_array(
            [pa.array([None if value is None else str(value) for value in values], pa.string())]
        )
        return CategoricalProfile.of(text, labels)
    return NumericProfile.of(values.astype(np.float64), 0, anchor=0.0)


def _merged(name: str, one: ColumnProfile, other: ColumnProfile) -> ColumnProfile:
    if isinstance(one, NumericProfile) and isinstance(other, NumericProfile):
        return one.merge(other)
    if isinstance(one, CategoricalProfile) and isinstance(other, CategoricalProfile):
        return one.merge(other)
    if isinstance(one, TensorProfile) and isinstance(other, TensorProfile):
        return one.merge(other)
    raise ValueError(f"the profiles of {name!r} are of different kinds and do not merge")


def _column_from_json(value: Mapping[str, Any]) -> ColumnProfile:
    kinds: dict[str, type[NumericProfile] | type[CategoricalProfile] | type[TensorProfile]] = {
        "numeric": NumericProfile,
        "categorical": CategoricalProfile,
        "tensor": TensorProfile,
    }
    if value.get("kind") not in kinds:
        raise DataError(
            "a column's profile has an unknown kind", value=value.get("kind"), rule=", ".join(kinds)
        )
    return kinds[value["kind"]].from_json(value)
