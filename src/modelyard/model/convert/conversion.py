"""The one door from a trained object to a `Model`: dispatch, then proof of parity on real rows."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from modelyard.core.errors import ConversionError, ModelError
from modelyard.core.spec import Tensors
from modelyard.measure.measurement import Verdict
from modelyard.model.convert.parity import prove_parity
from modelyard.model.model import Model, Task
from modelyard.model.reader import read_model


@dataclass(frozen=True, slots=True)
class Converted:
    """A model and the proof (claim `model.parity`) that it answers as the trained object does."""

    model: Model
    parity: Verdict


def convert(
    trained: object,
    sample: Tensors,
    *,
    task: Task,
    labels: tuple[str, ...] = (),
    tolerance: float | None = None,
) -> Converted:
    """Makes the ONNX graph of a scikit-learn or LightGBM estimator, or a torch module, and proves it.

    `sample` holds real rows of the contract's features, in the contract's order; the more, the better the
    proof. Estimators answer as they would for the frame of `sample` (see `frame.py`). A torch module
    returns logits [N,K] or values [N] or [N,1]; one that has `arguments` and `finish` methods returns the
    answer itself (probabilities [N,K], values [N,1]). The trained object is left as it was. The same
    trained object gives the same bytes in every process.

    Raises `ConversionError` when the object cannot become a graph, when the graph is refused by the reader,
    and when its answers differ from the trained object's by more than `tolerance` (see `prove_parity`).
    """
    _check_sample(sample)
    if task == "classification" and not labels:
        raise ConversionError("a classifier needs labels", rule="the categories of the contract's label")
    classes = len(labels) if task == "classification" else 0
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(trained, torch.nn.Module):
        from modelyard.model.convert.from_torch import torch_answers, torch_graph

        expected = torch_answers(trained, sample, task, classes)
        graph = torch_graph(trained, sample, task, classes)
        stray = False
    elif hasattr(trained, "predict") and hasattr(trained, "get_params"):
        from modelyard.model.convert.estimator import estimator_answers
        from modelyard.model.convert.from_sklearn import sklearn_graph

        expected = estimator_answers(trained, sample, task, classes)
        graph = sklearn_graph(trained, sample, task, classes)
        stray = True
    else:
        raise ConversionError(
            "what was trained is neither an estimator nor a torch module",
            value=type(trained).__name__,
            rule="a scikit-learn or LightGBM estimator, or a torch.nn.Module",
            fix="return one of them from build()",
        )
    model = _read(graph, task, labels)
    return Converted(model, prove_parity(model, expected, sample, tolerance=tolerance, stray=stray))


def _read(graph: bytes, task: Task, labels: tuple[str, ...]) -> Model:
    try:
        return read_model(graph, task=task, labels=labels)
    except ModelError as error:
        raise ConversionError(
            "the converted graph is refused", value=str(error), fix="use a simpler step"
        ) from error


def _check_sample(sample: Tensors) -> None:
    rows = {name: len(array) for name, array in sample.items()}
    if not rows or min(rows.values()) == 0 or len(set(rows.values())) > 1:
        raise ConversionError(
            "parity needs real rows", value=rows, rule="one row or more, as many in each feature"
        )
    for name, array in sample.items():
        if array.ndim < 2:
            raise ConversionError(
                f"the feature {name!r} has one dimension", value=array.shape, rule="[N, 1] for a scalar"
            )
