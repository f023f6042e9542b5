"""Cases of the model repository extension (Triton's `extension_model_repository.md`)."""

from __future__ import annotations

from modelyard.serve.conform.case import Case, need, skip
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Exchange, Request
from modelyard.serve.conform.message import agree, answered, infer_json, path_of, sample, steady
from modelyard.serve.conform.model import ModelInfo, parse

EXTENSION = "model_repository"


def _offered(model: ModelInfo) -> None:
    if not any(name.startswith(EXTENSION) for name in model.extensions):
        skip(f"the server does not announce {EXTENSION}")


def _post(client: Client, path: str) -> Exchange:
    return client.send(Request("POST", f"/v2/repository/{path}", b"{}"))


def _index(client: Client, model: ModelInfo) -> str:
    _offered(model)
    exchange = _post(client, "index")
    need(exchange.status == 200, exchange.said(), exchange)
    value = parse(exchange)
    need(isinstance(value, list), "the index is no list", exchange)
    for item in value:
        fine = isinstance(item, dict) and isinstance(item.get("name"), str) and bool(item["name"])
        need(fine, f"an entry has no name: {item!r:.80}", exchange)
    need(any(item["name"] == model.name for item in value), f"{model.name!r} is not listed", exchange)
    return f"{len(value)} models"


def _state(client: Client, model: ModelInfo) -> None:
    _offered(model)
    ready = client.send(Request("POST", "/v2/repository/index", b'{"ready":true}'))
    value = parse(ready)
    need(isinstance(value, list), "the index is no list", ready)
    for item in value:
        need(
            isinstance(item, dict) and item.get("state") == "READY",
            f"asked for ready ones: {item!r:.80}",
            ready,
        )


def _unknown(client: Client, model: ModelInfo) -> str:
    _offered(model)
    exchange = _post(client, "models/conform-no-such-model/load")
    need(exchange.status >= 400, exchange.said(), exchange)
    return str(exchange.status)


def _cycle(client: Client, model: ModelInfo) -> None:
    """Unloads the model and loads it again; always tries to leave it loaded."""
    _offered(model)
    if not client.control:
        skip("it changes what the server has loaded; allow it with --control")
    inputs = sample(model)
    before = steady(client, model, inputs)
    try:
        gone = _post(client, f"models/{model.name}/unload")
        need(gone.status == 200, f"unload: {gone.said()}", gone)
        ready = client.get(f"{model.path}/ready")
        need(ready.status != 200, "an unloaded model says that it is ready", ready)
        asked = client.send(Request("POST", path_of(model), infer_json(model, inputs).body))
        need(asked.status >= 400, f"an unloaded model answers: {asked.said()}", asked)
    finally:
        back = _post(client, f"models/{model.name}/load")
    need(back.status == 200, f"load: {back.said()}", back)
    agree(before, answered(client, infer_json(model, inputs)), "the model answers otherwise after a reload")


_SECTION = "Model Repository"

REPOSITORY = (
    Case("repository.index", "the index lists the models", _SECTION, "extension", _index),
    Case("repository.ready", "the index of ready ones holds ready ones only", _SECTION, "extension", _state),
    Case("repository.unknown", "refused: loading a model that is not there", _SECTION, "extension", _unknown),
    Case("repository.cycle", "unload, then load: gone, then back as it was", _SECTION, "extension", _cycle),
)  # fmt: skip
