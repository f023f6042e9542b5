"""Sixteen-bit floats: weights stored in half the bytes, or the arithmetic itself where the runtime has it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.compress import graph_file as gf
from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.layers import done, editable, fresh, share
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.core.errors import CompressError
from modelyard.core.require import require
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model

_BFLOAT16 = 13
_SMALL = 32
"""Constants with fewer values stay: a cast costs more bytes than it saves."""


@dataclass(frozen=True, slots=True)
class Half:
    """Weights, or weights and arithmetic, in a sixteen-bit float; inputs and outputs stay float32.

    With `only="weights"` each large constant is stored in sixteen bits behind a Cast that the runtime folds
    when it loads: half the file, the same speed, and rounding is the only change. With `only="all"` the graph
    computes in it: for targets with such units (on a processor without them the runtime casts back and
    forth). bfloat16 keeps float32's range with 8 bits of precision, float16 11 bits up to 65,504.
    """

    kind: str = option("float16", "the sixteen-bit type", choices=("float16", "bfloat16"))
    only: str = option("weights", "what is sixteen bits wide", choices=("weights", "all"))

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled(self.kind, self, said=("kind",))

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """The narrower model; `CompressError` when values do not fit or the runtime cannot run it."""
        if self.kind == "bfloat16" and gf.opset(gf.parse(model)) < _BFLOAT16:
            raise CompressError(
                "does not apply: the graph's opset has no bfloat16", rule=f"{_BFLOAT16} or later",
                fix="export it with a later opset",
            )  # fmt: skip
        if self.only == "weights":
            return self._stored(model)
        if self.kind == "bfloat16":
            _require_bfloat16()
            raise CompressError(
                "does not apply: bfloat16 arithmetic has no converter here",
                fix='store the weights only: bfloat16(only="weights")',
            )
        return self._computed(model)

    def _stored(self, model: Model) -> Compressed:
        import onnx

        proto = editable(model)
        tensors = [
            item
            for item in proto.graph.initializer
            if item.data_type == onnx.TensorProto.FLOAT and int(np.prod(item.dims)) >= _SMALL
        ]
        if not tensors:
            raise CompressError("does not apply: no constant is large enough")
        casts, worst = [], 0.0
        for tensor in tensors:
            values = np.array(onnx.numpy_helper.to_array(tensor))
            narrow = self._narrow(values, tensor.name)
            worst = max(worst, _error(values, narrow.astype(np.float32)))
            name = tensor.name
            stored = fresh(proto, f"{name}_{self.kind}")
            tensor.CopyFrom(onnx.numpy_helper.from_array(narrow, stored))
            casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
        rest = [type(node).FromString(node.SerializeToString()) for node in proto.graph.node]
        del proto.graph.node[:]
        proto.graph.node.extend([*casts, *rest])
        notes = (
            f"{len(tensors)} constants stored as {self.kind}, computed as float32",
            f"weights move by at most {100 * worst:.2g} % of their layer's largest",
        )
        return done(proto, model, notes)

    def _narrow(self, values: Any, name: str) -> Any:
        if self.kind == "bfloat16":
            import ml_dtypes

            return values.astype(ml_dtypes.bfloat16)
        limit = float(np.finfo(np.float16).max)
        if values.size and not np.abs(values[np.isfinite(values)]).max(initial=0.0) <= limit:
            raise CompressError(
                f"the constant {name!r} does not fit float16", value=float(np.abs(values).max()),
                rule=f"at most {limit:g}", fix="use bfloat16",
            )  # fmt: skip
        return values.astype(np.float16)

    def _computed(self, model: Model) -> Compressed:
        converter = require("onnxconverter_common.float16", extra="train")
        proto = editable(model)
        before = gf.operators(proto)
        # The converter leaves out names of tensors that it cannot infer; stale ones mislead it.
        del proto.graph.value_info[:]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                found = converter.convert_float_to_float16(
                    proto, keep_io_types=True, min_positive_val=6e-8, max_finite_val=65504.0
                )
            except Exception as error:  # The converter raises whatever its walk over the graph meets.
                raise CompressError(
                    "the graph cannot be converted to float16", value=str(error)[:200]
                ) from error
        clipped = [str(item.message) for item in said if "truncated" in str(item.message)]
        result = done(found, model, ())
        _require_runs(result.model)
        after = gf.operators(gf.parse(result.model))
        casts = after["Cast"] - before["Cast"]
        left = share(result.model.size, model.size)
        note = f"computes in float16 with {casts} casts between; {left} of the bytes"
        more = (
            (f"{len(clipped)} constants hold values that were clipped to float16's range",) if clipped else ()
        )
        return Compressed(result.model, (note, *more))


def _error(values: Any, narrow: Any) -> float:
    usable = np.isfinite(values)
    largest = float(np.abs(values[usable]).max(initial=0.0))
    return float(np.abs(values - narrow)[usable].max(initial=0.0)) / largest if largest else 0.0


def _require_runs(model: Model) -> None:
    from modelyard.core.errors import ModelError
    from modelyard.model.onnx_runtime import OnnxRuntime

    try:
        OnnxRuntime().load(model).close()
    except ModelError as error:
        raise CompressError("the runtime cannot load the float16 graph", value=str(error)[:300]) from error


def _require_bfloat16() -> None:
    """Raises `CompressError` where onnxruntime's processor kernels lack a bfloat16 product."""
    import onnx
    import onnxruntime

    kind = onnx.TensorProto.BFLOAT16
    info = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph(
        [node], "probe", [info("a", kind, [1, 1]), info("b", kind, [1, 1])], [info("c", kind, [1, 1])]
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own that share no root.
        raise CompressError(
            "does not apply: onnxruntime has no bfloat16 product on this processor",
            fix='store the weights only: bfloat16(only="weights")',
        ) from error
