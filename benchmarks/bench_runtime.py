"""What a `Session` costs over onnxruntime's own: python benchmarks/bench_runtime.py [--json]

Interleaved rounds of the same call, one thread, batch 1; overhead: the median of the rounds' differences.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper

from modelyard.model.onnx_runtime import OnnxRuntime, open_engine
from modelyard.model.reader import read_model
from modelyard.model.runtime import RuntimeOptions

CALLS, ROUNDS = 2000, 25


def mlp() -> bytes:
    r = np.random.default_rng(0)
    sizes, last, nodes, constants = (64, 128, 128, 10), "x", [], []
    for index, (a, b) in enumerate(pairwise(sizes)):
        constants.append(
            onnx.numpy_helper.from_array(r.normal(size=(a, b)).astype(np.float32) / 8, f"w{index}")
        )
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"m{index}"]))
        nodes.append(helper.make_node("Relu", [f"m{index}"], [f"r{index}"]))
        last = f"r{index}"
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"]))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def microseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS * 1e6


def main() -> None:
    data = mlp()
    session = OnnxRuntime().load(read_model(data, task="classification"))
    engine = open_engine(data, RuntimeOptions())
    inputs, names = {"x": np.ones((1, 64), np.float32)}, ["probabilities"]
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare.append(microseconds(lambda: engine.run(names, inputs)))
        ours.append(microseconds(lambda: session.run(inputs)))
    apart = [b - a for a, b in zip(bare, ours, strict=True)]
    result = {
        "onnxruntime_us": statistics.median(bare),
        "session_us": statistics.median(ours),
        "overhead_us": statistics.median(apart),
        "overhead_of_the_fastest_us": min(ours) - min(bare),
    }
    print(
        json.dumps(result)
        if "--json" in sys.argv
        else "\n".join(f"{k:28} {v:8.2f}" for k, v in result.items())
    )


if __name__ == "__main__":
    main()
