# ruff: noqa: PLC0415, S606, E501 - each server imports what only its own environment has
"""One of today's servers with the two models, in the form its own documentation shows.

    python peer_server.py NAME VARIANT PORT MLP.onnx CNN.onnx

`peers.py` says which variants there are: the benchmark tries each and keeps the quicker. All read the
Open Inference Protocol's JSON, except where a server has a form of its own that it is quicker with.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

NAME, VARIANT, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
FILES = {"mlp": sys.argv[4], "cnn": sys.argv[5]}
LARGEST = 64
"""Items of a batch, for those who batch: as many as the benchmark's connections."""


def session(kind: str) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(FILES[kind], settings, providers=["CPUExecutionProvider"])


def values_of(body: Any) -> np.ndarray:
    tensor = body["inputs"][0]
    return np.array(tensor["data"], np.float32).reshape(tensor["shape"])


def answer(found: np.ndarray) -> dict[str, Any]:
    out = {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": list(found.shape),
        "data": found.ravel().tolist(),
    }
    return {"model_name": "m", "outputs": [out]}


def fastapi() -> None:
    """`model`: a pydantic body, as the tutorial shows. `orjson`: the body by hand, answered from the loop
    or (`threads`) from FastAPI's thread pool."""
    import orjson
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from pydantic import BaseModel

    app = FastAPI()
    engines = {kind: session(kind) for kind in FILES}

    class Tensor(BaseModel):
        name: str
        datatype: str
        shape: list[int]
        data: list[float]

    class Body(BaseModel):
        inputs: list[Tensor]

    def run(model: str, body: bytes) -> Response:
        (found,) = engines[model].run(None, {"x": values_of(orjson.loads(body))})
        return Response(orjson.dumps(answer(found)), media_type="application/json")

    async def by_model(model: str, body: Body) -> dict[str, Any]:
        tensor = body.inputs[0]
        values = np.array(tensor.data, np.float32).reshape(tensor.shape)
        (found,) = engines[model].run(None, {"x": values})
        return answer(found)

    async def by_hand(model: str, request: Request) -> Response:
        return run(model, await request.body())

    async def in_thread(model: str, request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        return await run_in_threadpool(run, model, await request.body())

    chosen: Any = {"model": by_model, "orjson": by_hand, "threads": in_thread}[VARIANT]
    # Annotations are text in this file, and FastAPI would look for their names outside of this function.
    chosen.__annotations__ |= {"body": Body} if VARIANT == "model" else {"request": Request}
    chosen.__annotations__["return"] = dict[str, Any] if VARIANT == "model" else Response
    app.post("/{model}")(chosen)
    uvicorn.run(app, port=PORT, loop="uvloop", http="httptools", log_level="error", access_log=False)


LIT = """
import sys
import numpy as np, onnxruntime
import litserve
FILES = {files!r}

class Api(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.engine = onnxruntime.InferenceSession(FILES[self.api_path.strip("/")], options)

    def decode_request(self, request):
        tensor = request["inputs"][0]
        return np.array(tensor["data"], np.float32).reshape(tensor["shape"])

    def predict(self, values):
        return self.engine.run(None, {{"x": values}})[0]

    def encode_response(self, found):
        return {{"outputs": [{{"name": "probabilities", "shape": list(found.shape), "data": found.ravel().tolist()}}]}}

class Together(Api):
    def batch(self, inputs):
        return np.concatenate(inputs)

    def unbatch(self, output):
        return [output[row : row + 1] for row in range(len(output))]

if __name__ == "__main__":
    if {batch}:
        apis = [Together(api_path="/" + kind, max_batch_size={largest}, batch_timeout=0.001) for kind in FILES]
    else:
        apis = [Api(api_path="/" + kind) for kind in FILES]
    server = litserve.LitServer(apis, accelerator="cpu", workers_per_device=1, fast_queue={fast})
    server.run(host="127.0.0.1", port={port}, log_level="error", generate_client_file=False, num_api_servers=1)
"""


def litserve() -> None:
    """`single`: one request a call. `batch`: batches. `fast`: batches, over its queue for heavy load."""
    folder = Path(tempfile.mkdtemp())
    batch, fast = VARIANT != "single", VARIANT == "fast"
    (folder / "server.py").write_text(
        LIT.format(files=FILES, batch=batch, fast=fast, largest=LARGEST, port=PORT)
    )
    # Its workers are spawned, so what they run must stand in a file of its own.
    os.execv(sys.executable, [sys.executable, str(folder / "server.py")])


ENGINE = """
import numpy as np, onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Engine(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.engine = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload):
        values = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        (found,) = self.engine.run(None, {"x": values})
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", found)]
        )
"""


def mlserver() -> None:
    """`inline`: the model in the server's process, since there is one core. `batch`: adaptive batching too."""
    folder = Path(tempfile.mkdtemp())
    settings = {"host": "127.0.0.1", "http_port": PORT, "grpc_port": PORT + 1, "metrics_port": PORT + 2,
                "parallel_workers": 0, "debug": False, "use_structured_logging": False}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "engine.py").write_text(ENGINE)
    batch = {"max_batch_size": LARGEST, "max_batch_time": 0.002} if VARIANT == "batch" else {}
    for kind, file in FILES.items():
        (folder / kind).mkdir()
        (folder / kind / "model-settings.json").write_text(
            json.dumps({"name": kind, "implementation": "engine.Engine", "parameters": {"uri": file}} | batch)
        )
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    command = Path(sys.executable).with_name("mlserver")
    os.execv(command, [str(command), "start", str(folder)])


