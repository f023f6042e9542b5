from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from modelyard.core.digest import canonical, digest_bytes
from modelyard.core.errors import ModelError, ModelyardError, ReleaseError
from modelyard.data.contract import Column, Contract
from modelyard.model.predict import predict
from modelyard.model.runtimes import RUNTIMES
from modelyard.release.answers import Answers
from modelyard.release.bundle import LIMITS, Bundle
from modelyard.release.info import ReleaseInfo
from modelyard.release.load import load_release, read_evidence


def test_everything_that_went_in_comes_out(bundle: Bundle, contract: Contract) -> None:
    loaded = load_release(bundle)
    assert loaded.digest == bundle.digest
    assert loaded.contract == contract
    assert loaded.info == bundle.info
    assert loaded.requirements[0].claim == "requirement.accuracy"
    assert loaded.profile.rows == 8
    assert loaded.model.labels == ("no", "yes")
    assert read_evidence(bundle)[0]["claim"] == "requirement.accuracy"


def test_the_kept_answers_are_those_that_the_model_gives(bundle: Bundle) -> None:
    loaded = load_release(bundle)
    session = RUNTIMES.get("onnxruntime").load(loaded.model)
    np.testing.assert_allclose(predict(session, loaded.answers.inputs), loaded.answers.outputs, atol=1e-6)
    session.close()


def changed(bundle: Bundle, **files: bytes) -> Bundle:
    return Bundle(
        MappingProxyType({**bundle.files, **{name.replace("_", "."): data for name, data in files.items()}})
    )


@pytest.mark.parametrize("name", [name for name in LIMITS if name.endswith(".json")])
@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"format": 99}', b"[" * 50_000])
def test_a_signed_but_wrong_part_is_an_error_of_ours(bundle: Bundle, name: str, data: bytes) -> None:
    with pytest.raises(ModelyardError):
        load_release(Bundle({**bundle.files, name: data}))


def test_the_model_passes_the_strict_reader(bundle: Bundle) -> None:
    said = json.loads(bundle.files["release.json"])
    said["lineage"]["model"] = digest_bytes(b"not a model")
    with pytest.raises(ModelError):
        load_release(changed(bundle, release_json=canonical(said), model_onnx=b"not a model"))


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("labels", ["yes", "no"], "labels"),
        ("lineage", {"model": digest_bytes(b"other")}, "model's digest"),
        ("lineage", {"contract": digest_bytes(b"other")}, "contract's digest"),
    ],
)
def test_parts_of_two_runs_do_not_mix(bundle: Bundle, field: str, value: Any, where: str) -> None:
    said = {**json.loads(bundle.files["release.json"]), field: value}
    with pytest.raises(ReleaseError, match=where):
        load_release(changed(bundle, release_json=canonical(said)))


def test_building_from_parts_that_do_not_fit(make: Callable[..., Bundle]) -> None:
    other = Contract("t", (Column("a", "number"), Column("y", "category", "label", categories=("no", "yes"))))
    with pytest.raises(ReleaseError, match="inputs of model and contract"):
        make(contract=other)
    one = np.zeros((1, 1), np.float32)
    with pytest.raises(ReleaseError, match="kept answers"):
        make(answers=Answers({"a": one}, np.zeros((1, 2), np.float32)))
    with pytest.raises(ReleaseError, match="columns of labels"):
        make(answers=Answers({"a": one, "b": one}, np.zeros((1, 3), np.float32)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Not A Name"},
        {"name": "../x"},
        {"version": 0},
        {"version": True},
        {"task": "clustering"},
        {"labels": ()},
        {"created": "yesterday"},
        {"lineage": {"code": "abc"}},
    ],
)
def test_a_wrong_identity(bundle: Bundle, wrong: dict[str, Any]) -> None:
    with pytest.raises(ReleaseError):
        replace(bundle.info, **wrong)


def test_identity_round_trip(bundle: Bundle) -> None:
    assert ReleaseInfo.from_json(json.loads(canonical(bundle.info.to_json()))) == bundle.info


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0.1, np.nan], [np.inf, -0.0]], np.float32),
        np.array([[1 / 3]], np.float64).repeat(2, 0),
        np.array([[1, 255]], np.uint8).repeat(2, 0),
        np.array([[True], [False]]),
        np.array([["a", "é\n"], ["", "c"]], object),
        np.zeros((2, 3, 4), np.int64),
    ],
    ids=lambda array: str(array.dtype),
)
def test_answers_round_trip_bit_for_bit(array: np.ndarray[Any, Any]) -> None:
    kept = Answers({"x": array}, np.zeros((2, 1), np.float32) if len(array) == 2 else np.zeros((1, 1)))
    found = Answers.from_json(json.loads(canonical(kept.to_json()))).inputs["x"]
    assert found.dtype == array.dtype
    assert found.tolist() == array.tolist() or found.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "tensor",
    [
        {"datatype": "FP32", "shape": [10**18, 0], "data": []},
        {"datatype": "FP32", "shape": [2, 1], "data": [1.0]},
        {"datatype": "FP32", "shape": [-1, -1], "data": [1.0]},
        {"datatype": "PICKLE", "shape": [1, 1], "data": [1.0]},
        {"datatype": "UINT8", "shape": [1, 1], "data": [4096]},
        {"datatype": "FP32", "shape": [1, 1], "data": [{}]},
        {"datatype": "FP32", "shape": [], "data": [1.0]},
    ],
)
def test_wrong_answers_are_refused(tensor: dict[str, Any]) -> None:
    good = {"datatype": "FP32", "shape": [1, 1], "data": [1.0]}
    with pytest.raises(ReleaseError):
        Answers.from_json({"format": 1, "inputs": {"x": tensor}, "outputs": good})
    with pytest.raises(ReleaseError):
        Answers.from_json({"format": 1, "inputs": {"x": good}, "outputs": tensor})
