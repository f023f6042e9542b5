"""The plainest target: a folder that anyone with onnxruntime and numpy can run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.digest import digest_bytes
from modelyard.core.errors import ModelError
from modelyard.core.files import write_atomic
from modelyard.core.spec import DYNAMIC, Tensors, TensorSpec
from modelyard.export.target import Artifact
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.model.model import Model
from modelyard.model.onnx_runtime import OnnxRuntime

CLAIM = "export.parity"
_TOLERANCE = 1e-5
_ROWS = 5
_SECONDS = 60.0


class OnnxFolder:
    """A folder with model.onnx, signature.json, example.py and README.md; the example is its runner."""

    name = "onnx"

    def build(self, model: Model, folder: Path) -> Artifact:
        """Writes the folder and runs its example in a process of its own, which must answer as we do.

        Raises `ModelError` when it does not, and takes the files away again.
        """
        files = _files(model)
        for name, data in files.items():
            write_atomic(folder / name, data)
        try:
            verdict = _prove(model, folder)
        except ModelError:
            for name in files:
                (folder / name).unlink(missing_ok=True)
            raise
        digests = {name: digest_bytes(data) for name, data in files.items()}
        return Artifact(self.name, folder, digests, verdict)

    def run(self, artifact: Artifact, tensors: Tensors) -> Tensors:
        """The answers of the folder's own example, in a process that knows nothing of us."""
        return _run_example(artifact.folder, tensors)


def _prove(model: Model, folder: Path) -> Verdict:
    rows = _rows(model)
    session = OnnxRuntime().load(model)
    expected = session.run(rows, [model.output])[model.output]
    session.close()
    answers = _run_example(folder, rows)[model.output]
    scale = max(1.0, float(np.abs(expected).max()))
    if answers.shape != expected.shape:
        raise ModelError("the exported folder answers in another shape", value=answers.shape)
    apart = float(np.abs(answers.astype(np.float64) - expected).max())
    if not apart <= _TOLERANCE * scale:
        raise ModelError("the exported folder answers differently", value=apart, rule=f"{_TOLERANCE * scale}")
    return Verdict(
        CLAIM,
        True,
        f"the example answers {len(expected)} rows within {apart:.3g} of the model",
        (Measurement("max_abs_difference", apart, n=len(expected)),),
        _TOLERANCE * scale,
        {"target": OnnxFolder.name, "model": model.digest},
    )


def _files(model: Model) -> dict[str, bytes]:
    room = resources.files("modelyard.export")
    meaning = {
        "signature": model.signature.to_json(),
        "task": model.task,
        "labels": list(model.labels),
        "output": model.output,
        "digest": model.digest,
        "version": 1,
    }
    inputs = "\n".join(f"- `{spec.name}`: {spec.datatype} {_shape(spec)}" for spec in model.signature.inputs)
    outputs = "\n".join(
        f"- `{spec.name}`: {spec.datatype} {_shape(spec)}" for spec in model.signature.outputs
    )
    labels = f"\nColumns of `probabilities`, in order: {', '.join(model.labels)}\n" if model.labels else ""
    readme = f"""# A {model.task} model

Run it with nothing but onnxruntime and numpy:

    pip install onnxruntime numpy
    python example.py

Inputs (N is the number of rows, text is missing as "", numbers as NaN):

{inputs}

Outputs:

{outputs}
{labels}
`model.onnx` has the digest `{model.digest}`.
"""
    return {
        "model.onnx": model.onnx,
        "signature.json": json.dumps(meaning, indent=2, ensure_ascii=False).encode(),
        "example.py": (room / "example.py.txt").read_bytes(),
        "README.md": readme.encode(),
    }


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join("N" if size == DYNAMIC else str(size) for size in spec.shape) + "]"


def _rows(model: Model) -> Tensors:
    """A few rows of plain values for any signature."""
    generator = np.random.default_rng(0)
    rows: Tensors = {}
    for spec in model.signature.inputs:
        shape = (_ROWS, *(1 if size == DYNAMIC else size for size in spec.shape[1:]))
        if spec.datatype == "BYTES":
            rows[spec.name] = np.full(shape, "", object)
        elif spec.datatype.startswith("FP"):
            rows[spec.name] = generator.normal(size=shape).astype(spec.dtype)
        else:
            rows[spec.name] = np.zeros(shape, spec.dtype)
    return rows


def _run_example(folder: Path, tensors: Tensors) -> Tensors:
    with tempfile.TemporaryDirectory(prefix="modelyard-export-") as place:
        asked, answered = Path(place, "rows.json"), Path(place, "answers.json")
        asked.write_text(json.dumps({name: array.tolist() for name, array in tensors.items()}))
        try:
            # Isolated mode: neither the environment nor the working folder can lend the example a module.
            done = subprocess.run(
                [sys.executable, "-I", str(folder / "example.py"), str(asked), str(answered)],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ModelError("the exported example does not end", rule=f"{_SECONDS:g} s") from error
        if done.returncode != 0:
            raise ModelError(
                "the exported example fails", value=(done.stderr.strip().splitlines() or ["no word"])[-1]
            )
        answers: dict[str, Any] = json.loads(answered.read_text())
    return {name: np.array(values, np.float32) for name, values in answers.items()}
