"""The other protocols as their clients speak them, to a real service over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import serve_yard as yard

from modelyard.data.tensors import table_of
from modelyard.serve.options import Limits, ServeOptions
from modelyard.serve.service import start, stop

ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dialects")
    made = yard.Yard.make(folder)
    made.serve(("mlp", "mixed"))
    options = ServeOptions(
        state=folder / "state", root=made.folder / "store", endpoints=("mlp", "mixed"), keys=made.keys,
        port=0, limits=Limits(body=1 << 20, elements=100_000, rows=1_000),
    )  # fmt: skip
    yield start(options).url
    stop(folder / "state")


def post(url: str, path: str, body: Any, **headers: str) -> httpx.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return httpx.post(url + path, content=data, headers=named, timeout=20)


def test_tensorflow_serving(url: str) -> None:
    """Requests as TensorFlow Serving's REST documentation writes them."""
    inputs = yard.rows_of("mlp", 3)
    want = yard.answers_of(yard.mlp(), inputs)
    body = {"signature_name": "serving_default", "instances": inputs["x"].tolist()}
    for path in ("/v1/models/mlp:predict", "/v1/models/mlp/versions/1:predict"):
        found = post(url, path, body).json()["predictions"]
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
    columns = post(url, "/v1/models/mlp:predict", {"inputs": {"x": inputs["x"].tolist()}}).json()["outputs"]
    np.testing.assert_allclose(columns, want, rtol=1e-4, atol=1e-6)
    rows = [{"size": 3.0, "colour": "green", "note": ""}, {"size": 1.0, "colour": "red", "note": ""}]
    assert post(url, "/v1/models/mixed:predict", {"instances": rows}).json() == {
        "predictions": [[4.0], [1.0]]
    }
    examples = {"context": {"colour": "green"}, "examples": [{"size": 3}, {"size": 1, "colour": "red"}]}
    assert post(url, "/v1/models/mixed:regress", examples).json() == {"results": [4.0, 1.0]}
    results = post(url, "/v1/models/mlp:classify", {"examples": [{"x": inputs["x"][0].tolist()}]}).json()
    assert [label for label, _ in results["results"][0]] == list(yard.CLASSES)


def test_tensorflow_serving_describes(url: str) -> None:
    for path in ("/v1/models/mlp", "/v1/models/mlp/versions/1"):
        (state,) = httpx.get(url + path).json()["model_version_status"]
        assert (state["version"], state["state"], state["status"]["error_code"]) == ("1", "AVAILABLE", "OK")
    found = httpx.get(f"{url}/v1/models/mlp/metadata").json()
    assert found["model_spec"] == {"name": "mlp", "signature_name": "", "version": "1"}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert [item["size"] for item in signature["outputs"]["probabilities"]["tensor_shape"]["dim"]] == [
        "-1",
        "10",
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("GET", "/v1/models/mpl", 404, "did you mean 'mlp'"),
        ("GET", "/v1/models/mlp/versions/7", 404, "version"),
        ("GET", "/v1/models/mlp/versions/7/metadata", 404, "version"),
        ("GET", "/v1/models/mlp/labels/stable", 404, "label"),
        ("GET", "/v1/models/mlp:predict", 405, "POST"),
        ("POST", "/v1/models/mlp", 405, "GET"),
        ("POST", "/v1/models/mlp:predcit", 404, "did you mean 'predict'"),
        ("POST", "/v1/models/mlp/versions/7:predict", 404, "version"),
        ("POST", "/v1/models/mlp:regress", 400, "classification"),
        ("GET", "/v1/models/", 404, ""),
        ("GET", "/v1/models", 404, ""),
        ("GET", "/v1", 404, ""),
    ],
)
def test_paths_of_tensorflow_serving_that_lead_nowhere(
    url: str, method: str, path: str, status: int, word: str
) -> None:
    body = {"examples": [{}]} if path.endswith("regress") else {"instances": [1]}
    answer = httpx.request(method, url + path, content=json.dumps(body) if method == "POST" else None)
    assert (answer.status_code, word in answer.json()["error"]) == (status, True), answer.text


def test_sagemaker(url: str) -> None:
    assert httpx.get(f"{url}/ping").status_code == 200
    headers = {"X-Amzn-SageMaker-Target-Model": "mixed", "X-Amzn-SageMaker-Inference-Id": "i-1"}
    as_csv = post(url, "/invocations", b"3,green,\n1,red,hello\n", content_type="text/csv", **headers)
    assert (as_csv.text, as_csv.headers["content-type"]) == ("4.0\n1.0\n", "text/csv; charset=utf-8")
    as_json = post(url, "/invocations", [[3, "green", ""]], **headers).json()
    assert as_json["id"] == "i-1" and as_json["predictions"] == [{"id": "i-1", "prediction": 4.0}]
    rows = post(url, "/invocations", {"rows": [{"size": 3, "colour": "green"}]}, accept="text/csv", **headers)
    assert rows.text == "4.0\n"
    lines = post(url, "/invocations", b'{"size": 3, "colour": "red"}\n', content_type="application/jsonlines",
                 **headers)  # fmt: skip
    assert json.loads(lines.text)["prediction"] == 3.0
    several = post(url, "/invocations", [[3]])
    assert several.status_code == 400 and "X-Amzn-SageMaker-Target-Model" in several.text
    assert post(url, "/invocations", [[3]], x_amzn_sagemaker_target_model="mlq").status_code == 404


