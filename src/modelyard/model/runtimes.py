"""The engines that are known, built in or brought by a plugin."""

from __future__ import annotations

from modelyard.core.names import Plugins
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.openvino_runtime import OpenVinoRuntime
from modelyard.model.runtime import Runtime

RUNTIMES: Plugins[Runtime] = Plugins(
    "modelyard.runtimes", {"onnxruntime": OnnxRuntime(), "openvino": OpenVinoRuntime()}
)
"""Listed whether or not it is installed: loading a model with one that is not names the extra."""
