"""The places that are known, built in or brought by a plugin."""

from __future__ import annotations

from modelyard.core.names import Plugins
from modelyard.export.onnx_folder import OnnxFolder
from modelyard.export.target import Target

TARGETS: Plugins[Target] = Plugins("modelyard.targets", {"onnx": OnnxFolder()})
