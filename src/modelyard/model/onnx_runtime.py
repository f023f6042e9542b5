"""onnxruntime behind the `Runtime` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import ModelError
from modelyard.core.names import did_you_mean
from modelyard.core.spec import DYNAMIC, Signature, Tensors, TensorSpec
from modelyard.model.model import Model
from modelyard.model.runtime import DEFAULT_OPTIONS, RuntimeOptions, Session

_QUIET = 4  # onnxruntime's log level for fatal errors only; failures reach the caller as exceptions.
_FOLDED = str(256 << 20)
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}


class OnnxRuntime:
    """The default engine: onnxruntime on the CPU, from bytes, deterministic for a thread count."""

    name = "onnxruntime"

    def load(self, model: Model, options: RuntimeOptions = DEFAULT_OPTIONS) -> Session:
        """A session for the model; raises `ModelError` when onnxruntime refuses the graph."""
        engine = open_engine(model.onnx, options)
        _check_names(engine, model.signature)
        return OnnxSession(engine, model.signature)


class OnnxSession:
    """A loaded graph. `run` checks its inputs in about a microsecond and is safe from any thread."""

    def __init__(self, engine: Any, signature: Signature) -> None:
        # The wrapper around onnxruntime's own session checks names once more, which costs as much as we do.
        self._engine = getattr(engine, "_sess", engine)
        self._signature = signature
        self._specs = {spec.name: spec for spec in signature.inputs}
        self._checks = [
            (spec.name, spec.dtype.char, spec.shape[1:], len(spec.shape), DYNAMIC in spec.shape[1:])
            for spec in signature.inputs
        ]
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._known = frozenset(self._outputs)
        self._text_outputs = frozenset(s.name for s in signature.outputs if s.datatype == "BYTES")
        self._text_inputs = tuple(s.name for s in signature.inputs if s.datatype == "BYTES")

    @property
    def signature(self) -> Signature:
        return self._signature

    def run(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        """The named outputs, or all in the signature's order; see `Session.run` for what is refused."""
        names: Sequence[str] = self._outputs if outputs is None else outputs
        rows = -1
        try:
            for name, char, tail, rank, loose in self._checks:
                array = inputs[name]
                shape = array.shape
                if array.dtype.char != char or (
                    len(shape) != rank or not _fits(shape[1:], tail) if loose else shape[1:] != tail
                ):
                    raise self._wrong(inputs)
                if shape[0] != rows:
                    if rows != -1 or shape[0] == 0:
                        raise self._wrong(inputs)
                    rows = shape[0]
        except (KeyError, AttributeError, IndexError):
            raise self._wrong(inputs) from None
        if len(inputs) != len(self._checks):
            raise self._wrong(inputs)
        if outputs is not None and not self._known.issuperset(names):
            raise self._unknown_output(names)
        for name in self._text_inputs:
            _check_text(name, inputs[name])
        if not names:
            return {}
        if self._engine is None:
            raise ModelError("the session is closed", fix="load the model again")
        try:
            values = self._engine.run(names, inputs, None)
        except Exception as error:  # onnxruntime raises classes of its own that share no root.
            raise ModelError(
                "onnxruntime could not run the model", value=_first_line(error), fix="check the input values"
            ) from error
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        """Drops onnxruntime's session, and its memory with it."""
        self._engine = None

    def _wrong(self, inputs: Tensors) -> ModelError:  # noqa: PLR0911 (one return a rule)
        """The sentence for inputs that the fast path refused: the first thing that is wrong, by name."""
        for name in inputs:
            if name not in self._specs:
                return ModelError(
                    "the model has no input of this name", value=name, fix=did_you_mean(name, self._specs)
                )
        for name, spec in self._specs.items():
            if name not in inputs:
                return ModelError(
                    "an input of the model is missing", value=name, rule=_rule(spec), fix="give every input"
                )
        rows: dict[str, int] = {}
        for name, spec in self._specs.items():
            array = inputs[name]
            if not isinstance(array, np.ndarray):
                return ModelError(
                    f"input {name!r} is not an array", value=type(array).__name__, rule=_rule(spec)
                )
            if array.dtype.char != spec.dtype.char:
                return ModelError(
                    f"input {name!r} has the wrong datatype",
                    value=str(array.dtype),
                    rule=_rule(spec),
                    fix=f"convert it with astype({str(spec.dtype)!r})",
                )
            if not spec.accepts(array.shape):
                return ModelError(
                    f"input {name!r} has the wrong shape",
                    value=array.shape,
                    rule=_rule(spec),
                    fix="the first dimension counts the items",
                )
            rows[name] = array.shape[0]
        if len(set(rows.values())) > 1:
            return ModelError("the inputs differ in their number of items", value=rows, rule="one batch size")
        return ModelError("the batch holds no item", value=0, rule="at least one")

    def _unknown_output(self, names: Sequence[str]) -> ModelError:
        name = next(item for item in names if item not in self._known)
        return ModelError(
            "the model has no output of this name", value=name, fix=did_you_mean(name, self._outputs)
        )


def open_engine(onnx: bytes, options: RuntimeOptions) -> Any:
    """onnxruntime's own session for some bytes, without a signature; raises `ModelError` when refused."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[options.optimize])
    settings.log_severity_level = _QUIET
    settings.enable_cpu_mem_arena = options.arena
    settings.enable_mem_pattern = options.pattern
    settings.add_session_config_entry("session.disable_prepacking", "0" if options.prepack else "1")
    # Spinning threads burn the core that the HTTP server needs.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spin else "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # A graph cannot make the engine build huge constants, or write out functions without end, while it loads.
    settings.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", _FOLDED)
    try:
        return onnxruntime.InferenceSession(onnx, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own that share no root.
        raise ModelError(
            "onnxruntime refuses the graph",
            value=_first_line(error),
            fix="export it again at a lower opset, without the operator that is named",
        ) from error


def _check_names(engine: Any, signature: Signature) -> None:
    for side, found, specs in (
        ("inputs", engine.get_inputs(), signature.inputs),
        ("outputs", engine.get_outputs(), signature.outputs),
    ):
        names = {item.name for item in found}
        if names != {spec.name for spec in specs}:
            raise ModelError(
                f"the graph's {side} are not those of the signature",
                value=sorted(names),
                rule=str(sorted(spec.name for spec in specs)),
                fix="read the graph again with read_model",
            )


def _fits(shape: tuple[int, ...], tail: tuple[int, ...]) -> bool:
    return all(want in (DYNAMIC, got) for want, got in zip(tail, shape, strict=True))


def _check_text(name: str, array: npt.NDArray[Any]) -> None:
    for item in array.flat:
        if not isinstance(item, str):
            raise ModelError(
                f"input {name!r} holds what is not text",
                value=item,
                rule="str, with '' where missing",
            )


def _rule(spec: TensorSpec) -> str:
    shape = ", ".join("N" if size == DYNAMIC else str(size) for size in spec.shape)
    return f"{spec.datatype} [{shape}]"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
