# ruff: noqa: PLC0415, S606, E501 - each server imports what only its own environment has
"""One of today's servers with the two models, in the form its own documentation shows.

python peer_server.py NAME PORT MLP.onnx CNN.onnx
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

NAME, PORT = sys.argv[1], int(sys.argv[2])
FILES = {"mlp": sys.argv[3], "cnn": sys.argv[4]}


def session(kind: str) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(FILES[kind], settings, providers=["CPUExecutionProvider"])


def answer(engine: Any, body: Any) -> dict[str, Any]:
    tensor = body["inputs"][0]
    values = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    (found,) = engine.run(None, {"x": values})
    out = {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": list(found.shape),
        "data": found.ravel().tolist(),
    }
    return {"model_name": "m", "outputs": [out]}


def fastapi() -> None:
    import uvicorn
    from fastapi import FastAPI, Request

    app = FastAPI()
    engines = {kind: session(kind) for kind in FILES}

    @app.post("/{model}")
    async def infer(model: str, request: Request) -> dict[str, Any]:
        return answer(engines[model], await request.json())

    infer.__annotations__["request"] = Request
    uvicorn.run(app, port=PORT, log_level="error", access_log=False)


def litserve() -> None:
    import litserve

    class Api(litserve.LitAPI):  # type: ignore[misc]
        def __init__(self, kind: str) -> None:
            super().__init__(api_path=f"/{kind}", max_batch_size=1)
            self.kind = kind

        def setup(self, device: str) -> None:
            self.engine = session(self.kind)

        def predict(self, request: Any) -> Any:
            return answer(self.engine, request)

    litserve.LitServer([Api(kind) for kind in FILES], accelerator="cpu").run(
        port=PORT, log_level="error", generate_client_file=False
    )


def mlserver() -> None:
    folder = Path(tempfile.mkdtemp())
    (folder / "settings.json").write_text(
        json.dumps(
            {"http_port": PORT, "grpc_port": PORT + 1, "metrics_port": PORT + 2, "parallel_workers": 0}
        )
    )
    (folder / "engine.py").write_text(
        "import numpy as np, onnxruntime\n"
        "from mlserver import MLModel\n"
        "from mlserver.codecs import NumpyCodec\n"
        "from mlserver.types import InferenceResponse\n"
        "class Engine(MLModel):\n"
        "    async def load(self):\n"
        "        o = onnxruntime.SessionOptions(); o.intra_op_num_threads = 1\n"
        "        self.s = onnxruntime.InferenceSession(self.settings.parameters.uri, o)\n"
        "        return True\n"
        "    async def predict(self, payload):\n"
        "        x = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)\n"
        "        (y,) = self.s.run(None, {'x': x})\n"
        "        return InferenceResponse(model_name=self.name,\n"
        "            outputs=[NumpyCodec.encode_output('probabilities', y)])\n"
    )
    for kind, file in FILES.items():
        (folder / kind).mkdir()
        (folder / kind / "model-settings.json").write_text(
            json.dumps({"name": kind, "implementation": "engine.Engine", "parameters": {"uri": file}})
        )
    import os

    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    command = Path(sys.executable).with_name("mlserver")
    os.execv(command, [str(command), "start", str(folder)])


def bentoml() -> None:
    import os

    folder = Path(tempfile.mkdtemp())
    (folder / "service.py").write_text(
        "import sys, json, numpy as np, onnxruntime, bentoml\n"
        f"FILES = {FILES!r}\n"
        "def load(kind):\n"
        "    o = onnxruntime.SessionOptions(); o.intra_op_num_threads = 1\n"
        "    return onnxruntime.InferenceSession(FILES[kind], o)\n"
        "def answer(s, inputs):\n"
        "    t = inputs[0]\n"
        "    (y,) = s.run(None, {'x': np.array(t['data'], np.float32).reshape(t['shape'])})\n"
        "    return {'outputs': [{'name': 'probabilities', 'data': y.ravel().tolist()}]}\n"
        "@bentoml.service(workers=1)\n"
        "class Engine:\n"
        "    def __init__(self): self.s = {k: load(k) for k in FILES}\n"
        "    @bentoml.api\n"
        "    def mlp(self, inputs: list) -> dict: return answer(self.s['mlp'], inputs)\n"
        "    @bentoml.api\n"
        "    def cnn(self, inputs: list) -> dict: return answer(self.s['cnn'], inputs)\n"
    )
    os.chdir(folder)
    command = Path(sys.executable).with_name("bentoml")
    os.execv(command, [str(command), "serve", "service:Engine", "--port", str(PORT)])


def pytriton() -> None:
    from pytriton.decorators import batch
    from pytriton.model_config import ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    with Triton(config=TritonConfig(http_port=PORT, grpc_port=PORT + 1, metrics_port=PORT + 2)) as triton:
        for kind, shape in (("mlp", (64,)), ("cnn", (3, 64, 64))):
            engine = session(kind)

            @batch
            def infer(x: Any, engine: Any = engine) -> list[Any]:
                return list(engine.run(None, {"x": x}))

            triton.bind(
                kind, infer, [Tensor(name="x", dtype=np.float32, shape=shape)],
                [Tensor(name="probabilities", dtype=np.float32, shape=(10,))], config=ModelConfig(max_batch_size=64),
            )  # fmt: skip
        triton.serve()


def ray() -> None:
    import ray as engine_room
    from ray import serve

    engine_room.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": PORT})
    for kind in FILES:

        @serve.deployment(name=kind)
        class Engine:
            def __init__(self, kind: str) -> None:
                self.engine = session(kind)

            async def __call__(self, request: Any) -> Any:
                return answer(self.engine, await request.json())

        serve.run(Engine.bind(kind), name=kind, route_prefix=f"/{kind}")
    import signal

    signal.pause()


if __name__ == "__main__":
    {f.__name__: f for f in (fastapi, litserve, mlserver, bentoml, pytriton, ray)}[NAME]()
