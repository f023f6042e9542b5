"""A small correct server of the protocol, written without the room's codec, that can be broken on purpose."""

from __future__ import annotations

import itertools
import json
import math
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Exchange, Request, Response

DTYPES: dict[str, Any] = {"FP32": np.float32, "INT32": np.int32, "BOOL": np.bool_, "BYTES": object}
INPUTS = {"x": ("FP32", (-1, 4)), "n": ("INT32", (-1, 1)), "word": ("BYTES", (-1, 1)),
          "flag": ("BOOL", (-1, 1))}  # fmt: skip
OUTPUTS = {"sum": ("FP32", (-1, 1)), "text": ("BYTES", (-1, 1)), "count": ("INT32", (-1, 1))}
LENGTH = "inference-header-content-length"


def raw_of(values: np.ndarray) -> bytes:
    if values.dtype != object:
        return values.tobytes()
    texts = [text.encode() for text in values.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


class Refusal(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def require(condition: bool, why: str, status: int = 400) -> None:
    if not condition:
        raise Refusal(status, why)


@dataclass
class Reference:
    """Answers requests of the protocol; `breaks` names what it does wrong."""

    breaks: frozenset[str] = frozenset()
    loaded: bool = True
    asked: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    turn: Iterator[int] = field(default_factory=itertools.count)

    def has(self, name: str) -> bool:
        return name in self.breaks

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        low = {name.lower(): value for name, value in headers.items()}
        try:
            return self._dispatch(method, path, low, body)
        except Refusal as refusal:
            status = 500 if self.has("server-fault") else refusal.status
            text = str(refusal).encode()
            if self.has("error-text"):
                return Response(status, {"content-type": "application/json"}, text, 0.0)
            kind = "text/html" if self.has("error-type") else "application/json"
            return Response(
                status, {"content-type": kind}, json.dumps({"error": text.decode()}).encode(), 0.0
            )

    def _json(self, value: Any) -> Response:
        return Response(200, {"content-type": "application/json"}, json.dumps(value).encode(), 0.0)

    def _dispatch(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        parts = path.strip("/").split("/")
        if parts[-1] == "infer":
            require(method == "POST" or self.has("any-method"), "the method is not allowed", 405)
            return self._infer(parts, headers, body) if method == "POST" else self._json({})
        if parts[:2] == ["v2", "repository"]:
            require(method == "POST", "the method is not allowed", 405)
            return self._repository(parts[2:])
        require(method == "GET", "the method is not allowed", 405)
        return self._describe(parts)

    def _describe(self, parts: list[str]) -> Response:
        match parts:
            case ["v2"]:
                known = ["binary_tensor_data", "model_repository"]
                extensions = "all" if self.has("server-metadata") else known
                return self._json({"name": "reference", "version": "1", "extensions": extensions})
            case ["v2", "health", "live"]:
                require(not self.has("not-live"), "dead", 503)
                return self._json({} if self.has("bodies") else {"live": True})
            case ["v2", "health", "ready"]:
                require(not self.has("not-ready"), "not ready", 503)
                return self._json({"ready": True})
        self._model(parts)
        if parts[-1] == "ready":
            require(self.loaded and not self.has("model-not-ready"), "not ready", 503)
            return self._json({"name": "m", "ready": True})
        shapes = [list(shape) for _, shape in INPUTS.values()]
        if self.has("metadata-shape"):
            shapes[0] = [-2, 4]
        outputs = {**OUTPUTS, "sum": ("FP64", (-1, 1))} if self.has("signature") else OUTPUTS
        return self._json({
            "name": "m", "versions": ["1", "2"] if self.has("version-listed") else ["1"], "platform": "numpy",
            "inputs": [{"name": name, "datatype": kind, "shape": shape}
                       for (name, (kind, _)), shape in zip(INPUTS.items(), shapes, strict=True)],
            "outputs": [{"name": name, "datatype": kind, "shape": list(shape)}
                        for name, (kind, shape) in outputs.items()],
        })  # fmt: skip

    def _model(self, parts: list[str]) -> None:
        require(parts[:2] == ["v2", "models"] and len(parts) > 2, "nothing is here", 404)
        missing = parts[2] != "m" and not (self.has("any-metadata") and parts[-1] != "infer")
        require(not missing or (self.has("any-model") and parts[-1] == "infer"), "no such model", 404)
        if len(parts) > 4 and parts[3] == "versions":
            require(parts[4] == "1" or self.has("any-version"), "no such version", 404)

    def _repository(self, parts: list[str]) -> Response:
        if parts == ["index"]:
            listed = [{"name": "m", "version": "1", "state": "READY", "reason": ""}]
            return self._json({} if self.has("index") else listed)
        require(parts[1] == "m" or self.has("load-any"), "no such model", 404)
        self.loaded = parts[2] == "load" or self.has("unload-nothing")
        return self._json({})

    def _infer(self, parts: list[str], headers: Mapping[str, str], body: bytes) -> Response:
        self._model(parts)
        require(self.loaded, "the model is not loaded", 503)
        if self.has("lazy-empty") and not body:
            return self._json({"outputs": []})
        size = headers.get(LENGTH)
        at = len(body)
        if size is not None:
            fine = size.isascii() and size.isdigit() and int(size) <= len(body)
            if self.has("header-length") and not fine:
                size = str(body.rindex(b"}") + 1)
                fine = True
            require(fine, "the header length is wrong")
            at = int(size)
        head = self._parse(body[:at])
        arrays, at = self._inputs(head, body, at)
        require(
            at == len(body) or self.has("left-over") or (self.has("truncated") and at > len(body)),
            "bytes are left over",
        )
        outputs = self._compute(arrays)
        return self._write(head, outputs)

    def _parse(self, head: bytes) -> dict[str, Any]:
        if self.has("closes-json") and head.startswith(b'{"inputs":[{"name":"x"') and not head.endswith(b"}"):
            return self.last
        if self.has("lax-utf8"):
            head = head.decode("utf-8", "replace").encode()
        try:
            value = json.loads(head.decode())
        except (ValueError, RecursionError):
            raise Refusal(400, "the body is no JSON") from None
        if isinstance(value, list) and self.has("lists"):
            return self.last
        require(isinstance(value, dict), "the body is no object")
        if "inputs" not in value and self.has("no-inputs"):
            return self.last
        require(isinstance(value.get("inputs"), list), "inputs are no list")
        self.last = value if len(value["inputs"]) == len(INPUTS) else self.last
        return dict(value)

    def _inputs(self, head: dict[str, Any], body: bytes, at: int) -> tuple[dict[str, np.ndarray], int]:
        arrays: dict[str, np.ndarray] = {}
        for place, given in enumerate(head["inputs"]):
            item = given
            require(isinstance(item, dict), "an input is no object")
            name = list(INPUTS)[place % 4] if self.has("by-place") else item.get("name")
            if name not in INPUTS and self.has("extra-input"):
                continue
            require(name in INPUTS, f"no such input {name!r}")
            require(name not in arrays or self.has("twice"), "given twice")
            kind, wanted = INPUTS[name]
            datatype = item.get("datatype", kind) if self.has("no-datatype") else item.get("datatype")
            if self.has("any-datatype") and datatype == "FP31":
                datatype = kind
            require(datatype == kind, f"{name} is {kind}")
            shape = item.get("shape")
            whole = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
            require(whole, "the shape is wrong")
            count = math.prod(shape)
            if self.has("wraps"):
                count %= 1 << 64
                shape = [0, 4] if max(shape) == 1 << 32 else shape
            require(count < 1 << 20, "the tensor is too large")
            if self.has("reshapes") and shape[1:] and shape[1] == wanted[1] + 1:
                shape, item = (
                    [shape[0], shape[1] - 1],
                    {**item, "data": item["data"][: math.prod(shape) - shape[0]]},
                )
                count = math.prod(shape)
            fits = len(shape) == 2 and shape[1] == wanted[1]
            if not fits and self.has("squeezes") and len(shape) == 4:
                shape, fits = shape[:2], True
            require(fits, f"{name} has another shape")
            arrays[name], at = self._array(item, kind, shape, count, body, at)
        for name, (kind, shape) in INPUTS.items():
            if name not in arrays and self.has("defaults") and arrays:
                arrays[name] = np.zeros((len(arrays["x"]), *shape[1:]), DTYPES[kind])
            require(name in arrays, f"{name} is missing")
        require(self.has("wraps") or len({len(values) for values in arrays.values()}) == 1, "items differ")
        return arrays, at

    def _array(
        self, item: dict[str, Any], kind: str, shape: list[int], count: int, body: bytes, at: int
    ) -> Any:
        size = (item.get("parameters") or {}).get("binary_data_size")
        if size is None:
            return self._values(item, kind, shape, count), at
        require("data" not in item or self.has("both"), "the data is given twice")
        if self.has("sizes"):
            size = 4 * count if kind == "FP32" else size
        require(type(size) is int and size >= 0, "the size is wrong")
        raw = body[at : at + size]
        if self.has("truncated"):
            require(size < 1 << 10, "the size is wrong")
            raw, body = raw.ljust(size, b"\0"), body.ljust(at + size, b"\0")
        require(len(raw) == size, "the data is cut short")
        at += size
        if kind == "BYTES":
            values = np.empty(count, dtype=object)
            place = 0
            for index in range(count):
                require(place + 4 <= size, "a text is cut short")
                (length,) = struct.unpack_from("<I", raw, place)
                if self.has("prefix"):
                    length = size - 4 if count == 1 else length
                require(place + 4 + length <= size, "a text is cut short")
                values[index] = raw[place + 4 : place + 4 + length].decode()
                place += 4 + length
            require(place == size, "bytes are left over")
            return values.reshape(shape), at
        require(size == count * np.dtype(DTYPES[kind]).itemsize, "the size is wrong")
        values = np.frombuffer(raw, DTYPES[kind]).reshape(shape)
        if self.has("big-endian") and kind == "FP32":
            values = values.byteswap()
        return values, at

    def _values(  # noqa: PLR0912
        self, item: dict[str, Any], kind: str, shape: list[int], count: int
    ) -> Any:
        data = item.get("data", [0] * count if self.has("no-data") else None)
        require(isinstance(data, list), "there is no data")
        if data and isinstance(data[0], list) and self.has("flat-only"):
            raise Refusal(400, "nested data is not understood")
        if data and isinstance(data[0], list) and self.has("ragged"):
            data = [value for row in data for value in row][:count]
        if data and isinstance(data[0], list):
            require(
                all(isinstance(row, list) and len(row) == shape[1] for row in data), "the lists are ragged"
            )
            data = [value for row in data for value in row]
        if self.has("pads"):
            data = data + data[:1] * (count - len(data))
        if self.has("cuts"):
            data = data[:count]
        require(len(data) == count, "the data does not fill the shape")
        if kind == "BYTES":
            require(all(type(value) is str for value in data), "no text")
            if self.has("ascii"):
                require(all(value.isascii() for value in data), "no ASCII")
            values = np.empty(count, dtype=object)
            values[:] = data
            return values.reshape(shape)
        if kind == "BOOL":
            require(all(type(value) is bool for value in data), "no truth")
            return np.array(data, dtype=bool).reshape(shape)
        if self.has("parses-text"):
            data = [0 if isinstance(value, str) else value for value in data]
        if kind == "FP32":
            data = [math.nan if value is None else value for value in data]
            if self.has("nan-fails"):
                require(all(type(v) is not float or math.isfinite(v) for v in data), "not a number", 500)
        require(all(type(value) in (int, float) for value in data), "no number")
        if kind == "INT32":
            if self.has("wraps-values"):
                data = [int(value) & 0x7FFFFFFF for value in data]
            require(all(type(v) is int and abs(v) < 1 << 31 for v in data), "no INT32")
        with np.errstate(over="ignore"):
            return np.array(data, dtype=DTYPES[kind]).reshape(shape)

    def _compute(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        x, n = arrays["x"], arrays["n"]
        if self.has("batch-mean"):
            x = x - x.mean(axis=0) + x[:1]
        total = x.sum(axis=1, keepdims=True) + n + arrays["flag"]
        words = np.array([[f"{word}!"] for word in arrays["word"].ravel()], dtype=object).reshape(-1, 1)
        outputs = {"sum": total.astype(np.float32), "text": words, "count": n.astype(np.int32)}
        if self.has("random"):
            outputs["sum"] = outputs["sum"] + np.float32(next(self.turn))
        return outputs

    def _write(self, head: dict[str, Any], outputs: dict[str, np.ndarray]) -> Response:
        wanted = head.get("outputs")
        names = [item["name"] for item in wanted] if wanted else list(outputs)
        if self.has("extra-output"):
            names = [name for name in names if name in outputs] or list(outputs)
        require(all(name in outputs for name in names), "no such output")
        if self.has("all-outputs"):
            names = list(outputs)
        whole = (head.get("parameters") or {}).get("binary_data_output", False)
        if self.has("strict-parameters"):
            require(not any("conform" in key for key in head.get("parameters") or {}), "unknown parameter")
        asked = {item["name"]: item.get("parameters", {}).get("binary_data", whole) for item in wanted or []}
        if self.has("no-override"):
            asked = {name: value or whole for name, value in asked.items()}
        if self.has("one-binary"):
            asked = {name: True for name in asked if any(asked.values())} or asked
        described, raws = [], []
        for name in names:
            values = outputs[name]
            item: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name][0], "shape": list(values.shape)}
            if asked.get(name, whole) and not self.has("never-binary"):
                raw = raw_of(values)
                raws.append(raw)
                item["parameters"] = {"binary_data_size": len(raw)}
            else:
                flat = values.ravel().tolist()
                item["data"] = [None if isinstance(v, float) and not math.isfinite(v) else v for v in flat]
                if self.has("nan-literal"):
                    item["data"] = flat
            described.append(item)
        answer = {"model_name": "other" if self.has("model-name") else "m", "model_version": "1",
                  "outputs": described}  # fmt: skip
        if "id" in head:
            text = head["id"]
            answer["id"] = text.encode("ascii", "ignore").decode() if self.has("id") else text
        data = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
        if not raws:
            kind = "text/plain" if self.has("content-type") else "application/json"
            return Response(200, {"content-type": kind}, data, 0.0)
        kind = "application/json" if self.has("binary-type") else "application/octet-stream"
        head_of = {"content-type": kind, LENGTH: str(len(data))}
        return Response(200, head_of, b"".join([data, *raws]), 0.0)


class Near(Client):
    """A client whose server is in this process: the same requests, no sockets."""

    def send(self, request: Request) -> Exchange:
        served = SERVED[self.url]
        response = served.answer(request.method, request.path, request.headers, request.body)
        return Exchange(request, response)


SERVED: dict[str, Any] = {}


def near(served: Any) -> Client:
    """A client of a server object in this process."""
    url = f"http://in-process:{len(SERVED) + 1}"
    SERVED[url] = served
    return Near(url, control=True)


class Door(BaseHTTPRequestHandler):
    """The reference server's HTTP side."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    served: Any

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        response = self.served.answer(self.command, self.path, dict(self.headers.items()), body)
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)

    do_GET = do_POST = do_DELETE = _any  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Listening(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


@pytest.fixture
def serve() -> Iterator[Any]:
    """Starts a real server of an object with `answer`; gives its URL."""
    servers = []

    def start(served: Any) -> str:
        server = Listening(("127.0.0.1", 0), type("Bound", (Door,), {"served": served}))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def reference() -> type[Reference]:
    return Reference


@pytest.fixture
def beside() -> Any:
    """Makes a client of a server object in this process."""
    return near
