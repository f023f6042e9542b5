"""Whatever is sent: a reason on the wire, never a 500, never a hang, never the answer of another."""

from __future__ import annotations

import gzip
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.serve.encoding import pack
from modelyard.serve.options import Limits
from modelyard.serve.service import stop

INFER = "/v2/models/mlp/infer"
LENGTH = "inference-header-content-length"


@pytest.fixture(scope="module")
def server(serve_on: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    limits = Limits(body=2 << 20, elements=100_000, rows=1_000, header_seconds=1.5, body_seconds=1.5)
    made = serve_on(tmp_path_factory.mktemp("hostile"), limits=limits)
    yield made
    text = httpx.get(f"{made.url}/metrics").text
    stop(made.state)
    log = made.log()
    assert "not foreseen" not in log and "Traceback" not in log, log[-3_000:]
    assert 'status="500"' not in text


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=10) as made:
        yield made


def tensor(**changes: Any) -> dict[str, Any]:
    made = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.25] * 64} | changes
    return {key: value for key, value in made.items() if value is not ...}


def body_of(**changes: Any) -> dict[str, Any]:
    return {"inputs": [tensor(**changes)]}


def refused(answer: httpx.Response, *words: str) -> str:
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    error = answer.json()["error"]
    assert isinstance(error, str) and len(error) < 1_000
    for word in words:
        assert word in error, error
    return error


HUGE = 1 << 40
SHAPES: list[Any] = [
    [1 << 32, 1 << 32], [1 << 63, 2], [1 << 62, 4], [(1 << 64) - 1], [1 << 64], [HUGE, HUGE, HUGE],
    [1 << 63, 0],
    [-1, 64], [0, 64], [1, -64], [1.0, 64], ["1", 64], [True, 64], [None, 64], [[1], 64], [], {}, "1,64", 64,
    None,
    [1] * 17, [1] * 10_000, [1e400, 64], [float("nan"), 64],
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape)[:30])
def test_shapes(client: httpx.Client, shape: Any) -> None:
    for data in ([0.5] * 64, [], ...):
        content = json.dumps(body_of(shape=shape, data=data))
        refused(client.post(INFER, content=content), "shape" if "e400" not in content else "")


