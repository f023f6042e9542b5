"""The pieces of an OpenAPI document that every path is made of: operations, bodies, answers, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from modelyard.core.spec import Signature
from modelyard.data.contract import Contract
from modelyard.serve.fields import LONGEST_MS

Json: TypeAlias = dict[str, Any]

TIMEOUT = "X-Request-Timeout-Ms"
ASKING = ("400", "404", "408", "413", "415", "422", "503", "504")
"""How a request for a prediction may be refused, beside what a token brings."""

_REASONS = {
    "400": "The request is wrong; the reason names the field.",
    "401": "A token is needed, or the one that was sent is not known.",
    "403": "The token has not the role that this needs, or a web page of another origin asked.",
    "404": "There is no such endpoint or version.",
    "405": "The method is not allowed here.",
    "406": "None of the kinds of answer that the client takes is written.",
    "408": "The body did not arrive in time.",
    "413": "The body, a tensor or the number of items is larger than the service takes.",
    "415": "The content encoding or the content type is not supported.",
    "422": "The model cannot answer this input, or its release cannot be served.",
    "429": "The token's rate is used up; Retry-After says for how long.",
    "503": "The endpoint is loading, or too many requests wait; Retry-After says for how long.",
    "504": "The client's timeout passed before there was an answer.",
}
_TOKEN = ("401", "403", "429")
_BINARY: Json = {"schema": {"type": "string", "format": "binary"}}


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


def get(about: str, good: Json, refusals: Sequence[str], guarded: bool) -> Json:
    """A path with GET."""
    operation: Json = {"summary": about, "responses": _responses(good, refusals, guarded)}
    return {"get": operation if guarded else operation | {"security": []}}


def post(about: str, good: Json, refusals: Sequence[str], guarded: bool, more: Json) -> Json:
    """A path with POST; `more` holds parameters and the body."""
    return {"post": {"summary": about, **more, "responses": _responses(good, refusals, guarded)}}


def body(schema: Json, *, needed: bool = True) -> Json:
    """A request's body in JSON."""
    return {"required": needed, "content": {"application/json": {"schema": schema}}}


def answer(about: str, schema: Json) -> Json:
    """A response with a body in JSON."""
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def binary(about: str) -> Json:
    """The content of a media type that is not described any further."""
    return _BINARY | {"description": about}


def fields_of(properties: Json, *, more: bool = False) -> Json:
    """An object that has all of these fields, and no others unless `more`."""
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": more,
    }


def nullable(schema: Json) -> Json:
    """What the schema takes, or `null`."""
    return {"anyOf": [schema, {"type": "null"}]}


def timeout() -> Json:
    """The header that says how long a client waits."""
    about = "Milliseconds after which the client wants no answer any more."
    return {"name": TIMEOUT, "in": "header", "required": False, "description": about,
            "schema": {"type": "integer", "minimum": 1, "maximum": LONGEST_MS}}  # fmt: skip


def _responses(good: Json, refusals: Sequence[str], guarded: bool) -> Json:
    error = {"$ref": "#/components/schemas/Error"}
    statuses = sorted({*refusals, *(_TOKEN if guarded else ())} - good.keys())
    return good | {status: answer(_REASONS[status], error) for status in statuses}
