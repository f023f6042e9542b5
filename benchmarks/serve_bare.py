"""What the plane is measured against, in Granian as its own command line runs it.

    python serve_bare.py constant|bare PORT MLP.onnx CNN.onnx

`constant` answers every request with the same bytes (the HTTP ceiling); `bare` decodes with orjson, runs
onnxruntime and encodes, with no checks, no log, no metrics and no batching.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime
import orjson
from granian import Granian
from granian.constants import Interfaces, Loops

JSON = [("content-type", "application/json")]
CONSTANT = orjson.dumps({"model_name": "m", "model_version": "1", "id": "0", "outputs": [
    {"name": "probabilities", "datatype": "FP32", "shape": [1, 10], "data": [0.1234567] * 10}]})  # fmt: skip

SESSIONS: dict[str, Any] = {}


async def constant(scope: Any, protocol: Any) -> None:
    await protocol()
    protocol.response_bytes(200, JSON, CONSTANT)


async def bare(scope: Any, protocol: Any) -> None:
    body = orjson.loads(await protocol())
    tensor = body["inputs"][0]
    values = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    (found,) = SESSIONS[scope.path.split("/")[3]].run(None, {"x": values})
    tensor = {"name": "probabilities", "datatype": "FP32", "shape": found.shape, "data": found.ravel()}
    answer = {"model_name": "m", "model_version": "1", "outputs": [tensor]}
    protocol.response_bytes(200, JSON, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))


def load(*_: Any, **__: Any) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    for name, path in (("mlp", sys.argv[3]), ("cnn", sys.argv[4])):
        SESSIONS[name] = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return constant if sys.argv[1] == "constant" else bare


if __name__ == "__main__":
    Granian(
        "bench",
        port=int(sys.argv[2]),
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        log_enabled=False,
        websockets=False,
    ).serve(target_loader=load, wrap_loader=False)