FIELDS: dict[str, tuple[Any, str]] = {
    "no name": (body_of(name=...), "inputs[0].name"),
    "name null": (body_of(name=None), "inputs[0].name"),
    "name long": (body_of(name="n" * 100_000), "inputs"),
    "other name": (body_of(name="y"), "'x'"),
    "twice": ({"inputs": [tensor(), tensor()]}, "twice"),
    "one more": ({"inputs": [tensor(), tensor(name="y")]}, "'y'"),
    "datatype": (body_of(datatype="FP32 "), "datatype"),
    "other datatype": (body_of(datatype="FP64"), "FP32"),
    "bfloat": (body_of(datatype="BF16"), "datatype"),
    "no datatype": (body_of(datatype=...), "datatype"),
    "texts": (body_of(data=["0.5"] * 64), "data[0]"),
    "a text": (body_of(data="0.5"), "data"),
    "objects": (body_of(data=[{}] * 64), "data[0]"),
    "bool": (body_of(datatype="BOOL", data=[1] * 64), "data[0]"),
    "huge int": (body_of(datatype="INT64", data=[1 << 70] * 64), "data"),
    "short": (body_of(data=[0.5] * 63), "data"),
    "long": (body_of(data=[0.5] * 65), "data"),
    "nested wrong": (body_of(data=[[0.5] * 63]), "nested"),
    "deep": (body_of(data=[[[[[[0.5]]]]]]), "data"),
    "data twice": (body_of(parameters={"binary_data_size": 256}), "twice"),
    "no bytes": (body_of(data=..., parameters={"binary_data_size": 256}), "binary_data_size"),
    "parameters": ({**body_of(), "parameters": 3}, "parameters"),
    "own parameters": (body_of(parameters=[1]), "parameters"),
    "binary output": ({**body_of(), "parameters": {"binary_data_output": "yes"}}, "binary_data_output"),
    "key": ({**body_of(), "parameters": {"key": 3}}, "key"),
    "sequence": ({**body_of(), "parameters": {"sequence_id": 3}}, "sequence_id"),
    "timeout": ({**body_of(), "parameters": {"timeout": -1}}, "timeout"),
    "timeout text": ({**body_of(), "parameters": {"timeout": "5"}}, "timeout"),
    "timeout huge": ({**body_of(), "parameters": {"timeout": 1 << 63}}, "timeout"),
    "timeout true": ({**body_of(), "parameters": {"timeout": True}}, "timeout"),
    "id": ({**body_of(), "id": 7}, "id"),
    "id long": ({**body_of(), "id": "7" * 257}, "id"),
    "outputs": ({**body_of(), "outputs": {"name": "probabilities"}}, "outputs"),
    "output name": ({**body_of(), "outputs": [{"name": 3}]}, "outputs[0].name"),
    "output unknown": ({**body_of(), "outputs": [{"name": "probability"}]}, "did you mean"),
    "output twice": ({**body_of(), "outputs": [{"name": "probabilities"}] * 2}, "twice"),
    "output binary": (
        {**body_of(), "outputs": [{"name": "probabilities", "parameters": {"binary_data": 1}}]},
        "binary_data",
    ),
    "many tensors": ({"inputs": [tensor(name=str(index)) for index in range(1_100)]}, "inputs"),
    "no inputs": ({}, "inputs"),
    "list": ([], "object"),
    "number": (3, "object"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_fields(client: httpx.Client, name: str) -> None:
    body, word = FIELDS[name]
    refused(client.post(INFER, json=body), word)


TEXTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "JSON"),
    "cut short": (json.dumps(body_of()).encode()[:-3], "JSON"),
    "a comma": (b'{"inputs": [],}', "JSON"),
    "something behind": (json.dumps(body_of()).encode() + b"{}", "JSON"),
    "utf-16": (json.dumps(body_of()).encode("utf-16"), "JSON"),
    "bom": (b"\xef\xbb\xbf" + json.dumps(body_of()).encode(), "JSON"),
    "latin": (b'{"id": "\xe9"}', "JSON"),
    "half a character": (b'{"id": "\\ud800"}', "JSON"),
    "deep lists": (b"[" * 200_000, "JSON"),
    "deep objects": (b'{"a":' * 100_000, "JSON"),
    "deep and closed": (b'{"inputs":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "JSON"),
    "deep with NaN": (b'{"a": NaN, "inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON"),
    "long number": (b'{"a": NaN, "id": ' + b"9" * 10_000 + b"}", "JSON"),
    "inputs twice": (b'{"inputs": [], "inputs": []}', "inputs"),
    "shape twice": (
        json.dumps(body_of()).encode().replace(b'"shape":', b'"shape": [1, 1], "shape":'), "got 'shape'",
    ),
    "escaped twice": (
        json.dumps(body_of()).encode().replace(b'"shape":', b'"sh\\u0061pe": [1, 1], "shape":'),
        "given twice",
    ),
    "data twice, NaN": (
        json.dumps(body_of(data=[float("nan")] * 64)).encode().replace(b'"data":', b'"data": [], "data":'),
        "twice",
    ),
    "parameter twice": (
        b'{"parameters": {"key": "a", "key": "b"}, ' + json.dumps(body_of()).encode()[1:], "got 'key'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_texts(client: httpx.Client, name: str) -> None:
    body, word = TEXTS[name]
    refused(client.post(INFER, content=body), word)
    refused(client.post("/predict/mixed", content=body))
    refused(client.post("/feedback/mixed", content=body))


def test_a_row_with_a_key_twice(client: httpx.Client) -> None:
    row = b'{"rows": [{"size": 1, "colour": "red", "size": 2}]}'
    refused(client.post("/predict/mixed", content=row), "got 'size'")
    # Colons and brackets in texts are no keys.
    rows = [{"size": 1, "colour": "red", "note": 'a ":" b: {"size": 3, "size": 4} \\'}]
    assert client.post("/predict/mixed", json={"rows": rows, "id": 'x":"y'}).status_code == 200
    item = b'{"feedback": [{"id": "a", "value": 1, "value": 2}]}'
    refused(client.post("/feedback/mixed", content=item), "got 'value'")


def binary(head: dict[str, Any], raw: bytes, length: object = None) -> tuple[bytes, dict[str, str]]:
    text = json.dumps(head).encode()
    return text + raw, {LENGTH: str(len(text) if length is None else length)}


RAW = np.full(64, 0.25, np.float32).tobytes()


def sized(size: Any, **changes: Any) -> dict[str, Any]:
    return body_of(data=..., parameters={"binary_data_size": size}, **changes)


def test_binary_lengths(client: httpx.Client) -> None:
    whole, headers = binary(sized(256), RAW)
    good = client.post(INFER, content=whole, headers=headers)
    assert good.status_code == 200
    for size in (0, 255, 257, -1, 1 << 63, 1 << 64, 256.0, "256", True, None, [256], {}):
        body, headers = binary(sized(size), RAW)
        refused(client.post(INFER, content=body, headers=headers))
    for length in ("-1", "0", "1e2", "99999999", "9" * 40, "abc", "", "0x10", "٣", len(whole) + 1, 3):
        body, headers = binary(sized(256), RAW, length)
        answer = client.post(INFER, content=body, headers={LENGTH: str(length).encode()})
        refused(answer)
    for raw in (b"", RAW[:-1], RAW + b"x", RAW * 2):
        body, headers = binary(sized(256), raw)
        refused(client.post(INFER, content=body, headers=headers))
    both = [tensor(name="x", data=..., parameters={"binary_data_size": 128}),
            tensor(name="y", data=..., parameters={"binary_data_size": 200})]  # fmt: skip
    body, headers = binary({"inputs": both}, RAW)
    refused(client.post(INFER, content=body, headers=headers))


def test_binary_texts(client: httpx.Client) -> None:
    head = {"inputs": [
        {"name": "size", "datatype": "FP32", "shape": [2, 1], "data": [1, 2]},
        {"name": "colour", "datatype": "BYTES", "shape": [2, 1], "data": ["red", "blue"]},
        {"name": "note", "datatype": "BYTES", "shape": [2, 1]},
    ]}  # fmt: skip
    pairs = {
        "good": (struct.pack("<I", 1) + b"a" + struct.pack("<I", 2) + "é".encode(), 200),
        "beyond": (struct.pack("<I", 0xFFFFFFFF) + b"abcdefgh", 400),
        "negative": (struct.pack("<i", -1) + b"abcdefgh", 400),
        "big endian": (struct.pack(">I", 1) + b"a" + struct.pack(">I", 1) + b"b", 400),
        "one only": (struct.pack("<I", 1) + b"a", 400),
        "three": ((struct.pack("<I", 1) + b"a") * 3, 400),
        "half a length": (struct.pack("<I", 1) + b"a" + b"\x01\x00", 400),
        "no utf-8": ((struct.pack("<I", 1) + b"\xff") * 2, 400),
    }
    for name, (raw, status) in pairs.items():
        head["inputs"][2]["parameters"] = {"binary_data_size": len(raw)}  # type: ignore[index]
        body, headers = binary(head, raw)
        answer = client.post("/v2/models/mixed/infer", content=body, headers=headers)
        assert answer.status_code == status, (name, answer.text)
        if status != 200:
            refused(answer, "inputs[2]")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_fuzzed_binary_bodies(client: httpx.Client, data: st.DataObject) -> None:
    """A good body with bytes changed, cut out, put in or repeated, and a length that may be off."""
    whole, headers = binary(sized(256), RAW)
    body = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, max(0, len(body) - 1)))
        match data.draw(st.sampled_from(["flip", "cut", "put", "repeat"])):
            case "flip" if body:
                body[at] = data.draw(st.integers(0, 255))
            case "cut":
                del body[at : at + data.draw(st.integers(0, 40))]
            case "put":
                body[at:at] = data.draw(st.binary(max_size=20))
            case _:
                body[at:at] = body[at : at + data.draw(st.integers(0, 40))]
    length = int(headers[LENGTH]) + data.draw(st.sampled_from([0, 0, 0, -1, 1, 7, -40]))
    answer = client.post(INFER, content=bytes(body), headers={LENGTH: str(max(0, length))})
    assert answer.status_code in (200, 400, 413), answer.text
    if answer.status_code == 200:
        assert answer.json()["outputs"][0]["shape"][1:] == [10]
    else:
        refused(answer)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate"])
def test_packed_bodies(client: httpx.Client, encoding: Any) -> None:
    headers = {"content-encoding": encoding}
    content = json.dumps(body_of()).encode()
    assert client.post(INFER, content=pack(content, encoding), headers=headers).status_code == 200
    # Binary: the length is that of the JSON part before it was packed.
    whole, length = binary(sized(256), RAW)
    assert client.post(INFER, content=pack(whole, encoding), headers=headers | length).status_code == 200
    rows = {"rows": [{"size": 1, "colour": "red", "note": random.Random(2).randbytes(500).hex()}] * 1_000}  # noqa: S311 - noise
    large = pack(random.Random(1).randbytes(150_000), encoding)  # noqa: S311 - noise
    refused(client.post(INFER, content=large, headers=headers), "JSON")
    answer = client.post("/predict/mixed", content=pack(json.dumps(rows).encode(), encoding), headers=headers)
    assert answer.status_code == 200 and len(answer.json()["predictions"]) == 1_000
    bomb = pack(b" " * (100 << 20), encoding)
    assert client.post(INFER, content=bomb, headers=headers).status_code == 413
    for body in (content, pack(content, encoding)[:-3], pack(content, encoding) + b"x"):
        refused(client.post(INFER, content=body, headers=headers), "Content-Encoding")
    for wrong in ("br", "gzip, zstd", "x" * 500):
        answer = client.post(INFER, content=content, headers={"content-encoding": wrong})
        assert answer.status_code == 415
    assert gzip.decompress(pack(b"a", "gzip")) == b"a"


def raw(server: Any, *parts: bytes, pause: float = 0.0, seconds: float = 6.0) -> bytes:
    with socket.create_connection(server.address, timeout=seconds) as connection:
        found = b""
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            while part := connection.recv(65_536):
                found += part
        return found


POST = b"POST /predict/mixed HTTP/1.1\r\nHost: a\r\n"


def test_heads(server: Any) -> None:
    close = b"Connection: close\r\n\r\n"
    assert raw(server, POST + b"X: " + b"a" * 70_000 + b"\r\n" + close).split()[1] in (b"431", b"400")
    assert b" 431 " in raw(server, POST + b"X: a\r\n" * 150 + close).splitlines()[0]
    for head in (
        b"GET / HTTP/9.9\r\n\r\n", b"\0" * 50 + b"\r\n\r\n", b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        POST + b"Content-Length: +3\r\n\r\nabc", POST + b"Content-Length: 3, 3\r\n\r\nabc",
        POST + b"Content-Length: 0x3\r\n\r\nabc", POST + b"Content-Length: 18446744073709551616\r\n\r\nabc",
        POST + b"Transfer-Encoding: gzip\r\n\r\nabc", POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content\xffLength: 3\r\n\r\nabc", b"POST /predict/mi\xffxed HTTP/1.1\r\nHost: a\r\n\r\n",
    ):  # fmt: skip
        answer = raw(server, head)
        assert not answer or b" 4" in answer.splitlines()[0] or b" 5" not in answer.splitlines()[0], answer
    for path in (
        "/%00",
        "/%ff",
        "//v2//health",
        "/v2/models/%2e%2e",
        "/v2/models//infer",
        "/?a=/../b",
        "/" + "a" * 9_000,
    ):
        answer = raw(server, b"GET " + path.encode() + b" HTTP/1.1\r\nHost: a\r\n" + close)
        assert answer.split()[1] in (b"404", b"400", b"405", b"414", b"431"), (path, answer[:100])


def test_slow_and_silent_clients_are_cut(server: Any) -> None:
    """A head that drips, a body that drips, a connection that says nothing: each ends in time."""
    ended: dict[str, float] = {}

    def attack(name: str, *parts: bytes, pause: float = 0.2) -> None:
        began = time.monotonic()
        raw(server, *parts, pause=pause, seconds=12)
        ended[name] = time.monotonic() - began

    drip = [b"a: b\r\n"] * 40
    threads = [
        threading.Thread(target=attack, args=("head", POST, *drip)),
        threading.Thread(target=attack, args=("body", POST + b"Content-Length: 900\r\n\r\n", *[b" "] * 40)),
        threading.Thread(target=attack, args=("chunks", POST + b"Transfer-Encoding: chunked\r\n\r\n",
                                              *[b"1\r\n \r\n"] * 40)),
        threading.Thread(target=attack, args=("nothing",)),
        threading.Thread(target=attack, args=("keep-alive", b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n")),
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(seconds < 9.5 for seconds in ended.values()) and len(ended) == 5, ended


def test_models_that_are_not_there(server: Any, client: httpx.Client) -> None:
    refused(client.post("/v2/models/mlq/infer", json=body_of()), "did you mean 'mlp'")
    refused(client.post("/v2/models/mlp/versions/2/infer", json=body_of()), "version")
    refused(client.post("/predict/MIXED", json={"rows": [{}]}))
    assert client.post("/v2/repository/models/mlp/unload").status_code == 200
    refused(client.post(INFER, json=body_of()), "no such endpoint")
    assert client.get("/v2/models/mlp/ready").status_code == 404
    assert client.post("/v2/repository/models/mlp/load").status_code == 200
    assert client.post(INFER, json=body_of()).status_code == 200


def test_nobody_hears_anothers_answer_among_the_wrong_ones(server: Any) -> None:
    """Good callers with distinct inputs, between broken bodies, aborted ones and timeouts."""
    expected = {}
    for number in range(12):
        values = server.module.rows_of("mlp", 1, seed=number)["x"]
        expected[number] = (values, server.module.answers_of(server.module.mlp(), {"x": values}))
    ended = threading.Event()
    wrong: list[str] = []
    answered = [0]

    def good(number: int) -> None:
        values, right = expected[number]
        content = json.dumps(body_of(data=values.ravel().tolist()))
        with httpx.Client(base_url=server.url, timeout=20) as session:
            while not ended.is_set():
                answer = session.post(INFER, content=content)
                if answer.status_code != 200:
                    wrong.append(answer.text)
                elif not np.allclose(answer.json()["outputs"][0]["data"], right.ravel(), atol=1e-5):
                    wrong.append(f"the answer of another: {number}")
                answered[0] += 1

    def bad() -> None:
        bodies = [body for body, _ in TEXTS.values() if len(body) < 5_000]
        bodies += [json.dumps(body).encode() for body, _ in list(FIELDS.values())[:20]]
        chance = random.Random(5)  # noqa: S311 - a choice of bodies
        with httpx.Client(base_url=server.url, timeout=20) as session:
            while not ended.is_set():
                session.post(INFER, content=chance.choice(bodies))
                head = POST + b"Content-Length: 500\r\n\r\n{"
                with socket.create_connection(server.address, timeout=5) as connection:
                    connection.sendall(head)
                session.post(INFER, json=body_of(), headers={"x-request-timeout-ms": "1"})

    threads = [threading.Thread(target=good, args=(number,)) for number in expected]
    threads += [threading.Thread(target=bad) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(4)
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]
    assert answered[0] > 100


def test_aio_tritonclient(server: Any) -> None:
    import asyncio

    import tritonclient.http.aio as triton

    async def ask() -> list[float]:
        client = triton.InferenceServerClient(server.url.removeprefix("http://"))
        try:
            tensor = triton.InferInput("x", [1, 64], "FP32")
            tensor.set_data_from_numpy(np.full((1, 64), 0.25, np.float32))
            answers = await asyncio.gather(
                *(
                    client.infer("mlp", [tensor], request_compression_algorithm=kind,
                                 response_compression_algorithm=kind, timeout=5_000_000)
                    for kind in ("gzip", "deflate", None)
                )
            )  # fmt: skip
            index = await client.get_model_repository_index()
            assert {item["name"] for item in index} == {"mlp", "mixed"}
            await client.unload_model("mixed")
            assert not await client.is_model_ready("mixed")
            await client.load_model("mixed")
            assert await client.is_model_ready("mixed")
            return [float(answer.as_numpy("probabilities")[0, 0]) for answer in answers]
        finally:
            await client.close()

    first, second, third = asyncio.run(ask())
    assert first == second == third
