"""torch modules to ONNX through torch's own exporter."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from modelyard.core.errors import ConversionError
from modelyard.core.spec import Tensors
from modelyard.model.convert.finish import finish
from modelyard.model.convert.frame import is_scalar
from modelyard.model.convert.parity import same_answers
from modelyard.model.model import Task

OPSET = 20
_ROWS = 4
_BATCH = 512


class _Adapter(torch.nn.Module):
    """A module that takes the feature columns, around one that takes what people write."""

    def __init__(self, module: torch.nn.Module, sample: Tensors, task: Task, classes: int) -> None:
        super().__init__()
        self.module = module
        self.side_by_side = len(sample) > 1 and all(is_scalar(array) for array in sample.values())
        self.answers = hasattr(module, "arguments") and hasattr(module, "finish")
        self.classes = classes if task == "classification" else 0

    def forward(self, *columns: torch.Tensor) -> torch.Tensor:
        if self.answers:
            answer: torch.Tensor = self.module(*columns)
            return answer
        output: torch.Tensor
        output = self.module(torch.cat(columns, dim=1)) if self.side_by_side else self.module(*columns)
        if self.classes:
            return torch.softmax(output.float(), dim=-1)
        return output.float().reshape(-1, 1)


def torch_answers(trained: torch.nn.Module, sample: Tensors, task: Task, classes: int) -> npt.NDArray[Any]:
    """What the module answers in evaluation mode: probabilities [N, classes] or values [N, 1]."""
    adapter = _Adapter(trained, sample, task, classes)
    rows = len(next(iter(sample.values())))
    with _evaluating(trained), torch.inference_mode():
        device = _device(trained)

        def answer(start: int, stop: int) -> npt.NDArray[Any]:
            columns = [part.to(device) for part in _columns(sample, start, stop)]
            try:
                output = adapter(*columns)
            except Exception as error:  # the user's module may raise anything.
                raise ConversionError(
                    f"{type(trained).__name__} raises on the sample", value=f"{type(error).__name__}: {error}"
                ) from error
            return np.asarray(output.cpu().numpy())

        answers = np.concatenate([answer(start, start + _BATCH) for start in range(0, rows, _BATCH)])
        same_answers(answers[:_BATCH], answer(0, _BATCH), type(trained).__name__)
    width = classes if task == "classification" else 1
    if answers.shape != (rows, width):
        raise ConversionError(
            f"{type(trained).__name__} answers in the wrong shape",
            value=list(answers.shape),
            rule=f"[{rows}, {width}]",
            fix="give one logit a label" if task == "classification" else "give one value a row",
        )
    return answers


def torch_graph(trained: torch.nn.Module, sample: Tensors, task: Task, classes: int) -> bytes:
    """The module as ONNX bytes with a dynamic batch; it is exported in evaluation mode and put back.

    Raises `ConversionError` with the cause in one line and what to change.
    """
    module = trained if _device(trained).type == "cpu" else copy.deepcopy(trained).cpu()
    adapter = _Adapter(module, sample, task, classes)
    columns = _columns(sample, 0, _ROWS)
    # torch specialises a batch of one; rows are repeated rather than lost.
    columns = tuple(part if len(part) > 1 else part.repeat(2, *[1] * (part.ndim - 1)) for part in columns)
    batch = torch.export.Dim("N", min=1, max=1 << 20)
    names = [f"column{index}" for index in range(len(columns))]
    with _evaluating(module), _quietly():
        try:
            program = torch.onnx.export(
                adapter,
                columns,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=["answer"],
                dynamic_shapes=(tuple({0: batch} for _ in columns),),
                verbose=False,
            )
        except Exception as error:  # torch.export raises classes of many modules, most of them private.
            raise _cannot_export(trained, error) from error
    if program is None:
        raise ConversionError(f"{type(trained).__name__} was not exported")
    proto = program.model_proto
    known = [item.name for item in proto.graph.input]
    if any(name not in known for name in names):
        names = [name if name in known else f"{name}_unused" for name in names]
    width = classes if task == "classification" else 1
    return finish(proto, sample, task=task, inputs=names, output=proto.graph.output[0].name, width=width)


def _columns(sample: Tensors, start: int, stop: int) -> tuple[torch.Tensor, ...]:
    text = [name for name, array in sample.items() if array.dtype == object]
    if text:
        raise ConversionError(
            "a torch module cannot take text columns",
            value=text,
            rule="numbers and tensors",
            fix="derive numbers from them in data.py, or use a scikit-learn pipeline with an encoder",
        )
    return tuple(torch.from_numpy(np.array(array[start:stop])) for array in sample.values())


def _device(module: torch.nn.Module) -> torch.device:
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode for the block; every submodule then has its own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """torch's exporter prints, logs and warns about its own internals; its exceptions say what matters."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(before)


def _cannot_export(trained: torch.nn.Module, error: BaseException) -> ConversionError:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    text = str(root)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = f"{type(root).__name__}: {lines[0][:240]}" if lines else type(root).__name__
    lower = (type(root).__name__ + " " + text).lower()
    if (
        "data-dependent" in lower
        or "datadependent" in lower
        or "unbacked" in lower
        or "control flow" in lower
    ):
        fix = "a tensor's value decides what Python does: use torch.where or torch.cond, not if and item()"
    elif "constraint" in lower or "specializ" in lower:
        fix = "the code fixes the batch size: use -1 or x.shape[0] in reshape and view, and no constant"
    elif "fake" in lower or "numpy" in lower:
        fix = "forward leaves torch (numpy, tolist, item): write it with torch operations only"
    else:
        fix = "write forward with torch operations on its inputs only; torch.export.export shows the details"
    return ConversionError(
        f"{type(trained).__name__} cannot be exported to ONNX", value=reason, fix=fix, where=_place(text)
    )


def _place(text: str) -> str | None:
    """The line of the user's code that torch names, without its stack trace."""
    marks = [
        line.strip()
        for line in text.splitlines()
        if line.strip().startswith("File ") and " in forward" in line
    ]
    return marks[-1][:200] if marks else None
