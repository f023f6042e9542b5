"""`modelyard inspect` on files of every kind and on releases by every name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.core.errors import ModelError
from modelyard.model.limits import DEFAULT_LIMITS


def graph(width: int = 16, *, nodes: list[Any] | None = None) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((width, 4), np.float32), "w")
    made = nodes or [
        helper.make_node("MatMul", ["x", "w"], ["z"], name="product"),
        helper.make_node("Softmax", ["z"], ["probabilities"], name="likely", axis=1),
    ]
    inside = helper.make_graph(
        made, "small", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 4])], [weight],
    )  # fmt: skip
    return helper.make_model(inside, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(graph().SerializeToString())
    return path


def test_a_file_is_shown_as_json_and_drawn(quick: Any, file: Path) -> None:
    page = file.with_suffix(".html")
    done = quick("inspect", str(file), "--no-machine", "--json", "--html", str(page))
    assert done.code == 0, done.err
    assert done.json["model"] == "small.onnx"
    assert json.dumps(done.json).count("product") >= 1
    text = page.read_text()
    assert text.startswith("<!doctype html>") and "MatMul" in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text, "self-contained"


def test_a_file_is_shown_to_people(quick: Any, file: Path) -> None:
    done = quick("inspect", str(file), "--no-machine")
    assert done.code == 0, done.err
    assert done.out.startswith("small.onnx")
    assert "MatMul" in done.out and "64" in done.out, "four by sixteen multiplications a row"


def test_a_name_that_is_nearly_right_is_answered(quick: Any, file: Path) -> None:
    done = quick("inspect", str(file.with_name("smal.onnx")))
    assert f"did you mean '{file}'?" in done.error()
    done = quick("-C", str(file.parent), "inspect", "nothing-like-it")
    assert "there is no such model" in done.error()
    assert "an ONNX file, or a release: NAME, NAME@VERSION" in done.err
    assert "this is a folder" in quick("inspect", str(file.parent)).error()
    assert "did you mean 'openvino'?" in quick("inspect", str(file), "--runtime", "openvin").error()


def encrypted(data: bytes) -> bytes:
    return bytes(np.random.default_rng(0).integers(0, 256, max(len(data), 4096), dtype=np.uint8))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda data: b"%PDF-1.7\n" + b"x" * 500, id="not-a-model"),
        pytest.param(lambda data: b"PK\x03\x04" + bytes(300), id="an-archive"),
        pytest.param(encrypted, id="encrypted"),
    ],
)
def test_what_is_no_model_is_refused_in_a_sentence(quick: Any, file: Path, change: Any) -> None:
    file.write_bytes(change(file.read_bytes()))
    done = quick("inspect", str(file), "--no-machine")
    assert done.error().startswith("error: "), done.err
    assert len(done.err.strip().splitlines()) == 1
    again = quick("inspect", str(file), "--no-machine", "--json")
    assert again.json["error"]["what"]
    assert again.code == done.code == ModelError.exit_code


def test_a_file_that_is_too_large_is_refused_before_it_is_read(quick: Any, file: Path) -> None:
    os.truncate(file, DEFAULT_LIMITS.bytes + 1)
    done = quick("inspect", str(file))
    assert "the model file is too large" in done.error()
    assert done.seconds < 20


def test_data_outside_of_the_file_is_refused_and_not_looked_for(quick: Any, file: Path) -> None:
    secret = file.with_name("secret.bin")
    secret.write_bytes(np.ones(64, np.float32).tobytes())
    proto = graph()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(secret))
    file.write_bytes(proto.SerializeToString())
    said = quick("inspect", str(file)).error()
    secret.unlink()
    assert quick("inspect", str(file)).error() == said, "whether the file is there must not show"
    assert "outside" in said or "external" in said


def test_a_release_is_found_by_every_name(released: Any, quick: Any) -> None:
    at = ("-C", str(released.root))
    release = quick(*at, "releases", "--json").json[0]
    name, version, digest = release["name"], release["version"], release["digest"]
    names = (str(version), name, f"{name}@{version}", digest, digest.removeprefix("sha256:")[:12])
    for text in names:
        done = quick(*at, "inspect", text, "--no-machine", "--json")
        assert done.code == 0, (text, done.err)
        assert done.json["model"] == f"{name} {version}"
    said = quick(*at, "inspect", name, "--no-machine")
    assert said.code == 0, said.err
    assert "note: runs on onnxruntime" in said.out


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("smal", "did you mean 'small'?"),
        ("small@99", "1 to 1"),
        ("small@one", "did you mean 'small@1'?"),
        ("99", "1 to 1"),
        ("0", "1 to 1"),
        ("sha256:" + "0" * 64, "there is no such model"),
        ("../small@1", "there is no such model"),
        ("", "an ONNX file, or a release"),
    ],
)
def test_releases_that_there_are_not(released: Any, quick: Any, text: str, match: str) -> None:
    said = quick("-C", str(released.root), "inspect", text).error()
    assert match in said
