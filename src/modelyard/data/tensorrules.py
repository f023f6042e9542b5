"""The contract's rules on a column of tensors: shape, datatype, missing, finite, range of every element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelyard.data.contract import Column
from modelyard.data.findings import Finding
from modelyard.data.physical import tensor_datatype, tensor_values


def tensor_findings(values: pa.ChunkedArray, column: Column) -> tuple[list[Finding], list[str], list[str]]:
    """Findings on a tensor column, and in words what was checked and what was not."""
    name = column.name
    total = len(values)
    findings: list[Finding] = []
    shape = tuple(values.type.shape)
    if shape != column.shape:
        message = f"{name!r}: the tensors are {list(shape)}, the contract says {list(column.shape or ())}"
        return (
            [Finding(name, "shape", total, (str(list(shape)),), message)],
            [],
            [f"{name}: its values, because its shape is wrong"],
        )
    datatype = tensor_datatype(values.type)
    if datatype != column.datatype:
        message = f"{name!r}: the tensors are {datatype}, the contract says {column.datatype}"
        findings.append(Finding(name, "datatype", total, (datatype,), message))
    checked = [f"{name}: shape and datatype"]
    unchecked: list[str] = []
    array, null = tensor_values(values)
    elements = array.reshape(total, math.prod(shape))
    absent, infinite = null, np.zeros(total, np.bool_)
    if elements.dtype.kind == "f" and total:
        # A sum is also NaN for infinities of both signs, and infinite when it overflows: look closer there.
        with np.errstate(invalid="ignore", over="ignore"):
            suspect = ~np.isfinite(elements.sum(axis=1)) & ~null
        absent = null.copy()
        absent[suspect] |= np.isnan(elements[suspect]).any(axis=1)
        infinite[suspect] = np.isinf(elements[suspect]).any(axis=1)
    if column.missing_max < 1:
        checked.append(f"{name}: at most {column.missing_max:.3g} of it missing")
        count = int(absent.sum())
        if count > column.missing_max * total:
            message = f"{name!r}: {count:,} of {total:,} tensors are missing or hold NaN"
            findings.append(
                Finding(
                    name, "missing", count, (), f"{message}; the contract allows {column.missing_max:.3g}"
                )
            )
    else:
        unchecked.append(f"{name}: any number may be missing")
    checked.append(f"{name}: finite")
    if infinite.any():
        count = int(infinite.sum())
        message = f"{name!r}: {count:,} of {total:,} tensors hold infinite elements"
        findings.append(Finding(name, "infinite", count, ("inf",), message))
    findings += _range_findings(elements, column, checked, unchecked)
    return findings, checked, unchecked


def _range_findings(
    elements: npt.NDArray[Any], column: Column, checked: list[str], unchecked: list[str]
) -> list[Finding]:
    findings = []
    for rule, bound in (("minimum", column.minimum), ("maximum", column.maximum)):
        if bound is None or np.isinf(bound):
            unchecked.append(f"{column.name}: no {rule} of the elements is promised")
            continue
        low = rule == "minimum"
        what = f"at {'least' if low else 'most'} {bound:g}"
        checked.append(f"{column.name}: every element {what}")
        edge = elements.dtype.type(bound) if elements.dtype.kind == "f" else bound
        if not elements.size or _within(elements, edge, low=low):
            continue
        finite = np.isfinite(elements)
        broken = ((elements < edge) if low else (elements > edge)) & finite
        rows = broken.any(axis=1)
        count = int(rows.sum())
        if not count:
            continue
        worst = elements[broken][:3]
        examples = tuple(f"{float(value):.9g}" for value in worst)
        message = (
            f"{column.name!r}: {count:,} of {len(elements):,} tensors have elements that are not {what}, "
            f"such as {', '.join(examples)}"
        )
        findings.append(Finding(column.name, rule, count, examples, message))
    return findings


def _within(elements: npt.NDArray[Any], edge: Any, *, low: bool) -> bool:
    extreme = elements.min() if low else elements.max()
    return bool(extreme >= edge if low else extreme <= edge)
