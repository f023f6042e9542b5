"""ONNX graphs: read strictly, run through one protocol, converted from what was trained."""
