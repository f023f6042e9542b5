"""What a fresh process runs so that the memory that a model takes can be measured."""

from __future__ import annotations


def load_model(onnx: bytes) -> None:
    """Loads a model that was read strictly before, and nothing else."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
