"""The requests of the benchmark, one item each, in every form that one of the servers reads."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

DIGITS = 4
"""Of a number in JSON: the body of `cnn` has about 85 kB then, as where the bar's figures come from."""
SHAPES = {"mlp": (1, 64), "cnn": (1, 3, 64, 64)}
TOLERANCE = 1e-4

WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{kind}"
{extra}
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
"""


@dataclass(frozen=True)
class Ask:
    """One request to a model: its bytes, its headers, wrk's script, and the right answer."""

    model: str
    body: bytes
    headers: dict[str, str]
    script: str
    right: np.ndarray

    def request(self, path: str) -> bytes:
        """The request as it goes over the wire."""
        headers = {"Host": "bench", **self.headers, "Content-Length": str(len(self.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {path.format(model=self.model)} HTTP/1.1\r\n{head}\r\n".encode() + self.body

    def answered(self, port: int, path: str, *, timeout: float = 20.0) -> bool:
        """Whether the server gives the right answer; raises `OSError` when it gives none."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            connection.request("POST", path.format(model=self.model), self.body, self.headers)
            response = connection.getresponse()
            content = response.read()
            length = response.getheader("Inference-Header-Content-Length")
            if response.status != 200:
                return False
            found = _numbers(content, None if length is None else int(length))
        except (ValueError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return found.shape == self.right.shape and bool(np.allclose(found, self.right, atol=TOLERANCE))


def _numbers(content: bytes, head: int | None) -> np.ndarray:
    if head is not None:
        return np.frombuffer(content[head:], np.float32)
    value: Any = json.loads(content)
    if isinstance(value, dict):
        value = value["outputs"][0]["data"]
    return np.asarray(value, np.float32).ravel()


def asks(folder: Path, graphs: dict[str, bytes]) -> dict[tuple[str, str], Ask]:
    """By model and form: `json` and `binary` of the protocol, `array` (`{"x": nested}`)."""
    rng = np.random.default_rng(3)
    made = {}
    for model, graph in graphs.items():
        values = np.round(rng.random(SHAPES[model]), DIGITS)
        single = values.astype(np.float32)
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        right = np.asarray(session.run(None, {"x": single})[0]).ravel()
        tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": list(values.shape)}
        raw = single.tobytes()
        head = _compact({"inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}],
                         "parameters": {"binary_data_output": True}})  # fmt: skip
        bodies = {
            "json": _compact({"inputs": [tensor | {"data": values.ravel().tolist()}]}),
            "array": _compact({"x": values.tolist()}),
            "binary": head + raw,
        }
        for form, body in bodies.items():
            headers = {"Content-Type": "application/json"}
            if form == "binary":
                headers = {"Content-Type": "application/octet-stream",
                           "Inference-Header-Content-Length": str(len(head))}  # fmt: skip
            made[model, form] = Ask(model, body, headers, _script(folder, model, form, body, headers), right)
    return made


def _script(folder: Path, model: str, form: str, body: bytes, headers: dict[str, str]) -> str:
    file = folder / f"{model}-{form}.body"
    file.write_bytes(body)
    extra = [
        f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items() if name != "Content-Type"
    ]
    script = folder / f"{model}-{form}.lua"
    script.write_text(WRK.format(kind=headers["Content-Type"], extra="\n".join(extra), body=file))
    return str(script)


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
