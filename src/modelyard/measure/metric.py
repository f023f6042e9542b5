"""What a model is judged by: each metric once, in a form that the bootstrap can resample without a loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import ModelyardError
from modelyard.core.names import did_you_mean
from modelyard.measure import classification as c
from modelyard.measure import regression as r

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]

Task: TypeAlias = Literal["classification", "regression", "cost"]
Better: TypeAlias = Literal["higher", "lower"]


class Resample(Protocol):
    """A metric under many row weights at once: truth [N], answer [N,K] or [N], weights [B,N] -> [B]."""

    def __call__(self, truth: Array, answer: Array, weights: Array, /) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its direction and unit.

    `needs` says what it reads of the answers: the most probable class (`labels`), the whole row
    (`probabilities`), a regression's prediction (`values`), or nothing (`cost`: it is measured on a clock
    or a scale). `resample` is `None` for cost metrics only.
    """

    name: str
    task: Task
    needs: Literal["labels", "probabilities", "values", "cost"]
    better: Better
    unit: str = ""
    resample: Resample | None = None

    def compute(self, truth: Array, answer: Array) -> float:
        """The metric's value; NaN where `problem` names one.

        Truth is int64 [N] (class indices) or float [N]; answer is probabilities [N,K], or values [N] or
        [N,1]. Raises `ValueError` when lengths or shapes do not fit, or for a cost metric.

        >>> round(metric("accuracy").compute(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]])), 3)
        0.5
        """
        truth, answer = self.aligned(truth, answer)
        if self.resample is None or self.problem(truth, answer):
            return float("nan")
        return float(self.resample(truth, answer, np.ones((1, len(truth))))[0])

    def aligned(self, truth: Array, answer: Array) -> tuple[Array, Array]:
        """Truth [N] and answer [N,K] or [N] in the types that `resample` wants; `ValueError` otherwise."""
        if self.resample is None:
            raise ValueError(f"{self.name} is a cost: measure it with modelyard.measure.cost")
        truth, answer = np.asarray(truth), np.asarray(answer)
        if truth.ndim == 2 and truth.shape[1] == 1:
            truth = truth[:, 0]
        if self.task == "regression" and answer.ndim == 2 and answer.shape[1] == 1:
            answer = answer[:, 0]
        want = 2 if self.task == "classification" else 1
        if truth.ndim != 1 or answer.ndim != want or len(truth) != len(answer):
            raise ValueError(
                f"{self.name} needs truth [N] and answers {'[N,K]' if want == 2 else '[N]'}, "
                f"got {list(truth.shape)} and {list(answer.shape)}"
            )
        if self.task == "classification":
            if truth.dtype.kind not in "iub":
                raise ValueError(f"{self.name} needs class indices as integers, got {truth.dtype}")
            return truth.astype(np.int64), answer if answer.dtype.kind == "f" else answer.astype(np.float64)
        return truth.astype(np.float64), answer.astype(np.float64)

    def problem(self, truth: Array, answer: Array) -> str:
        """Why the metric has no value on these (aligned) arrays, in a few words; empty when it has one.

        >>> metric("mae").problem(np.array([1.0]), np.array([np.nan]))
        '1 of 1 answers not finite'
        """
        rows = len(truth)
        if rows == 0:
            return "no rows"
        bad = int(np.sum(~np.isfinite(answer).reshape(rows, -1).all(axis=1)))
        if bad:
            return f"{bad} of {rows} answers not finite"
        return self._target_problem(truth, 0 if answer.ndim == 1 else answer.shape[1])

    def _target_problem(self, truth: Array, classes: int) -> str:
        if self.task == "regression":
            bad = int(np.sum(~np.isfinite(truth)))
            if bad:
                return f"{bad} of {len(truth)} targets not finite"
            return "all targets are equal" if self.name == "r2" and np.ptp(truth) == 0 else ""
        outside = int(np.sum((truth < 0) | (truth >= classes)))
        if outside:
            return f"{outside} of {len(truth)} targets outside the {classes} classes"
        one = self.name == "roc_auc" and (classes < 2 or np.ptp(truth) == 0)
        return "only one class among the targets" if one else ""

    def worse(self, difference: float) -> float:
        """How much worse a candidate is whose value minus the reference's is `difference`; negative: better.

        >>> metric("accuracy").worse(-0.02), metric("mae").worse(-0.02)
        (0.02, -0.02)
        """
        return -difference if self.better == "higher" else difference


def _catalogue(*metrics: Metric) -> dict[str, Metric]:
    return {item.name: item for item in metrics}


METRICS: Mapping[str, Metric] = _catalogue(
    Metric("accuracy", "classification", "labels", "higher", "", c.accuracy),
    Metric("balanced_accuracy", "classification", "labels", "higher", "", c.balanced_accuracy),
    Metric("f1_macro", "classification", "labels", "higher", "", c.f1_macro),
    Metric("precision_macro", "classification", "labels", "higher", "", c.precision_macro),
    Metric("recall_macro", "classification", "labels", "higher", "", c.recall_macro),
    Metric("log_loss", "classification", "probabilities", "lower", "nats", c.log_loss),
    Metric("brier", "classification", "probabilities", "lower", "", c.brier),
    Metric("roc_auc", "classification", "probabilities", "higher", "", c.roc_auc),
    Metric("expected_calibration_error", "classification", "probabilities", "lower", "", c.calibration_error),
    Metric("mae", "regression", "values", "lower", "", r.mean_absolute_error),
    Metric("rmse", "regression", "values", "lower", "", r.root_mean_squared_error),
    Metric("r2", "regression", "values", "higher", "", r.r2),
    Metric("mape", "regression", "values", "lower", "", r.mean_absolute_percentage_error),
    Metric("median_absolute_error", "regression", "values", "lower", "", r.median_absolute_error),
    Metric("max_error", "regression", "values", "lower", "", r.max_error),
)
"""The quality metrics, by name; each agrees with scikit-learn's of that name (a test proves it)."""

COST_METRICS: Mapping[str, Metric] = _catalogue(
    Metric("latency_p50", "cost", "cost", "lower", "s"),
    Metric("latency_p99", "cost", "cost", "lower", "s"),
    Metric("throughput", "cost", "cost", "higher", "items/s"),
    Metric("model_size", "cost", "cost", "lower", "bytes"),
    Metric("peak_memory", "cost", "cost", "lower", "bytes"),
    Metric("error_rate", "cost", "cost", "lower", ""),
)
"""What a requirement may also name; measured by `modelyard.measure.cost` or on the service."""


def metric(name: str) -> Metric:
    """The metric of that name, cost metrics included; `ModelyardError` with "did you mean" otherwise.

    >>> metric("mae").better
    'lower'
    """
    found = METRICS.get(name) or COST_METRICS.get(name)
    if found is None:
        raise ModelyardError("unknown metric", value=name, fix=did_you_mean(name, [*METRICS, *COST_METRICS]))
    return found
