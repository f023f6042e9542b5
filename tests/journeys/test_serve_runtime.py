"""A release is served over HTTP on the runtime that it was measured on; where that is missing, it is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelyard.model.chosen_runtime import ChosenRuntime
from modelyard.release.endpoint import Endpoints
from modelyard.release.key import signing_key, trusted_keys
from modelyard.release.load import build_bundle, load_release
from modelyard.release.policy import Canary
from modelyard.release.registry import Registry, Release

pytest.importorskip("openvino")


def release_on(serving: Any, runtime: ChosenRuntime, seed: int) -> Release:
    """A release of the small network that names a runtime, as the loop would sign it."""
    yard, graph = serving.yard, serving.module.mlp(seed)

    def build(version: int) -> Any:
        plain = load_release(yard.bundle("mlp", graph, version))
        return build_bundle(
            replace(plain.info, runtime=runtime), model=plain.model, contract=plain.contract,
            profile=plain.profile, requirements=(), evidence=(), answers=plain.answers,
            key=signing_key(yard.keys),
        )  # fmt: skip

    made = Registry(yard.store, trusted_keys(yard.keys)).publish("mlp", build)
    gate = serving.module.Verdict("infra.4", True, "not judged here")
    yard.store.ledger.append_verdict(made.digest, gate, by="test")
    return made


def promote(serving: Any, release: Release) -> None:
    """A canary that its judge lets pass, and the promotion, as evidence allows."""
    yard = serving.yard
    endpoints = Endpoints(yard.store)
    champion = endpoints.show("mlp").policy.champion
    yard.set("mlp", Canary(champion, release.digest, 0.5, salt="s"))
    yard.canary_passed("mlp", champion, release.digest)
    endpoints.promote("mlp", why="test", by="test")


def served(url: str) -> str:
    report = httpx.get(f"{url}/v2/health").json()["endpoints"]["mlp"]
    return str(report["releases"][0]["digest"])


def asked(serving: Any, rows: Any) -> np.ndarray[Any, Any]:
    given = {"name": "x", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    said = httpx.post(f"{serving.url}/v2/models/mlp/infer", json={"inputs": [given]})
    assert said.status_code == 200, said.text
    output = next(item for item in said.json()["outputs"] if item["name"] == "probabilities")
    return np.array(output["data"]).reshape(output["shape"])


@pytest.mark.parametrize(
    "runtime",
    [ChosenRuntime("openvino"), ChosenRuntime("onnxruntime", {"optimize": "basic", "prepack": False})],
    ids=str,
)
def test_it_answers_right_on_the_runtime_that_won(
    serving: Callable[..., Any], until: Any, runtime: ChosenRuntime
) -> None:
    service = serving("mlp")
    made = release_on(service, runtime, seed=5)
    promote(service, made)
    until(lambda: served(service.url) == made.digest, 20, "the release that names a runtime")
    rows = service.module.rows_of("mlp", 9, seed=11)["x"]
    truth = service.module.answers_of(service.module.mlp(5), {"x": rows})
    np.testing.assert_allclose(asked(service, rows), truth, atol=1e-4)
    libraries = (Path("/proc") / str(service.running.pid) / "maps").read_text()
    children = (Path("/proc") / str(service.running.pid) / "task").glob("*/children")
    for pid in " ".join(item.read_text() for item in children).split():
        libraries += (Path("/proc") / pid / "maps").read_text()
    assert ("openvino" in libraries) == (runtime.name == "openvino")


def test_a_service_without_the_runtime_says_the_extra_and_serves_what_it_served(
    serving: Callable[..., Any], until: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = tmp_path / "blind" / "openvino"
    blind.mkdir(parents=True)
    missing = "raise ModuleNotFoundError(\"No module named 'openvino'\", name='openvino')\n"
    (blind / "__init__.py").write_text(missing)
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{blind.parent}{os.pathsep}{before}")
    service = serving("mlp")
    old = served(service.url)
    made = release_on(service, ChosenRuntime("openvino"), seed=5)
    service.yard.set("mlp", Canary(old, made.digest, 0.5, salt="s"))

    def refused() -> Any:
        return httpx.get(f"{service.url}/v2/health").json()["endpoints"]["mlp"].get("refused")

    why = until(refused, 20, "the refusal")["why"]
    assert "openvino" in why and "modelyard[openvino]" in why
    report = httpx.get(f"{service.url}/v2/health").json()
    assert report["ready"] is True
    assert served(service.url) == old
    rows = service.module.rows_of("mlp", 3)["x"]
    truth = service.module.answers_of(service.module.mlp(), {"x": rows})
    np.testing.assert_allclose(asked(service, rows), truth, atol=1e-5)
    # The next release, which runs here, is taken over as ever.
    again = release_on(service, ChosenRuntime(), seed=6)
    Endpoints(service.yard.store).rollback("mlp", why="it cannot run here", by="test")
    promote(service, again)
    until(lambda: served(service.url) == again.digest, 20, "the release that runs here")
