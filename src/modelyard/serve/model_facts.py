"""A model's configuration and statistics, in the words of Triton's extensions; both doors say the same.

Source: Triton's `extension_model_configuration.md`, `extension_statistics.md` and `model_config.proto`. What
is not measured here is left out: a zero would be a claim.
"""

from __future__ import annotations

from typing import Any

from modelyard.core.errors import RequestError
from modelyard.core.spec import TensorSpec
from modelyard.serve.metrics import Metrics
from modelyard.serve.options import Limits
from modelyard.serve.pool import Served
from modelyard.serve.router import Router

PLATFORM = "onnxruntime_onnx"

CONFIG_TYPES = (
    "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8",
    "TYPE_INT16", "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING",
)  # fmt: skip
"""`inference.DataType` in the order of its numbers."""


def model_config(endpoint: str, served: Served, limits: Limits) -> dict[str, Any]:
    """`inference.ModelConfig` of one release as JSON; dimensions are those of one item.

    `max_batch_size` is how many items one request may hold; how many the runtime gets at a time is ours.
    """
    config: dict[str, Any] = {
        "name": endpoint,
        "platform": PLATFORM,
        "max_batch_size": limits.rows,
        "input": [_tensor(spec) for spec in served.signature.inputs],
        "output": [_tensor(spec) for spec in served.signature.outputs],
    }
    if served.lane.batchable:
        config["dynamic_batching"] = {}
    return config


class Statistics:
    """What became of the requests to each release since this process began."""

    def __init__(self, router: Router, metrics: Metrics) -> None:
        self._router = router
        self._metrics = metrics

    def of(self, name: str | None, version: str | None = None) -> list[dict[str, Any]]:
        """`inference.ModelStatistics` of a release, of an endpoint's releases, or of all, as JSON.

        Raises `RequestError` 404 for what is not served, 503 while it loads.
        """
        if name is None and version is not None:
            raise RequestError("a version is asked for without a model", value=version, where="name")
        self._metrics.settle()
        endpoints = self._router.endpoints.values() if name is None else [self._router.endpoint(name)]
        told = []
        for endpoint in endpoints:
            chosen = list(endpoint.releases.values())
            if version is not None:
                chosen = [self._router.version(endpoint, version)]
            told += [self._statistics(endpoint.name, served) for served in chosen]
        return told

    def _statistics(self, endpoint: str, served: Served) -> dict[str, Any]:
        metrics = self._metrics
        runs = metrics.run_seconds.at(endpoint, served.digest)

        def asked(outcome: str) -> dict[str, int]:
            seconds = metrics.seconds.at(endpoint, served.digest, served.version, "primary", outcome)
            return {"count": seconds.count, "ns": round(seconds.total * 1e9)}

        items = metrics.items.at(endpoint, served.digest, served.version, "primary", "ok")
        return {
            "name": endpoint,
            "version": served.version,
            "inference_count": round(items.value),
            "execution_count": runs.count,
            "inference_stats": {
                "success": asked("ok"),
                "fail": asked("failed"),
                "compute_infer": {"count": runs.count, "ns": round(runs.total * 1e9)},
            },
        }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    kind = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
    return {"name": spec.name, "data_type": kind, "dims": list(spec.shape[1:])}
