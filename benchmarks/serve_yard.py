"""Small real releases behind endpoints, for the benchmark and the tests of the serving room.

`mlp` is [N,64] to 10 classes through 128-128, `cnn` is [N,3,64,64] to 10 classes at several ms an item,
`mixed` has a number, a category and a text column and predicts a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper

from modelyard.core.spec import Tensors
from modelyard.data.contract import Column, Contract
from modelyard.data.profile import Profile, profile
from modelyard.data.tensors import table_of
from modelyard.measure.measurement import Verdict
from modelyard.model.reader import read_model
from modelyard.release import endpoint, registry
from modelyard.release.answers import Answers
from modelyard.release.bundle import Bundle
from modelyard.release.endpoint import Endpoints
from modelyard.release.endpoint_law import EndpointState
from modelyard.release.info import ReleaseInfo
from modelyard.release.key import signing_key, trusted_keys
from modelyard.release.load import build_bundle
from modelyard.release.policy import Canary, Policy, Single
from modelyard.release.registry import Registry, Release
from modelyard.store.store import Store, open_store

CLASSES = tuple("abcdefghij")
COLOURS = ("red", "green", "blue")


def mlp(seed: int = 0, width: int = 64) -> bytes:
    """A graph `x [N, width]` -> `probabilities [N, 10]` through 128-128."""
    rng = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for index, (rows, columns) in enumerate(((width, 128), (128, 128), (128, 10))):
        name = f"w{index}"
        weights.append(
            numpy_helper.from_array(
                (rng.normal(size=(rows, columns)) / np.sqrt(rows)).astype(np.float32), name
            )
        )
        nodes.append(helper.make_node("MatMul", [last, name], [f"m{index}"]))
        last = f"m{index}"
        if index < 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{index}"]))
            last = f"r{index}"
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    return _graph(nodes, weights, {"x": [width]}, "probabilities", 10)


def cnn(seed: int = 0, channels: int = 32) -> bytes:
    """A graph `x [N, 3, 64, 64]` -> `probabilities [N, 10]`."""
    rng = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for index, (before, after) in enumerate(
        ((3, channels), (channels, 2 * channels), (2 * channels, 2 * channels))
    ):
        name = f"w{index}"
        kernel = rng.normal(size=(after, before, 3, 3)) / np.sqrt(9 * before)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), name))
        nodes.append(helper.make_node("Conv", [last, name], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last = f"r{index}"
        if index < 2:
            nodes.append(
                helper.make_node("MaxPool", [last], [f"p{index}"], kernel_shape=[2, 2], strides=[2, 2])
            )
            last = f"p{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["g"]))
    nodes.append(helper.make_node("Flatten", ["g"], ["f"]))
    weights.append(numpy_helper.from_array(rng.normal(size=(2 * channels, 10)).astype(np.float32), "wo"))
    nodes.append(helper.make_node("MatMul", ["f", "wo"], ["z"]))
    nodes.append(helper.make_node("Softmax", ["z"], ["probabilities"], axis=1))
    return _graph(nodes, weights, {"x": [3, 64, 64]}, "probabilities", 10)


def mixed(factor: float = 1.0) -> bytes:
    """`size` FP32, `colour` and `note` BYTES, all `[N,1]` -> `prediction` = factor * size + colour."""
    encode = helper.make_node(
        "LabelEncoder",
        ["colour"],
        ["place"],
        domain="ai.onnx.ml",
        keys_strings=list(COLOURS),
        values_floats=[0.0, 1.0, 2.0],
        default_float=-1.0,
    )
    same = helper.make_node(
        "LabelEncoder",
        ["note"],
        ["zero"],
        domain="ai.onnx.ml",
        keys_strings=["shout"],
        values_floats=[100.0],
        default_float=0.0,
    )
    factor_tensor = numpy_helper.from_array(np.array([[factor]], np.float32), "factor")
    nodes = [
        encode,
        same,
        helper.make_node("Mul", ["size", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "place"], ["sum"]),
        helper.make_node("Add", ["sum", "zero"], ["prediction"]),
    ]
    inputs = [
        helper.make_tensor_value_info("size", TensorProto.FLOAT, ["N", 1]),
        helper.make_tensor_value_info("colour", TensorProto.STRING, ["N", 1]),
        helper.make_tensor_value_info("note", TensorProto.STRING, ["N", 1]),
    ]
    output = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["N", 1])
    graph = helper.make_graph(nodes, "mixed", inputs, [output], [factor_tensor])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def _graph(
    nodes: list[Any], weights: list[Any], inputs: dict[str, list[int]], output: str, width: int
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "benchmark",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *shape]) for n, shape in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", width])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def contract_of(kind: str) -> Contract:
    """The contract that belongs to one of the graphs."""
    if kind == "mixed":
        return Contract(
            "mixed",
            (
                Column("size", "number", minimum=0, maximum=100, missing_max=0.5),
                Column("colour", "category", categories=COLOURS),
                Column("note", "text", missing_max=1.0, privacy="personal"),
                Column("price", "number", role="label"),
            ),
        )
    shape = (64,) if kind == "mlp" else (3, 64, 64)
    feature = Column("x", "tensor", shape=shape, datatype="FP32", minimum=-100, maximum=100)
    return Contract(kind, (feature, Column("y", "category", role="label", categories=CLASSES)))


def rows_of(kind: str, count: int, seed: int = 7) -> Tensors:
    """Inputs that keep the contract."""
    rng = np.random.default_rng(seed)
    if kind == "mixed":
        colours = np.array([COLOURS[i] for i in rng.integers(0, 3, count)], dtype=object).reshape(-1, 1)
        notes = np.array(["née"] * count, dtype=object).reshape(-1, 1)
        return {"size": rng.random((count, 1), np.float32) * 100, "colour": colours, "note": notes}
    shape = (64,) if kind == "mlp" else (3, 64, 64)
    return {"x": rng.normal(size=(count, *shape)).astype(np.float32)}


def answers_of(onnx: bytes, inputs: Tensors) -> np.ndarray:
    """What plain onnxruntime answers."""
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


@cache
def _described(kind: str) -> tuple[Contract, Tensors, Profile]:
    """The contract of a kind, four rows, and their profile."""
    contract, inputs = contract_of(kind), rows_of(kind, 4)
    label = pa.array([1.0] * 4 if kind == "mixed" else list(CLASSES[:4]))
    table = table_of(inputs, contract).append_column(contract.label.name, label)
    return contract, inputs, profile(table, contract)


@dataclass
class Yard:
    """A store with releases and endpoints in a folder."""

    folder: Path
    store: Store

    @staticmethod
    def make(folder: Path) -> Yard:
        signing_key(folder / "keys")
        return Yard(folder, open_store(folder / "store"))

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    def bundle(self, kind: str, onnx: bytes, version: int, *, name: str = "", answers: Any = None) -> Bundle:
        contract, inputs, described = _described(kind)
        labels = () if kind == "mixed" else CLASSES
        task: Any = "regression" if kind == "mixed" else "classification"
        expected = answers_of(onnx, inputs) if answers is None else answers
        return build_bundle(
            ReleaseInfo(name or kind, version, "2026-01-02T03:04:05Z", task, labels, {}, {}),
            model=read_model(onnx, task=task, labels=labels),
            contract=contract,
            profile=described,
            requirements=[],
            evidence=[],
            answers=Answers(inputs, expected),
            key=signing_key(self.keys),
        )

    def release(self, kind: str, onnx: bytes, *, answers: Any = None) -> Release:
        """Adds a release whose gate has passed."""
        releases = Registry(self.store, trusted_keys(self.keys))
        release = releases.publish(kind, lambda version: self.bundle(kind, onnx, version, answers=answers))
        gate = Verdict("infra.4", True, "not judged here")
        self.store.ledger.append_verdict(release.digest, gate, by="test")
        return release

    def next_of(self, name: str, onnx: bytes) -> EndpointState:
        """Another version of one of `many`, behind its endpoint, as if its canary had passed."""
        releases, endpoints = Registry(self.store, trusted_keys(self.keys)), Endpoints(self.store)
        before = endpoints.show(name).champion
        made = releases.publish(name, lambda version: self.bundle("mlp", onnx, version, name=name))
        self.store.ledger.append_verdict(made.digest, Verdict("infra.4", True, "not judged here"), by="test")
        endpoints.set(name, Canary(before, made.digest, 0.5), why="test", by="test")
        self.canary_passed(name, before, made.digest)
        return endpoints.promote(name, by="test")

    def many(self, count: int, *, prefix: str = "m") -> tuple[str, ...]:
        """So many endpoints, each with a small model of its own; their names.

        The entries are those that the registry and the endpoints would write, without their questions
        before each: a thousand take half a minute.
        """
        ledger = self.store.ledger
        names = tuple(f"{prefix}{number}" for number in range(count))
        for seed, name in enumerate(names):
            bundle = self.bundle("mlp", mlp(seed), 1, name=name)
            for data in bundle.files.values():
                self.store.objects.put(data)
            info = bundle.info
            added = {"format": registry.FORMAT, "name": name, "version": 1, "created": info.created,
                     "files": bundle.digests, "lineage": dict(info.lineage)}  # fmt: skip
            ledger.append(bundle.digest, registry.ADDED, body=added, by="test")
            ledger.append_verdict(bundle.digest, Verdict("infra.4", True, "not judged here"), by="test")
            change = {"format": endpoint.FORMAT, "expected": 0, "policy": Single(bundle.digest).to_json(),
                      "why": "test", "evidence": []}  # fmt: skip
            ledger.append(f"endpoint:{name}", endpoint.SET, body=change, by="test")
        return names

    def set(self, name: str, policy: Policy) -> EndpointState:
        return Endpoints(self.store).set(name, policy, why="test", by="test")

    def canary_passed(self, endpoint: str, champion: str, candidate: str) -> None:
        """What the canary's judge would write."""
        body = {"endpoint": endpoint, "champion": champion, "action": "promote"}
        verdict = Verdict("release.canary", True, "not judged here", details=body)
        self.store.ledger.append_verdict(candidate, verdict, by="test")

    def serve(self, kinds: Sequence[str]) -> dict[str, Release]:
        """One release and one endpoint of each kind, the endpoint named like the kind."""
        graphs = {"mlp": mlp, "cnn": cnn, "mixed": mixed}
        made = {kind: self.release(kind, graphs[kind]()) for kind in kinds}
        for kind, release in made.items():
            self.set(kind, Single(release.digest))
        return made
