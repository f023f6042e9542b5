"""What this machine can do at most, measured, and how near a model's operators come to it.

The roofline model of Williams, Waterman and Patterson (2009): an operator with few operations a byte is held
back by memory, one with many by arithmetic.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.compress.machine import Machine, this_machine
from modelyard.core.errors import StoreError
from modelyard.core.files import write_atomic

VERSION = 1
"""Of the kept file. Raised when an old probe would be read differently."""

_SIDE = 384
_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Roof:
    """The best that one thread of this kind of machine reached: bytes/s copied, operations/s multiplied.

    A multiply-accumulate is two operations.
    """

    machine: Machine
    bandwidth: float
    float32: float
    int8: float

    def attainable(self, intensity: float, *, int8: bool = False) -> float:
        """Operations a second that an operator of so many operations a byte can reach."""
        return min(self.int8 if int8 else self.float32, intensity * self.bandwidth)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "fingerprint": self.machine.fingerprint,
            "machine": self.machine.to_json(),
            "bandwidth": self.bandwidth,
            "float32": self.float32,
            "int8": self.int8,
        }


def kept_folder() -> Path:
    """Where what is true of this kind of machine is kept between projects (`XDG_CACHE_HOME` decides)."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "modelyard" / "machines"


def roof(folder: Path | None = None, *, again: bool = False) -> Roof:
    """This machine's roof: the kept one, or measured now (about a second) and kept under its fingerprint.

    A kept file that is damaged, or of another machine, is measured anew. Where nothing can be kept the
    measurement is used all the same.
    """
    machine = this_machine()
    path = (folder or kept_folder()) / f"{machine.fingerprint}.json"
    if not again:
        found = _kept(path, machine)
        if found is not None:
            return found
    made = Roof(machine, _bandwidth(), *_arithmetic())
    # A full or read-only home is no reason to refuse a measurement.
    with contextlib.suppress(StoreError):
        write_atomic(path, json.dumps(made.to_json(), indent=2).encode())
    return made


def _kept(path: Path, machine: Machine) -> Roof | None:
    try:
        value = json.loads(path.read_bytes())
        if value["version"] != VERSION or value["fingerprint"] != machine.fingerprint:
            return None
        found = Roof(machine, float(value["bandwidth"]), float(value["float32"]), float(value["int8"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if min(found.bandwidth, found.float32, found.int8) > 0 else None


def _best(call: Callable[[], object], repeats: int) -> float:
    """The shortest of several calls: what the machine can do when nobody disturbs it."""
    call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _bandwidth() -> float:
    source = np.ones(_BYTES // 8)
    target = np.zeros_like(source)
    # A copy reads and writes each byte once.
    return 2 * source.nbytes / _best(lambda: np.copyto(target, source), 7)


def _arithmetic() -> tuple[float, float]:
    """Operations a second of a square product, in float32 and in int8, by onnxruntime on one thread."""
    rng = np.random.default_rng(0)
    shape = (_SIDE, _SIDE)
    real = rng.normal(size=shape).astype(np.float32)
    whole = rng.integers(0, 255, size=shape).astype(np.uint8)
    signed = rng.integers(-127, 127, size=shape).astype(np.int8)
    rates = []
    for kind, left, right in (("MatMul", real, real), ("MatMulInteger", whole, signed)):
        engine = _product(kind, right, left.dtype)
        call = _calls(engine, left)
        rates.append(2 * _SIDE**3 / _best(call, 9))
    return rates[0], rates[1]


def _calls(engine: Any, left: Any) -> Callable[[], object]:
    return lambda: engine.run(None, {"x": left})


def _product(kind: str, right: Any, dtype: Any) -> Any:
    """onnxruntime's session for x times a constant matrix."""
    from onnx import TensorProto, helper, numpy_helper

    from modelyard.model.onnx_runtime import open_engine
    from modelyard.model.runtime import DEFAULT_OPTIONS

    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    result = TensorProto.FLOAT if kind == "MatMul" else TensorProto.INT32
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", element, [_SIDE, _SIDE])],
        [helper.make_tensor_value_info("y", result, [_SIDE, _SIDE])],
        [numpy_helper.from_array(right, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return open_engine(model.SerializeToString(), DEFAULT_OPTIONS)
