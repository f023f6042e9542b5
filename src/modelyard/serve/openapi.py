"""The OpenAPI 3.1 document of the endpoints that are loaded: pure, from their contracts and signatures.

A schema says what is accepted, not what is expected: a value outside of the contract's range or categories
is answered and reported as a breach, so ranges and categories stand in descriptions and examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from modelyard.core.spec import Signature, TensorSpec
from modelyard.data.contract import Column, Contract
from modelyard.serve.codec.inference import MAX_ID
from modelyard.serve.feedback import MAX_ITEMS
from modelyard.serve.openapi_schema import column_schema, tensor_schema
from modelyard.serve.options import Limits

Json: TypeAlias = dict[str, Any]

TIMEOUT = "X-Request-Timeout-Ms"

_REASONS = {
    "400": "The request is wrong; the reason names the field.",
    "401": "A token is needed, or the one that was sent is not known.",
    "403": "The token has not the role that this needs, or a web page of another origin asked.",
    "404": "There is no such endpoint or version.",
    "405": "The method is not allowed here.",
    "408": "The body did not arrive in time.",
    "413": "The body, a tensor or the number of items is larger than the service takes.",
    "415": "The content encoding is not supported.",
    "422": "The model cannot answer this input, or its release cannot be served.",
    "429": "The token's rate is used up; Retry-After says for how long.",
    "503": "The endpoint is loading, or too many requests wait; Retry-After says for how long.",
    "504": "The client's timeout passed before there was an answer.",
}
_TOKEN = ("401", "403", "429")


class Described(Protocol):
    """What must be known of the release that stands for an endpoint."""

    @property
    def version(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def signature(self) -> Signature: ...

    @property
    def contract(self) -> Contract: ...


def openapi(
    endpoints: Sequence[tuple[str, Described]], *, version: str, limits: Limits, guarded: bool
) -> Json:
    """The document. `guarded` says that requests need a token."""
    paths: Json = dict(_service(guarded))
    for name, served in endpoints:
        paths |= _endpoint(name, served, limits, guarded)
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": "Modelyard", "version": version, "description": "Predictions, and what is known of "
                 "the models that make them: the Open Inference Protocol v2, and plain rows."},
        "paths": paths,
        "components": {"schemas": {"Error": _object({"error": {"type": "string"}})}},
    }  # fmt: skip
    if guarded:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _service(guarded: bool) -> dict[str, Json]:
    anything: Json = {"type": "object"}
    ready = _object({"ready": {"type": "boolean"}}, more=True)
    health = {"200": _json("Ready.", ready), "503": _json("Not ready, and why.", ready)}
    index = {
        "type": "array",
        "items": _object({name: {"type": "string"} for name in ("name", "version", "state", "reason")}),
    }
    only_ready = _body({"type": "object", "properties": {"ready": {"type": "boolean"}},
                        "additionalProperties": False}, needed=False)  # fmt: skip
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    change = {"parameters": [name], "requestBody": _body(_CHANGE, needed=False)}
    bad = ("400", "408", "413", "415")
    return {
        "/v2": _get("The server and what it can do.", {"200": _json("The server.", anything)}, (), guarded),
        "/v2/health": _get("Everything that is known.", {"200": _json("The report.", anything)}, (), guarded),
        "/v2/health/live": _get("Whether it answers.", {"200": _json("It does.", anything)}, (), False),
        "/v2/health/ready": _get("Whether every endpoint is served.", health, (), False),
        "/metrics": _get("Prometheus metrics.", {"200": {"description": "Text exposition format 0.0.4.",
                         "content": {"text/plain": {"schema": {"type": "string"}}}}}, (), guarded),
        "/v2/repository/index": _post("Every endpoint and its state.", {"200": _json("The list.", index)},
                                      bad, guarded, {"requestBody": only_ready}),
        "/v2/repository/models/{name}/load": _post(
            "Serves an endpoint of the store.", {"200": _json("It is served.", anything)},
            (*bad, "403", "404", "422", "503", "504"), guarded, change),
        "/v2/repository/models/{name}/unload": _post(
            "Serves an endpoint no more.", {"200": _json("It is not served any more.", anything)},
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
    asking = ("400", "404", "408", "413", "415", "422", "503", "504")
    tensors = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": _nullable({"type": "string", "maxLength": MAX_ID}),
            "inputs": _all_of(signature.inputs),
            "outputs": _nullable({"type": "array", "items": _wanted(signature.outputs)}),
            "parameters": _nullable({"type": "object"}),
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
    infer_answer = _json("The outputs.", given)
    infer_answer["content"]["application/octet-stream"] = raw
    infer_body = _body(tensors)
    infer_body["content"]["application/octet-stream"] = raw
    length = {"name": "Inference-Header-Content-Length", "in": "header", "required": False,
              "schema": {"type": "integer", "minimum": 0}}  # fmt: skip
    model = _object({"name": {"const": name}}, more=True)
    ready = _object({"name": {"const": name}, "ready": {"type": "boolean"}})
    return {
        f"/predict/{name}": _post(
            f"Predictions of {name}, for rows.", {"200": _json("One a row.", _predictions(name, served))},
            asking, guarded, {"parameters": [_timeout()], "requestBody": _body(_rows(contract, limits))}),
        f"/feedback/{name}": _post(
            "The right answers, by prediction id.", {"200": _json("What was kept.", _object(
                {"accepted": {"type": "integer"}, "unknown": {"type": "integer"}}))},
            ("400", "403", "404", "408", "413", "415", "503"), guarded,
            {"requestBody": _body(_feedback(served.labels))}),
        f"/v2/models/{name}": _get("Metadata.", {"200": _json("Tensors.", model)}, ("404", "503"), guarded),
        f"/v2/models/{name}/ready": _get(
            "Readiness.", {"200": _json("Ready.", ready), "503": _json("Not ready.", {"type": "object"})},
            ("404",), guarded),
        f"/v2/models/{name}/infer": _post(
            "The Open Inference Protocol.", {"200": infer_answer}, asking, guarded,
            {"parameters": [length, _timeout()], "requestBody": infer_body}),
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
            "id": _nullable({"type": "string", "maxLength": MAX_ID}),
            "key": _nullable({"type": "string", "description": "What routing sticks to."}),
            "rows": {"type": "array", "minItems": 1, "maxItems": limits.rows, "items": row},
        },
    }


def _needed(column: Column) -> bool:
    whole = column.kind == "tensor" and not (column.datatype or "FP32").startswith("FP")
    return column.missing_max == 0 or whole


def _predictions(name: str, served: Described) -> Json:
    if served.labels:
        answer = {
            "label": {"enum": list(served.labels)},
            "confidence": {"type": ["number", "null"]},
            "probabilities": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
        }
    else:
        answer = {"prediction": {"type": ["number", "null"]}}
    each = _object({"id": {"type": "string"}, **answer})
    facts: Json = {key: {"type": "string"} for key in ("id", "release", "version")}
    return _object({**facts, "endpoint": {"const": name}, "predictions": {"type": "array", "items": each}})


def _feedback(labels: tuple[str, ...]) -> Json:
    key, answer = ("label", {"enum": list(labels)}) if labels else ("value", {"type": "number"})
    item = _object({"id": {"type": "string", "minLength": 1, "maxLength": MAX_ID + 16}, key: answer})
    listed = {"type": "array", "minItems": 1, "maxItems": MAX_ITEMS, "items": item}
    return {"type": "object", "required": ["feedback"], "properties": {"feedback": listed}}


def _timeout() -> Json:
    about = "Milliseconds after which the client wants no answer any more."
    return {"name": TIMEOUT, "in": "header", "required": False, "description": about,
            "schema": {"type": "integer", "minimum": 1, "maximum": 86_400_000}}  # fmt: skip


def _object(properties: Json, *, more: bool = False) -> Json:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": more,
    }


def _nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _body(schema: Json, *, needed: bool = True) -> Json:
    return {"required": needed, "content": {"application/json": {"schema": schema}}}


def _json(about: str, schema: Json) -> Json:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _responses(good: Json, refusals: Sequence[str], guarded: bool) -> Json:
    error = {"$ref": "#/components/schemas/Error"}
    statuses = sorted({*refusals, *(_TOKEN if guarded else ())} - good.keys())
    return good | {status: _json(_REASONS[status], error) for status in statuses}


def _get(about: str, good: Json, refusals: Sequence[str], guarded: bool) -> Json:
    operation: Json = {"summary": about, "responses": _responses(good, refusals, guarded)}
    return {"get": operation if guarded else operation | {"security": []}}


def _post(about: str, good: Json, refusals: Sequence[str], guarded: bool, more: Json) -> Json:
    return {"post": {"summary": about, **more, "responses": _responses(good, refusals, guarded)}}
