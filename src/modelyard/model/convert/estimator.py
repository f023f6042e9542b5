"""What an estimator answers for named tensors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import ConversionError
from modelyard.core.spec import Tensors
from modelyard.model.convert.frame import frame
from modelyard.model.convert.from_sklearn import class_columns
from modelyard.model.model import Task


def estimator_answers(trained: Any, sample: Tensors, task: Task, classes: int) -> npt.NDArray[Any]:
    """Probabilities [N, classes], zero for classes that it never saw, or predictions [N, 1]."""
    with warnings.catch_warnings():
        # Estimators warn about feature names and numerics; neither changes what they answer.
        warnings.simplefilter("ignore")
        seen = class_columns(trained, classes) if task == "classification" else ()
        try:
            if task == "regression":
                answer = np.asarray(trained.predict(frame(sample)), dtype=np.float64)
            else:
                answer = np.asarray(trained.predict_proba(frame(sample)), dtype=np.float64)
        except ConversionError:
            raise
        except Exception as error:  # an estimator may raise anything.
            raise ConversionError(
                f"{type(trained).__name__} cannot answer the sample", value=f"{type(error).__name__}: {error}"
            ) from error
    if task == "regression":
        if answer.size != len(answer):
            raise ConversionError("the regressor answers several values", value=answer.shape, rule="[N]")
        return answer.reshape(-1, 1)
    spread = np.zeros((len(answer), classes))
    spread[:, list(seen)] = answer
    return spread
