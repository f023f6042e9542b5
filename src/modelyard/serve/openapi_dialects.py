"""The paths of the OpenAPI document that belong to TensorFlow Serving's REST interface and to SageMaker's."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.serve.codec.sagemaker import CSV_TYPE, LINES_TYPE
from modelyard.serve.openapi_operation import (
    ASKING,
    Described,
    Json,
    answer,
    binary,
    body,
    fields_of,
    get,
    post,
    timeout,
)
from modelyard.serve.openapi_schema import column_schema
from modelyard.serve.options import Limits

ARROW_TYPE = "application/vnd.apache.arrow.stream"
TARGET = "X-Amzn-SageMaker-Target-Model"
ARROW = "Record batches in Arrow's streaming format, columns named as the contract."

_ANYTHING: Json = {"type": "object"}


def tensorflow(name: str, served: Described, limits: Limits, guarded: bool) -> dict[str, Json]:
    """An endpoint as TensorFlow Serving shows it."""
    place = f"/v1/models/{name}"
    version = {"version": {"type": "string"}, "state": {"const": "AVAILABLE"}, "status": _ANYTHING}
    states = fields_of({"model_version_status": {"type": "array", "items": fields_of(version)}})
    known = {"model_spec": _ANYTHING, "metadata": _ANYTHING}
    either: Json = {"anyOf": [fields_of({"predictions": {"type": "array"}}), fields_of({"outputs": {}})]}
    verb, listed = (
        ("classify", {"type": "array"}) if served.labels else ("regress", {"type": ["number", "null"]})
    )
    results = fields_of({"results": {"type": "array", "items": listed}})
    asked = {"parameters": [timeout()]}
    gone = ("404", "503")
    return {
        place: get("State of its versions.", {"200": answer("The versions.", states)}, gone, guarded),
        f"{place}/metadata": get("Signature, as TensorFlow Serving describes it.",
                                 {"200": answer("Tensors.", fields_of(known))}, gone, guarded),
        f"{place}:predict": post(
            "TensorFlow Serving's predict: rows (instances) or columns (inputs).",
            {"200": answer("One a row, or the outputs by name.", either)}, ASKING, guarded,
            asked | {"requestBody": body(_predict())}),
        f"{place}:{verb}": post(
            f"TensorFlow Serving's {verb}.", {"200": answer("One result an example.", results)}, ASKING,
            guarded, asked | {"requestBody": body(_examples(served, limits))}),
    }  # fmt: skip


def _predict() -> Json:
    rows = {"type": "array", "minItems": 1,
            "description": "A value for each row, or an object with a value for each input."}  # fmt: skip
    columns = {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "minProperties": 1}],
               "description": "A tensor, or an object with a tensor for each input."}  # fmt: skip
    fields: Json = {"instances": rows, "inputs": columns, "signature_name": _signature()}
    one: list[Json] = [{"required": ["instances"], "not": {"required": ["inputs"]}},
                       {"required": ["inputs"], "not": {"required": ["instances"]}}]  # fmt: skip
    return {"type": "object", "properties": fields, "additionalProperties": False, "anyOf": one}


def _examples(served: Described, limits: Limits) -> Json:
    columns = {column.name: column_schema(column) if column.role == "feature" else {}
               for column in served.contract.columns}  # fmt: skip
    each = {"type": "object", "properties": columns, "additionalProperties": False}
    fields: Json = {
        "examples": {"type": "array", "minItems": 1, "maxItems": limits.rows, "items": each},
        "context": {"type": "object", "description": "What all examples share."},
        "signature_name": _signature(),
    }
    return {"type": "object", "required": ["examples"], "properties": fields, "additionalProperties": False}


def _signature() -> Json:
    return {"enum": ["", "serving_default"]}


def sagemaker(names: Sequence[str], guarded: bool) -> dict[str, Json]:
    """The two paths of a SageMaker container."""
    target = {"name": TARGET, "in": "header", "required": len(names) > 1, "schema": {"enum": list(names)},
              "description": "The endpoint; not needed where there is one."}  # fmt: skip
    one_of = [{"required": [field]} for field in ("rows", "instances", "inputs")]
    taken = body({"anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "anyOf": one_of}]})
    given: Json = {"description": "As Accept says, by default as the request came.",
                   "content": {"application/json": {"schema": {}}}}  # fmt: skip
    for kind, about in ((CSV_TYPE, "Comma-separated values."), (LINES_TYPE, "A JSON object a line."),
                        (ARROW_TYPE, ARROW),
                        ("application/octet-stream", "Tensors of the Open Inference Protocol.")):  # fmt: skip
        taken["content"][kind] = given["content"][kind] = binary(about)
    alive = {"200": {"description": "Endpoints are served."}}
    return {
        "/ping": get("Whether a container is healthy.", alive, ("503",), False),
        "/invocations": post("SageMaker's invocation.", {"200": given}, (*ASKING, "406"), guarded,
                             {"parameters": [target, timeout()], "requestBody": taken}),
    }  # fmt: skip
