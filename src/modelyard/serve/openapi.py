"""The OpenAPI 3.1 document of the endpoints that are loaded: pure, from their contracts and signatures.

A schema says what is accepted, not what is expected: a value outside of the contract's range or categories
is answered and reported as a breach, so ranges and categories stand in descriptions and examples.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.core.spec import TensorSpec
from modelyard.data.contract import Column, Contract
from modelyard.serve.codec.inference import MAX_ID
from modelyard.serve.feedback import MAX_ITEMS
from modelyard.serve.openapi_dialects import ARROW, ARROW_TYPE, sagemaker, tensorflow
from modelyard.serve.openapi_operation import (
    ASKING,
    Described,
    Json,
    answer,
    binary,
    body,
    fields_of,
    get,
    nullable,
    post,
    timeout,
)
from modelyard.serve.openapi_schema import column_schema, tensor_schema
from modelyard.serve.options import Limits


def openapi(
    endpoints: Sequence[tuple[str, Described]], *, version: str, limits: Limits, guarded: bool
) -> Json:
    """The document. `guarded` says that requests need a token."""
    paths: Json = dict(_service(guarded))
    for name, served in endpoints:
        paths |= _endpoint(name, served, limits, guarded) | tensorflow(name, served, limits, guarded)
    if endpoints:
        paths |= sagemaker([name for name, _ in endpoints], guarded)
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": "Modelyard", "version": version, "description": "Predictions, and what is known of "
                 "the models that make them: the Open Inference Protocol v2, plain rows, "
                 "and the requests of TensorFlow Serving and SageMaker."},
        "paths": paths,
        "components": {"schemas": {"Error": fields_of({"error": {"type": "string"}})}},
    }  # fmt: skip
    if guarded:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _service(guarded: bool) -> dict[str, Json]:
    anything: Json = {"type": "object"}
    ready = fields_of({"ready": {"type": "boolean"}}, more=True)
    health = {"200": answer("Ready.", ready), "503": answer("Not ready, and why.", ready)}
    index = {
        "type": "array",
        "items": fields_of({name: {"type": "string"} for name in ("name", "version", "state", "reason")}),
    }
    only_ready = body({"type": "object", "properties": {"ready": {"type": "boolean"}},
                        "additionalProperties": False}, needed=False)  # fmt: skip
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    change = {"parameters": [name], "requestBody": body(_CHANGE, needed=False)}
    bad = ("400", "408", "413", "415")
    return {
        "/v2": get("The server and what it can do.", {"200": answer("The server.", anything)}, (), guarded),
        "/v2/health": get("Everything that is known.", {"200": answer("The report.", anything)}, (), guarded),
        "/v2/health/live": get("Whether it answers.", {"200": answer("It does.", anything)}, (), False),
        "/v2/health/ready": get("Whether every endpoint is served.", health, (), False),
        "/metrics": get("Prometheus metrics.", {"200": {"description": "Text exposition format 0.0.4.",
                         "content": {"text/plain": {"schema": {"type": "string"}}}}}, (), guarded),
        "/v2/repository/index": post("Every endpoint and its state.", {"200": answer("The list.", index)},
                                      bad, guarded, {"requestBody": only_ready}),
        "/v2/repository/models/{name}/load": post(
            "Serves an endpoint of the store.", {"200": answer("It is served.", anything)},
            (*bad, "403", "404", "422", "503", "504"), guarded, change),
        "/v2/repository/models/{name}/unload": post(
            "Serves an endpoint no more.", {"200": answer("It is not served any more.", anything)},
            (*bad, "403", "404", "503"), guarded, change),
    }  # fmt: skip


_CHANGE: Json = {
    "type": "object",
    "properties": {"parameters": {"type": "object", "maxProperties": 1, "properties": {
        "unload_dependents": {"type": "boolean"}}, "additionalProperties": False}},
    "additionalProperties": False,
}  # fmt: skip


def _endpoint(name: str, served: Described, limits: Limits, guarded: bool) -> dict[str, Json]:
    signature, contract = served.signature, served.contract
    tensors = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": nullable({"type": "string", "maxLength": MAX_ID}),
            "inputs": _all_of(signature.inputs),
            "outputs": nullable({"type": "array", "items": _wanted(signature.outputs)}),
            "parameters": nullable({"type": "object"}),
        },
    }
    given = {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": {"const": name},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {
                "type": "array",
                "items": {"type": "object", "required": ["name", "datatype", "shape"]},
            },
        },
    }
    raw = {"description": "The JSON part, and the tensors behind it. Inference-Header-Content-Length says "
           "where they begin.", "schema": {"type": "string", "format": "binary"}}  # fmt: skip
    infer_answer = answer("The outputs.", given)
    infer_answer["content"]["application/octet-stream"] = raw
    infer_body = body(tensors)
    infer_body["content"]["application/octet-stream"] = raw
    length = {"name": "Inference-Header-Content-Length", "in": "header", "required": False,
              "schema": {"type": "integer", "minimum": 0}}  # fmt: skip
    rows = body(_rows(contract, limits))
    predictions = answer("One a row.", _predictions(name, served))
    rows["content"][ARROW_TYPE] = predictions["content"][ARROW_TYPE] = binary(ARROW)
    model = fields_of({"name": {"const": name}}, more=True)
    ready = fields_of({"name": {"const": name}, "ready": {"type": "boolean"}})
    return {
        f"/predict/{name}": post(
            f"Predictions of {name}, for rows.", {"200": predictions}, ASKING, guarded,
            {"parameters": [timeout()], "requestBody": rows}),
        f"/feedback/{name}": post(
            "The right answers, by prediction id.", {"200": answer("What was kept.", fields_of(
                {"accepted": {"type": "integer"}, "unknown": {"type": ["integer", "null"]}}))},
            ("400", "403", "404", "408", "413", "415", "503"), guarded,
            {"requestBody": body(_feedback(served.labels))}),
        f"/v2/models/{name}": get("Metadata.", {"200": answer("Tensors.", model)}, ("404", "503"), guarded),
        f"/v2/models/{name}/ready": get(
            "Readiness.", {"200": answer("Ready.", ready), "503": answer("Not ready.", {"type": "object"})},
            ("404",), guarded),
        f"/v2/models/{name}/config": get(
            "Configuration, as Triton describes it.", {"200": answer("Tensors of one item.", model)},
            ("404", "503"), guarded),
        f"/v2/models/{name}/stats": get(
            "What became of its requests.", {"200": answer("Of each release.", fields_of(
                {"model_stats": {"type": "array", "items": model}}))}, ("404", "503"), guarded),
        f"/v2/models/{name}/infer": post(
            "The Open Inference Protocol.", {"200": infer_answer}, ASKING, guarded,
            {"parameters": [length, timeout()], "requestBody": infer_body}),
    }  # fmt: skip


def _all_of(specs: tuple[TensorSpec, ...]) -> Json:
    each = [tensor_schema(spec) for spec in specs]
    return {
        "type": "array",
        "minItems": len(each),
        "maxItems": len(each),
        "prefixItems": each,
        "items": False,
    }


def _wanted(specs: tuple[TensorSpec, ...]) -> Json:
    return {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"enum": [spec.name for spec in specs]},
            "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
        },
    }


def _rows(contract: Contract, limits: Limits) -> Json:
    features = [column for column in contract.columns if column.role == "feature"]
    row = {
        "type": "object",
        "required": [column.name for column in features if _needed(column)],
        "properties": {
            column.name: column_schema(column) if column.role == "feature" else {}
            for column in contract.columns
        },
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "required": ["rows"],
        "properties": {
            "id": nullable({"type": "string", "maxLength": MAX_ID}),
            "key": nullable({"type": "string", "description": "What routing sticks to."}),
            "rows": {"type": "array", "minItems": 1, "maxItems": limits.rows, "items": row},
        },
    }


def _needed(column: Column) -> bool:
    whole = column.kind == "tensor" and not (column.datatype or "FP32").startswith("FP")
    return column.missing_max == 0 or whole


def _predictions(name: str, served: Described) -> Json:
    if served.labels:
        said = {
            "label": {"enum": list(served.labels)},
            "confidence": {"type": ["number", "null"]},
            "probabilities": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
        }
    else:
        said = {"prediction": {"type": ["number", "null"]}}
    each = fields_of({"id": {"type": "string"}, **said})
    facts: Json = {key: {"type": "string"} for key in ("id", "release", "version")}
    return fields_of({**facts, "endpoint": {"const": name}, "predictions": {"type": "array", "items": each}})


def _feedback(labels: tuple[str, ...]) -> Json:
    key, known = ("label", {"enum": list(labels)}) if labels else ("value", {"type": "number"})
    item = fields_of({"id": {"type": "string", "minLength": 1, "maxLength": MAX_ID + 16}, key: known})
    listed = {"type": "array", "minItems": 1, "maxItems": MAX_ITEMS, "items": item}
    return {"type": "object", "required": ["feedback"], "properties": {"feedback": listed}}