SERVICE = """
import numpy as np, onnxruntime, bentoml
FILES = {files!r}
BATCH = {batch!r}

def load(kind):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(FILES[kind], options)

@bentoml.service(workers=1, traffic={{"timeout": 60}}, metrics={{"enabled": False}}, logging={{"access": {{"enabled": False}}}})
class Engine:
    def __init__(self):
        self.engines = {{kind: load(kind) for kind in FILES}}

    @bentoml.api(**BATCH)
    def mlp(self, x: np.ndarray) -> np.ndarray:
        return self.engines["mlp"].run(None, {{"x": x.astype(np.float32, copy=False)}})[0]

    @bentoml.api(**BATCH)
    def cnn(self, x: np.ndarray) -> np.ndarray:
        return self.engines["cnn"].run(None, {{"x": x.astype(np.float32, copy=False)}})[0]
"""


def bentoml() -> None:
    """`single` and `batch`: numpy arrays in and out, adaptive batching off and on."""
    folder = Path(tempfile.mkdtemp())
    batch = {"batchable": True, "max_batch_size": LARGEST, "max_latency_ms": 1_000}
    made = SERVICE.format(files=FILES, batch=batch if VARIANT == "batch" else {})
    (folder / "service.py").write_text(made)
    os.chdir(folder)
    os.environ |= {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(folder / "home")}
    command = Path(sys.executable).with_name("bentoml")
    os.execv(command, [str(command), "serve", "service:Engine", "--port", str(PORT), "--host", "127.0.0.1"])


def pytriton() -> None:
    """Triton, its Python model called with whole batches."""
    import sysconfig

    # Its installation page: the backend must find the libpython of the interpreter that runs it.
    folder = sysconfig.get_config_var("LIBDIR")
    if os.environ.get("LD_LIBRARY_PATH") != folder:
        os.environ["LD_LIBRARY_PATH"] = folder
        os.execv(sys.executable, [sys.executable, *sys.argv])
    from pytriton.decorators import batch
    from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    config = TritonConfig(http_address="127.0.0.1", http_port=PORT, grpc_port=PORT + 1, metrics_port=PORT + 2,
                          http_thread_count=2, log_verbose=0)  # fmt: skip
    with Triton(config=config) as triton:
        for kind, shape in (("mlp", (64,)), ("cnn", (3, 64, 64))):
            engine = session(kind)

            @batch
            def infer(x: Any, engine: Any = engine) -> list[Any]:
                return list(engine.run(None, {"x": x}))

            triton.bind(
                model_name=kind,
                infer_func=infer,
                inputs=[Tensor(name="x", dtype=np.float32, shape=shape)],
                outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(10,))],
                config=ModelConfig(max_batch_size=LARGEST, batcher=DynamicBatcher()),
            )
        triton.serve()


def ray() -> None:
    """`single` and `batch`: one replica a model, `serve.batch` off and on."""
    import signal

    import ray as engine_room
    from ray import serve

    os.environ["RAY_DEDUP_LOGS"] = "0"
    engine_room.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    for kind in FILES:

        class Engine:
            def __init__(self, kind: str) -> None:
                self.engine = session(kind)

            @serve.batch(max_batch_size=LARGEST, batch_wait_timeout_s=0.001)
            async def together(self, values: list[Any]) -> list[Any]:
                found = self.engine.run(None, {"x": np.concatenate(values)})[0]
                return [found[row : row + 1] for row in range(len(found))]

            async def __call__(self, request: Any) -> Any:
                values = values_of(json.loads(await request.body()))
                if VARIANT == "batch":
                    return answer(await self.together(values))
                return answer(self.engine.run(None, {"x": values})[0])

        deployed = serve.deployment(name=kind, max_ongoing_requests=2 * LARGEST,
                                    ray_actor_options={"num_cpus": 0.1})(Engine)  # fmt: skip
        serve.run(deployed.bind(kind), name=kind, route_prefix=f"/{kind}")
    signal.pause()


if __name__ == "__main__":
    {f.__name__: f for f in (fastapi, litserve, mlserver, bentoml, pytriton, ray)}[NAME]()
