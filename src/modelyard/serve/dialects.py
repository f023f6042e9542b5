"""The protocols beside the Open Inference Protocol and plain rows, each loaded by the first who speaks it."""

from __future__ import annotations

from collections.abc import Collection

from modelyard.serve.dialect import Ask, Dialect, Read, Tell
from modelyard.serve.exchange import Headers
from modelyard.serve.rows_dialect import speak_rows


class Dialects:
    """The `Dialect` of whichever protocol the path belongs to."""

    def __init__(self) -> None:
        self._loaded: dict[str, Dialect] = {}

    def route(
        self, method: str, parts: list[str], headers: Headers, endpoints: Collection[str]
    ) -> Ask | Tell | None:
        """What the protocol of the path's first part says."""
        first = parts[1] if len(parts) > 1 else ""
        dialect = self._loaded.get(first) or self._load(first)
        return None if dialect is None else dialect.route(method, parts, headers, endpoints)

    def _load(self, first: str) -> Dialect | None:
        match first:
            case "v1":
                from modelyard.serve.tfserving_dialect import TensorFlowServing

                self._loaded[first] = TensorFlowServing()
            case "ping" | "invocations":
                from modelyard.serve.sagemaker_dialect import SageMaker

                self._loaded[first] = SageMaker()
        return self._loaded.get(first)


def rows_reader(headers: Headers) -> Read:
    """How the body of a request in plain rows is read: as Arrow record batches where it says so."""
    kind = headers("content-type")
    if kind is not None and kind.startswith("application/vnd.apache.arrow"):
        from modelyard.serve.arrow_dialect import speak_arrow

        return speak_arrow
    return speak_rows
