"""A conformance kit for the Open Inference Protocol v2, for any server that speaks it."""