def test_sagemaker_takes_binary_tensors_as_triton_does(url: str) -> None:
    inputs = yard.rows_of("mlp", 2)
    head = json.dumps({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 64],
                    "parameters": {"binary_data_size": 512}}],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    kind = "application/vnd.sagemaker-triton.binary+json;json-header-size="
    answer = post(url, "/invocations", head + inputs["x"].tobytes(), content_type=f"{kind}{len(head)}",
                  x_amzn_sagemaker_target_model="mlp")  # fmt: skip
    assert answer.headers["content-type"].startswith(kind)
    size = int(answer.headers["content-type"].removeprefix(kind))
    found = np.frombuffer(answer.content[size:], np.float32).reshape(2, 10)
    np.testing.assert_allclose(found, yard.answers_of(yard.mlp(), inputs), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "mixed"])
@pytest.mark.parametrize("path", ["/predict/", "/invocations"])
def test_arrow(url: str, kind: str, path: str) -> None:
    inputs = yard.rows_of(kind, 5)
    table = table_of(inputs, yard.contract_of(kind))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    target = {"x_amzn_sagemaker_target_model": kind} if path == "/invocations" else {}
    answer = post(url, path if target else path + kind, body, content_type=ARROW, **target)
    assert answer.status_code == 200 and answer.headers["content-type"] == ARROW
    found = pa.ipc.open_stream(answer.content).read_all()
    want = yard.answers_of(yard.mlp() if kind == "mlp" else yard.mixed(), inputs)
    if kind == "mlp":
        assert found["label"].to_pylist() == [yard.CLASSES[top] for top in want.argmax(axis=1)]
        np.testing.assert_allclose(np.array(found["probabilities"].to_pylist()), want, rtol=1e-4, atol=1e-6)
    else:
        np.testing.assert_allclose(found["prediction"].to_numpy(), want.ravel(), rtol=1e-5)
    assert found.schema.metadata[b"endpoint"] == kind.encode()
    cut = post(url, f"/predict/{kind}", body[: len(body) // 2], content_type=ARROW)
    assert cut.status_code == 400 and "Arrow" in cut.text


# What `mlserver.types.InferenceRequest` (1.7.1) writes by `model_dump_json()`, with string content types.
MLSERVER = (
    b'{"id":"ml-1","inputs":[{"name":"size","shape":[2,1],"datatype":"FP32","data":[3.0,4.0]},'
    b'{"name":"colour","shape":[2,1],"datatype":"BYTES","parameters":{"content_type":"str"},'
    b'"data":["green","red"]},{"name":"note","shape":[2,1],"datatype":"BYTES",'
    b'"parameters":{"content_type":"str"},"data":["",""]}],"outputs":[{"name":"prediction"}]}'
)


@pytest.mark.parametrize("path", ["/v2/models/mixed/infer", "/invocations"])
def test_a_request_of_mlservers_types(url: str, path: str) -> None:
    answer = post(url, path, MLSERVER, x_amzn_sagemaker_target_model="mixed").json()
    assert (answer["model_name"], answer["id"]) == ("mixed", "ml-1")
    (output,) = answer["outputs"]
    assert (output["name"], output["shape"], output["data"]) == ("prediction", [2, 1], [4.0, 4.0])


HOSTILE = [
    b"", b"{", b"[" * 100_000, b"\xff" * 64, b"\x00" * 64, b'{"instances":' + b"9" * 5_000 + b"}",
    b'{"instances":[{"b64":"="}]}', b"1," * 50_000, b'"' * 1_001, b'{"rows":[' + b"{}," * 5_000,
]  # fmt: skip
KINDS = [
    "text/csv", "application/json", "application/jsonlines", ARROW, "application/octet-stream",
    "application/vnd.sagemaker-triton.binary+json;json-header-size=5", ";;;", "text/csv;;header", "",
]  # fmt: skip


def test_hostile_bodies_are_refused_and_the_service_stays(url: str) -> None:
    with httpx.Client(base_url=url, timeout=20) as client:
        for body in HOSTILE:
            for path in ("/v1/models/mlp:predict", "/v1/models/mixed:classify", "/v1/models/mixed:regress"):
                assert 400 <= client.post(path, content=body).status_code < 500, (path, body[:30])
            for kind in KINDS:
                headers = {"content-type": kind, "x-amzn-sagemaker-target-model": "mixed"}
                for path in ("/invocations", "/predict/mixed"):
                    answer = client.post(path, content=body, headers=headers)
                    assert 400 <= answer.status_code < 500, (path, kind, body[:30], answer.text[:200])
                    assert answer.json()["error"]
        assert client.get("/ping").status_code == 200
