"""From what was trained to an ONNX graph that gives the same answers."""

from modelyard.model.convert.conversion import Converted as Converted
from modelyard.model.convert.conversion import convert as convert
