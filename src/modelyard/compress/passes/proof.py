"""The proof of a rewrite: two graphs answer alike on real rows, or the rewrite is not used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from modelyard.core.errors import CompressError, ModelError
from modelyard.core.spec import Tensors
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict

if TYPE_CHECKING:
    from modelyard.model.model import Model

_ROWS = 32


def same_answers(expected: Model, found: Model, rows: Tensors, *, tolerance: float = 1e-3) -> float:
    """The largest difference between two models' answers on the first rows, relative to the largest answer.

    Raises `CompressError` when it is above `tolerance` or one of them cannot run. Rows on which the first
    answers with NaN are not compared; without rows nothing is, and the difference is 0.
    """
    first = {name: values[:_ROWS] for name, values in rows.items()}
    if set(first) != {spec.name for spec in expected.signature.inputs} or not all(map(len, first.values())):
        return 0.0
    answers = []
    for model in (expected, found):
        try:
            session = OnnxRuntime().load(model)
            answers.append(predict(session, first))
            session.close()
        except ModelError as error:
            raise CompressError("the rewritten graph cannot run", value=str(error)[:300]) from error
    was, now = answers
    usable = np.isfinite(was)
    scale = max(1.0, float(np.abs(was[usable]).max(initial=0.0)))
    if was.shape != now.shape or not np.isfinite(now[usable]).all():
        raise CompressError("the rewritten graph answers otherwise", rule="the same shape, finite numbers")
    apart = float(np.abs(now - was)[usable].max(initial=0.0)) / scale
    if apart > tolerance:
        raise CompressError(
            "the rewritten graph answers otherwise", value=apart, rule=f"at most {tolerance:g}"
        )
    return apart
