"""A small real release: an ONNX graph over two numbers, its contract, profile and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.data.contract import Column, Contract
from modelyard.data.profile import profile
from modelyard.measure.measurement import Measurement
from modelyard.measure.requirement import Requirement
from modelyard.model.reader import read_model
from modelyard.release.answers import Answers
from modelyard.release.bundle import Bundle
from modelyard.release.info import ReleaseInfo
from modelyard.release.key import SigningKey, signing_key
from modelyard.release.load import build_bundle
from modelyard.store.store import Store, open_store

LABELS = ("no", "yes")


def graph(weight: float) -> bytes:
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["x"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "two-numbers",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in ("a", "b")],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
            [numpy_helper.from_array(np.array([[0, weight], [weight, 0]], np.float32), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return signing_key(tmp_path / "keys")


@pytest.fixture
def contract() -> Contract:
    return Contract(
        "two-numbers",
        (Column("a", "number"), Column("b", "number"), Column("y", "category", "label", categories=LABELS)),
    )


@pytest.fixture
def make(key: SigningKey, contract: Contract) -> Callable[..., Bundle]:
    """Builds a bundle; every argument has a default."""
    rows = np.linspace(-1, 1, 8, dtype=np.float32)
    table = pa.table({"a": rows, "b": rows[::-1], "y": ["no", "yes"] * 4})
    profiled = profile(table, contract)

    def build(
        version: int = 1, *, name: str = "digits", weight: float = 1.0, key: SigningKey = key, **changes: Any
    ) -> Bundle:
        model = read_model(graph(weight), task="classification", labels=LABELS)
        scores = np.exp(np.stack([rows[::-1], rows], 1) * weight)
        info = ReleaseInfo(
            name, version, "2026-01-02T03:04:05Z", "classification", LABELS, {}, {"threads": 1}
        )
        parts: dict[str, Any] = {
            "model": model,
            "contract": contract,
            "profile": profiled,
            "requirements": [Requirement("accuracy", 0.9, "at_least")],
            "evidence": [
                Requirement("accuracy", 0.9, "at_least").judge(Measurement("accuracy", 0.95)).to_json()
            ],
            "answers": Answers(
                {"a": rows[:, None], "b": rows[::-1, None]}, scores / scores.sum(1, keepdims=True)
            ),
        }
        return build_bundle(info, **{**parts, **changes}, key=key)

    return build


@pytest.fixture
def bundle(make: Callable[..., Bundle]) -> Bundle:
    return make()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "store")
    yield opened
    opened.close()
