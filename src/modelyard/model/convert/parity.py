"""The proof that a graph answers as what was trained does, on real rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import ConversionError, ModelError
from modelyard.core.spec import Tensors
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict

CLAIM = "model.parity"
TOLERANCE = 1e-4
_SINGLES = 8
_STRAY = 1000
_BATCH = 1024


def prove_parity(
    model: Model, expected: npt.NDArray[Any], sample: Tensors, *, tolerance: float | None, stray: bool
) -> Verdict:
    """A passed verdict, or `ConversionError` with the numbers and the first row that differs.

    `expected` holds the trained object's answers for the rows of `sample`. A row agrees when no value
    differs by more than `tolerance`: absolute for probabilities, relative to the largest answer for
    regression (never below absolute). With `stray`, one row in a thousand may disagree: float32
    preprocessing can carry a value across a tree's threshold; the verdict says how many did. The answers
    for single rows must equal those in a batch.
    """
    allowed = TOLERANCE if tolerance is None else tolerance
    session = OnnxRuntime().load(model)
    try:
        answers = predict(session, sample, batch=_BATCH)
        singles = predict(session, {key: array[:_SINGLES] for key, array in sample.items()}, batch=1)
    except ModelError as error:
        raise ConversionError(
            "the graph cannot run on the rows",
            value=str(error),
            rule="batches of any size",
            fix="use -1 or x.shape[0] in reshape and view, and no constant",
        ) from error
    finally:
        session.close()
    if answers.shape != expected.shape:
        raise ConversionError(
            "the graph's answer has another shape", value=answers.shape, rule=str(expected.shape)
        )
    scale = _scale(model, expected)
    apart = _difference(answers, expected)
    worst = float(apart.max())
    beyond = np.flatnonzero(apart.max(axis=1) > allowed * scale)
    disagree = _disagreeing(answers, expected, allowed) if model.task == "classification" else 0
    may_stray = len(expected) // _STRAY if stray else 0
    if len(beyond) > may_stray:
        row = int(beyond[0])
        became = f"{_show(expected[row])} became {_show(answers[row])}"
        raise ConversionError(
            f"the ONNX graph answers differently in {len(beyond)} of {len(expected)} rows, "
            f"by up to {worst:.3g}; first in row {row}, where {became}",
            rule=f"at most {allowed * scale:.3g} apart",
            fix=f"leave out the step that converts wrongly, or give a tolerance; inputs {_row(sample, row)}",
        )
    together = float(_difference(answers[: len(singles)], singles).max())
    if together > allowed * scale:
        raise ConversionError(
            "the graph answers a row differently when it is alone",
            value=together,
            rule=f"at most {allowed * scale:.3g} apart",
            fix="remove what mixes rows of a batch (batch statistics in evaluation, normalising over dim 0)",
        )
    return _verdict(
        model,
        {
            "rows": len(expected),
            "max_abs_difference": worst,
            "tolerance": allowed * scale,
            "rows_beyond": len(beyond),
            "disagreeing_labels": disagree,
            "batch_difference": together,
        },
    )


def same_answers(first: npt.NDArray[Any], second: npt.NDArray[Any], what: str) -> None:
    """Refuses what answers differently when asked twice: it is no function of its inputs."""
    if not np.array_equal(first, second, equal_nan=True):
        raise ConversionError(
            f"{what} answers the same rows differently when asked twice",
            value=float(np.nanmax(np.abs(first.astype(np.float64) - second))),
            rule="an answer that depends on the inputs only",
            fix="remove randomness and counters from the evaluation (functional.dropout needs training=...)",
        )


def _verdict(model: Model, numbers: dict[str, float]) -> Verdict:
    beyond = numbers["rows_beyond"]
    strays = f"; {beyond} rows beyond it" if beyond else ""
    worst, bound = numbers["max_abs_difference"], numbers["tolerance"]
    return Verdict(
        CLAIM,
        True,
        f"on {numbers['rows']} rows the graph differs from what was trained by at most {worst:.3g} "
        f"(allowed {bound:.3g}{strays}); {numbers['disagreeing_labels']} labels differ",
        (Measurement("max_abs_difference", worst, n=int(numbers["rows"])),),
        bound,
        {**numbers, "model": model.digest, "producer": model.producer},
    )


def _scale(model: Model, expected: npt.NDArray[Any]) -> float:
    if model.task == "classification":
        return 1.0
    finite = np.abs(expected[np.isfinite(expected)])
    return max(1.0, float(finite.max(initial=0.0)))


def _difference(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Absolute differences; equal non-finite values differ by 0, unequal ones by infinity."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))


def _disagreeing(answers: npt.NDArray[Any], expected: npt.NDArray[Any], allowed: float) -> int:
    """Rows whose label differs and was not a tie within the tolerance."""
    rows = np.arange(len(expected))
    chosen, right = answers.argmax(axis=1), expected.argmax(axis=1)
    lead = expected[rows, right] - expected[rows, chosen]
    return int(np.count_nonzero((chosen != right) & (lead > 2 * allowed)))


def _show(values: npt.NDArray[Any]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values[:6])
    return f"[{shown}{', …' if len(values) > 6 else ''}]"


def _row(sample: Tensors, row: int) -> str:
    parts = [
        f"{name}={array[row].ravel()[0]!r}" if array[row].size == 1 else f"{name}={list(array.shape[1:])}"
        for name, array in list(sample.items())[:4]
    ]
    return ", ".join(parts)
