"""What a fresh process runs so that the memory of answering can be measured, on whichever engine."""

from __future__ import annotations

import json

import numpy as np


def payload(onnx: bytes, signature: object, runtime: str) -> bytes:
    """What `answer_once` is given: a line of JSON, then the graph."""
    return json.dumps({"signature": signature, "runtime": runtime}).encode() + b"\n" + onnx


def answer_once(data: bytes) -> None:
    """Loads a model that was read strictly before and answers one row of zeros."""
    from modelyard.core.spec import DYNAMIC, Signature
    from modelyard.model.model import Model
    from modelyard.model.runtimes import RUNTIMES

    head, _, onnx = data.partition(b"\n")
    facts = json.loads(head)
    signature = Signature.from_json(facts["signature"])
    rows = {}
    for spec in signature.inputs:
        shape = tuple(1 if size == DYNAMIC else size for size in spec.shape)
        rows[spec.name] = (
            np.full(shape, "", object) if spec.datatype == "BYTES" else np.zeros(shape, spec.dtype)
        )
    RUNTIMES.get(facts["runtime"]).load(Model(onnx, signature, "regression")).run(rows)
