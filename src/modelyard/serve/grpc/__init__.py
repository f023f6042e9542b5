"""Open Inference Protocol v2 over gRPC; loaded only where a gRPC port is configured."""
