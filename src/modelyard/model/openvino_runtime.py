"""OpenVINO behind the `Runtime` protocol, for processors on which it is the faster engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from modelyard.core.errors import ModelError
from modelyard.core.require import require
from modelyard.core.spec import Tensors
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxSession
from modelyard.model.runtime import DEFAULT_OPTIONS, RuntimeOptions, Session

EXTRA = "openvino"
"""The extra that brings OpenVINO."""


class OpenVinoRuntime:
    """OpenVINO on the CPU, from bytes; reads float graphs and our QDQ graphs as they are.

    Text may only pass through, from an input to an output: string tensors crash OpenVINO 2026.4, so none is
    handed to it. It always rewrites the graph as hard as it can; of `RuntimeOptions` only `threads` means
    anything to it. Raises `MissingExtra` when it is not installed.
    """

    name = "openvino"

    def load(self, model: Model, options: RuntimeOptions = DEFAULT_OPTIONS) -> Session:
        """A session for the model; raises `ModelError` when OpenVINO cannot take the graph."""
        onnx, passed = without_text(model)
        return OpenVinoSession(Engine(compiled(onnx, options), passed), model.signature)


class OpenVinoSession(OnnxSession):
    """A compiled graph behind the same checks of its inputs; safe from any thread."""

    def run(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        """The named outputs, or all in the signature's order; see `Session.run` for what is refused."""
        try:
            return super().run(inputs, outputs)
        except ModelError as error:
            if error.__cause__ is None:
                raise
            raise ModelError(
                "openvino could not run the model", value=error.value, fix="check the input values"
            ) from error.__cause__


class Engine:
    """A compiled model as the session wants its engine: names and arrays in, arrays out."""

    def __init__(self, made: Any, passed: Mapping[str, str]) -> None:
        self._made = made
        self._passed = passed
        self._place = {name: index for index, port in enumerate(made.outputs) for name in port.get_names()}
        # A request is not safe from two threads; idle ones wait here, and their number follows the callers.
        self._idle: deque[Any] = deque([made.create_infer_request()])

    def run(self, names: Sequence[str], inputs: Tensors, _: object) -> list[Any]:
        """The named outputs; what OpenVINO raises goes through."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._made.create_infer_request()
        try:
            given = {
                name: np.ascontiguousarray(array) for name, array in inputs.items() if array.dtype != object
            }
            # Outputs are copied out of the request, which the next caller will write into.
            found = list(request.infer(given, share_inputs=True).values())
        finally:
            self._idle.append(request)
        passed = self._passed
        return [inputs[passed[name]].copy() if name in passed else found[self._place[name]] for name in names]


@cache
def _core() -> Any:
    return require("openvino", extra=EXTRA).Core()


def without_text(model: Model) -> tuple[bytes, dict[str, str]]:
    """The graph without its text, and which text input each text output repeats.

    Raises `ModelError` when a node computes with text.
    """
    if all(spec.datatype != "BYTES" for spec in (*model.signature.inputs, *model.signature.outputs)):
        return model.onnx, {}
    import onnx

    try:
        proto = onnx.ModelProto.FromString(model.onnx)
    except Exception as error:  # protobuf's DecodeError, whose class moves between versions.
        raise ModelError("the graph's bytes cannot be read", value=str(error)[:200]) from error
    repeats = {spec.name: spec.name for spec in model.signature.inputs if spec.datatype == "BYTES"}
    kept = []
    for node in proto.graph.node:
        read = [name for name in node.input if name in repeats]
        if read and node.op_type == "Identity":
            repeats[node.output[0]] = repeats[read[0]]
        elif read:
            raise ModelError(
                "openvino does not compute with text", value=node.op_type, fix="use the runtime onnxruntime"
            )
        else:
            kept.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    for side in (proto.graph.input, proto.graph.output):
        numbers = [item for item in side if item.name not in repeats]
        del side[:]
        side.extend(numbers)
    texts = {spec.name for spec in model.signature.outputs if spec.datatype == "BYTES"}
    if texts - set(repeats):
        raise ModelError(
            "openvino gives no text", value=sorted(texts - set(repeats)), fix="use the runtime onnxruntime"
        )
    return proto.SerializeToString(), {name: repeats[name] for name in texts}


def compiled(onnx: bytes, options: RuntimeOptions, *, counting: bool = False) -> Any:
    """OpenVINO's own compiled model, with per-operator times when `counting`; `ModelError` when refused."""
    core = _core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": options.threads,
        # Pinned threads all land on the same core when several processes share the machine.
        "ENABLE_CPU_PINNING": False,
        # On processors with bfloat16 the default would answer with fewer digits than the graph says.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERF_COUNT": counting,
    }
    try:
        return core.compile_model(core.read_model(onnx), "CPU", settings)
    except Exception as error:  # OpenVINO raises RuntimeError and classes of its bindings.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = next((line for line in lines if not line.startswith("Exception from")), lines[-1:] or "")
        raise ModelError(
            "openvino refuses the graph", value=str(told)[:300], fix="use the runtime onnxruntime"
        ) from error
