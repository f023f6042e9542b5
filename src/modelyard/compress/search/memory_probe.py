"""What a fresh process runs so that the memory of answering can be measured, on whichever engine."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from modelyard.model.chosen_runtime import ChosenRuntime

PROBE = "modelyard.compress.search.memory_probe:answer_once"


def payload(onnx: bytes, signature: object, runtime: ChosenRuntime) -> bytes:
    """What `answer_once` is given: a line of JSON, then the graph."""
    facts = {"signature": signature, "runtime": runtime.name, "settings": dict(runtime.settings)}
    return json.dumps(facts).encode() + b"\n" + onnx


def answer_once(data: bytes) -> None:
    """Loads a model that was read strictly before and answers one row of zeros."""
    from modelyard.core.errors import ModelError
    from modelyard.core.spec import DYNAMIC, Signature
    from modelyard.model.chosen_runtime import ChosenRuntime
    from modelyard.model.model import Model

    head, _, onnx = data.partition(b"\n")
    facts = json.loads(head)
    signature = Signature.from_json(facts["signature"])
    rows = {}
    for spec in signature.inputs:
        shape = tuple(1 if size == DYNAMIC else size for size in spec.shape)
        rows[spec.name] = (
            np.full(shape, "", object) if spec.datatype == "BYTES" else np.zeros(shape, spec.dtype)
        )
    session = ChosenRuntime(facts["runtime"], facts["settings"]).load(Model(onnx, signature, "regression"))
    # A graph may refuse a row of zeros; what loading it took is measured all the same.
    with suppress(ModelError):
        session.run(rows)
