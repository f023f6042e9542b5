"""Cases of what the server says of itself and its models."""

from __future__ import annotations

from typing import Any

from modelyard.core.spec import DATATYPES
from modelyard.serve.conform.case import Case, need, skip
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Exchange
from modelyard.serve.conform.message import answered, infer_json, sample
from modelyard.serve.conform.model import ModelInfo, parse


def _ok(client: Client, path: str) -> Exchange:
    exchange = client.get(path)
    need(exchange.status == 200, f"GET {path}: {exchange.said()}", exchange)
    return exchange


def _object(client: Client, path: str) -> tuple[dict[str, Any], Exchange]:
    exchange = _ok(client, path)
    value = parse(exchange)
    need(isinstance(value, dict), "the answer is no JSON object", exchange)
    return value, exchange


def _live(client: Client, model: ModelInfo) -> None:
    _ok(client, "/v2/health/live")


def _ready(client: Client, model: ModelInfo) -> None:
    _ok(client, "/v2/health/ready")


def _bodies(client: Client, model: ModelInfo) -> None:
    for path, key in (("/v2/health/live", "live"), (f"{model.path}/ready", "ready")):
        value, exchange = _object(client, path)
        need(isinstance(value.get(key), bool), f"there is no boolean {key!r}", exchange)


def _server(client: Client, model: ModelInfo) -> str:
    value, exchange = _object(client, "/v2")
    for key in ("name", "version"):
        need(isinstance(value.get(key), str) and bool(value[key]), f"{key!r} is no text", exchange)
    extensions = value.get("extensions")
    fine = isinstance(extensions, list) and all(isinstance(item, str) for item in extensions)
    need(fine, "'extensions' is no list of texts", exchange)
    return f"{value['name']} {value['version']}"


def _metadata(client: Client, model: ModelInfo) -> str:
    value, exchange = _object(client, model.path)
    need(value.get("name") == model.name, f"'name' is {value.get('name')!r}", exchange)
    need(isinstance(value.get("platform"), str), "'platform' is no text", exchange)
    for side in ("inputs", "outputs"):
        listed = value.get(side)
        need(isinstance(listed, list), f"{side!r} is no list", exchange)
        for item in listed or []:
            named = isinstance(item, dict) and isinstance(item.get("name"), str) and bool(item["name"])
            need(named, f"a tensor of {side!r} has no name", exchange)
            need(item.get("datatype") in (*DATATYPES, "BF16"),
                 f"{item['name']!r} has the datatype {item.get('datatype')!r}", exchange)  # fmt: skip
            shape = item.get("shape")
            whole = isinstance(shape, list) and all(type(size) is int and size >= -1 for size in shape)
            need(whole, f"{item['name']!r} has the shape {shape!r}", exchange)
    return f"{len(model.inputs)} inputs, {len(model.outputs)} outputs"


def _model_ready(client: Client, model: ModelInfo) -> None:
    _ok(client, f"{model.path}/ready")


def _versions(client: Client, model: ModelInfo) -> str:
    if not model.versions:
        skip("the metadata lists no versions")
    for version in model.versions:
        path = f"{model.path}/versions/{version}"
        value, exchange = _object(client, path)
        need(value.get("name") == model.name, f"'name' is {value.get('name')!r}", exchange)
        _ok(client, f"{path}/ready")
    return ", ".join(model.versions)


def _version_infer(client: Client, model: ModelInfo) -> None:
    if not model.versions:
        skip("the metadata lists no versions")
    version = model.versions[-1]
    answer = answered(client, infer_json(model, sample(model), version=version))
    said = answer.head.get("model_version")
    need(said in (None, version), f"version {version} was asked for, {said!r} answered", answer.exchange)


DESCRIBING = (
    Case("server.live", "the server says that it is live", "Server Live", "required", _live),
    Case("server.ready", "the server says that it is ready", "Server Ready", "required", _ready),
    Case("server.metadata", "name, version and extensions", "Server Metadata", "required", _server),
    Case("model.metadata", "name, platform and well-formed tensors", "Model Metadata", "required", _metadata),
    Case("model.ready", "the model says that it is ready", "Model Ready", "required", _model_ready),
    Case("model.versions", "each version listed has metadata and readiness", "Model Metadata", "required",
         _versions),
    Case("model.version-infer", "a version that is listed can be asked", "Inference", "required",
         _version_infer),
    Case("health.bodies", "liveness and readiness have the JSON body", "Server Live, Model Ready", "optional",
         _bodies),
)  # fmt: skip
