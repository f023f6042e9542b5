"""What a server says of itself and of a model, read leniently: the cases judge it strictly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from modelyard.core.errors import ServeError
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Exchange, Request
from modelyard.serve.conform.tensor import Sample


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the metadata names it; `-1` where a dimension may vary."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def batched(self) -> bool:
        """Whether the first dimension may vary, which is read as the batch."""
        return bool(self.shape) and self.shape[0] == -1


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model under test: its metadata, what the server announces, and inputs that a person gave."""

    name: str
    versions: tuple[str, ...] = ()
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    extensions: frozenset[str] = frozenset()
    sample: Sample | None = None

    @property
    def path(self) -> str:
        return f"/v2/models/{quote(self.name, safe='')}"

    @property
    def batched(self) -> bool:
        """Whether every input takes any number of items."""
        return bool(self.inputs) and all(tensor.batched for tensor in self.inputs)


def parse(exchange: Exchange) -> Any:
    """The JSON of an answer, or `None` when there is none."""
    if exchange.response is None:
        return None
    try:
        return json.loads(exchange.response.body)
    except (ValueError, RecursionError):
        return None


def discover(client: Client, names: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The models to test: those named, else those the repository index lists, ready ones first.

    Raises `ServeError` when nothing answers, or when the server lists no model.
    """
    if names:
        return names
    listed = client.send(Request("POST", "/v2/repository/index", b"{}"))
    if listed.response is None:
        raise ServeError("the server does not answer", value=client.url, fix=listed.error)
    found: dict[str, bool] = {}
    value = parse(listed)
    if listed.response.ok and isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and isinstance(item.get("name"), str):
                found[item["name"]] = found.get(item["name"], False) or item.get("state") == "READY"
    if not found:
        value = parse(client.get("/v2/models"))
        models = value.get("models") if isinstance(value, dict) else value
        for item in models if isinstance(models, list) else []:
            name = item.get("name") if isinstance(item, dict) else item
            if isinstance(name, str):
                found[name] = True
    if not found:
        raise ServeError("the server lists no model", value=client.url, fix="name one with --model NAME")
    return tuple(name for name, ready in found.items() if ready) or tuple(found)


def describe(client: Client, name: str, sample: Sample | None = None) -> ModelInfo:
    """The model's metadata as far as it can be read; what is wrong with it, the cases say."""
    server = parse(client.get("/v2"))
    extensions = server.get("extensions") if isinstance(server, dict) else None
    known = frozenset(str(item) for item in extensions) if isinstance(extensions, list) else frozenset()
    value = parse(client.get(ModelInfo(name).path))
    if not isinstance(value, dict):
        return ModelInfo(name, extensions=known, sample=sample)
    versions = value.get("versions")
    return ModelInfo(
        name,
        tuple(str(item) for item in versions) if isinstance(versions, list) else (),
        _tensors(value.get("inputs")),
        _tensors(value.get("outputs")),
        known,
        sample,
    )


def _tensors(listed: object) -> tuple[TensorInfo, ...]:
    found = []
    for item in listed if isinstance(listed, list) else []:
        if not isinstance(item, dict):
            continue
        shape = item.get("shape")
        # Some servers write sizes as text: int64 in protobuf's JSON.
        sizes = [_whole(size) for size in shape] if isinstance(shape, list) else [None]
        if isinstance(item.get("name"), str) and None not in sizes:
            whole = tuple(size for size in sizes if size is not None)
            found.append(TensorInfo(item["name"], str(item.get("datatype")), whole))
    return tuple(found)


def _whole(size: object) -> int | None:
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    text = size if isinstance(size, str) else ""
    return int(text) if text.lstrip("-").isdigit() and len(text) < 20 else None
