"""The contract on the request's path: numpy only, a few microseconds for a small batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import RequestError
from modelyard.core.names import did_you_mean
from modelyard.core.spec import Tensors, numpy_type
from modelyard.data.contract import Column, Contract

_SCALARS = ("number", "integer", "boolean")


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule that some rows of a batch break, with one offending value as text."""

    column: str
    rule: str
    rows: int
    example: str


class LiveContract:
    """Checks the tensors of requests by the same rules as `validate` checks tables.

    Rules: missing, minimum, maximum, infinite, whole, boolean, category. A share of missing values means
    nothing in a batch of one, so where the contract allows some to be missing, none is reported here:
    windows of the log are judged by that. All scalar columns are compared in one vector operation, and
    only a batch that breaks something is looked at column by column.
    """

    def __init__(self, contract: Contract) -> None:
        scalars = [column for column in contract.features if column.kind in _SCALARS]
        self._scalars = tuple(scalars)
        self._names = [column.name for column in scalars]
        self._texts = tuple(
            (column, frozenset((*(column.categories or ()), *(("",) if column.missing_max else ()))))
            for column in contract.features
            if column.kind in ("category", "text") and (column.kind == "category" or column.missing_max == 0)
        )
        self._tensors = tuple(_bounded(column) for column in contract.features if column.kind == "tensor")
        largest = float(np.finfo(np.float32).max)
        self._low = np.array([_low(column, -largest) for column in scalars], np.float32)
        self._high = np.array([_high(column, largest) for column in scalars], np.float32)
        whole = [place for place, column in enumerate(scalars) if column.kind != "number"]
        self._whole = np.array(whole, np.intp)

    def breaches(self, tensors: Tensors) -> tuple[Breach, ...]:
        """The rules that the batch breaks, in the contract's order of kinds; empty when it keeps all.

        The tensors must have the contract's names and shapes, as the codec made sure; a name that is
        absent raises `RequestError`.
        """
        found: list[Breach] = []
        try:
            if self._scalars:
                self._check_scalars(tensors, found)
            for column, allowed in self._texts:
                _check_text(tensors[column.name], column, allowed, found)
            for column, low, high in self._tensors:
                _check_tensor(tensors[column.name], column, low, high, found)
        except KeyError as error:
            name = str(error.args[0])
            raise RequestError(f"the input {name!r} is absent", fix=did_you_mean(name, tensors)) from None
        return tuple(found)

    def broken(self, tensors: Tensors, rows: int, breaches: tuple[Breach, ...]) -> list[list[str]]:
        """`column: rule` for each rule that a row breaks, a list a row; `breaches` are those of all rows."""
        found: list[list[str]] = [[] for _ in range(rows)]
        self._attribute(tensors, slice(0, rows), breaches, found)
        return found

    def _attribute(
        self, tensors: Tensors, rows: slice, breaches: tuple[Breach, ...], found: list[list[str]]
    ) -> None:
        """Finds the rows by halving: a clean half costs one check, and so does an all-broken one."""
        if all(breach.rows == rows.stop - rows.start for breach in breaches):
            texts = [f"{breach.column}: {breach.rule}" for breach in breaches]
            for index in range(rows.start, rows.stop):
                found[index] = texts
            return
        middle = (rows.start + rows.stop) // 2
        for half in (slice(rows.start, middle), slice(middle, rows.stop)):
            part = self.breaches({name: values[half] for name, values in tensors.items()})
            if part:
                self._attribute(tensors, half, part, found)

    def _check_scalars(self, tensors: Tensors, found: list[Breach]) -> None:
        values = np.concatenate([tensors[name] for name in self._names], axis=1)
        # NaN compares false both ways, so that it, too, leads to the closer look.
        kept = (values >= self._low) & (values <= self._high)
        if kept.all():
            if not self._whole.size:
                return
            whole = values[:, self._whole]
            if (whole == np.floor(whole)).all():
                return
        for place, column in enumerate(self._scalars):
            _examine(values[:, place], column, found)


def _low(column: Column, smallest: float) -> float:
    if column.kind == "boolean":
        return 0.0
    return smallest if column.minimum is None or math.isinf(column.minimum) else column.minimum


def _high(column: Column, largest: float) -> float:
    if column.kind == "boolean":
        return 1.0
    return largest if column.maximum is None or math.isinf(column.maximum) else column.maximum


def _examine(values: npt.NDArray[Any], column: Column, found: list[Breach]) -> None:
    if column.missing_max == 0:
        _add(values, np.isnan(values), column, "missing", found)
    if column.kind == "boolean":
        _add(values, ~((values == 0) | (values == 1) | np.isnan(values)), column, "boolean", found)
        return
    _add(values, np.isinf(values), column, "infinite", found)
    finite = np.isfinite(values)
    if column.kind == "integer":
        _add(values, finite & (values != np.floor(values)), column, "whole", found)
    _examine_range(values, finite, column, found)


def _examine_range(
    values: npt.NDArray[Any], finite: npt.NDArray[np.bool_], column: Column, found: list[Breach]
) -> None:
    # The bound is rounded as the values were, so that 0.1 is not above 0.1.
    kind = values.dtype.type if values.dtype.kind == "f" else float
    if column.minimum is not None and not math.isinf(column.minimum):
        _add(values, finite & (values < kind(column.minimum)), column, "minimum", found)
    if column.maximum is not None and not math.isinf(column.maximum):
        _add(values, finite & (values > kind(column.maximum)), column, "maximum", found)


def _add(
    values: npt.NDArray[Any], broken: npt.NDArray[np.bool_], column: Column, rule: str, found: list[Breach]
) -> None:
    if not broken.any():
        return
    rows = broken.reshape(len(broken), -1).any(axis=1)
    found.append(Breach(column.name, rule, int(rows.sum()), f"{float(values[broken][0]):.9g}"))


def _check_text(
    values: npt.NDArray[Any], column: Column, allowed: frozenset[str], found: list[Breach]
) -> None:
    texts = values.ravel().tolist()
    if column.kind == "category":
        if allowed.issuperset(texts):
            return
        unknown = [text for text in texts if text and text not in allowed]
        if unknown:
            found.append(Breach(column.name, "category", len(unknown), str(unknown[0])[:60]))
    missing = texts.count("")
    if missing and column.missing_max == 0:
        found.append(Breach(column.name, "missing", missing, ""))


def _bounded(column: Column) -> tuple[Column, Any, Any]:
    """A tensor column with the bounds of its elements, as numpy scalars that compare without conversion."""
    dtype = numpy_type(column.datatype or "FP32")
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        return column, dtype.type(_low(column, -limit)), dtype.type(_high(column, limit))
    return column, _low(column, -math.inf), _high(column, math.inf)


def _check_tensor(values: npt.NDArray[Any], column: Column, low: Any, high: Any, found: list[Breach]) -> None:
    # NaN is the least and the greatest of all, so that it, too, leads to the closer look.
    if not values.size or (values.min() >= low and values.max() <= high):
        return
    elements = values.reshape(len(values), math.prod(values.shape[1:]))
    finite = np.ones(elements.shape, np.bool_)
    if values.dtype.kind == "f":
        finite = np.isfinite(elements)
        if column.missing_max == 0:
            _add(elements, np.isnan(elements), column, "missing", found)
        _add(elements, np.isinf(elements), column, "infinite", found)
    _examine_range(elements, finite, column, found)
