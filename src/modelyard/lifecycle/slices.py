"""Declared slices and groups as masks over the rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import ProjectError
from modelyard.core.names import did_you_mean
from modelyard.lifecycle.options import SliceOptions
from modelyard.lifecycle.project import Project


def slice_masks(project: Project, table: Any) -> dict[str, npt.NDArray[np.bool_]]:
    """A boolean mask `[N]` for each `[[slice]]`; a missing value is in no slice.

    Raises `ProjectError` for a column that the table lacks or that cannot be compared.
    """
    return {item.name: _mask(item, table) for item in project.slices}


def group_values(project: Project, table: Any) -> dict[str, npt.NDArray[Any]]:
    """Each row's group as text, for every column named in `[policy] groups`."""
    return {name: np.array([str(value) for value in _column(name, table)]) for name in project.policy.groups}


def _column(name: str, table: Any) -> list[Any]:
    if name not in table.column_names:
        raise ProjectError(
            "a slice or group names a column that the data does not have",
            value=name,
            rule="a column of the data",
            fix=did_you_mean(name, table.column_names),
        )
    values: list[Any] = table.column(name).to_pylist()
    return values


def _mask(item: SliceOptions, table: Any) -> npt.NDArray[np.bool_]:
    def inside(value: Any) -> bool:
        if value is None:
            return False
        if item.equals is not None and value != item.equals and str(value) != str(item.equals):
            return False
        if item.at_least is not None and not value >= item.at_least:
            return False
        return item.below is None or bool(value < item.below)

    try:
        return np.array([inside(value) for value in _column(item.column, table)], dtype=np.bool_)
    except TypeError as error:
        raise ProjectError(
            f"the slice {item.name!r} compares column {item.column!r} with a value of another type",
            value=str(error),
            rule="numbers with numbers, texts with equals",
        ) from error
