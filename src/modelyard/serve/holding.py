"""A request whose endpoint is not in memory: held until it is, then answered like any other."""

from __future__ import annotations

from collections.abc import Callable

from modelyard.core.errors import ModelyardError, RequestError
from modelyard.core.spec import Tensors
from modelyard.serve.arrivals import Arrivals
from modelyard.serve.codec.inference import read_request
from modelyard.serve.exchange import Exchange
from modelyard.serve.fields import HEADER_LENGTH, whole
from modelyard.serve.lane import Call
from modelyard.serve.options import Limits
from modelyard.serve.plane import Plane


def hold(
    arrivals: Arrivals, plane: Plane, name: str, deadline: float, again: Callable[[RequestError | None], None]
) -> Call:
    """Calls `again` when the endpoint is there, or with why not, unless the call's `gone` was set.

    Raises `RequestError` at once when it is no use to wait.
    """
    absent = Call({}, 0, _nobody)

    def then(error: RequestError | None) -> None:
        plane.open -= 1
        if not absent.gone:
            again(error)

    arrivals.wait(name, deadline, then)
    # What is held is in work: a drain waits for it too.
    plane.open += 1
    return absent


def timeout_of(parts: list[str], exchange: Exchange, limits: Limits) -> float | None:
    """The timeout in the body of the Open Inference Protocol; a wrong body is refused before a load."""
    if parts[1:2] != ["v2"] or parts[-1] != "infer":
        return None
    text = exchange.headers(HEADER_LENGTH)
    length = None if text is None else whole(text, "Inference-Header-Content-Length")
    return read_request(exchange.body, length, elements=limits.elements, rows=limits.rows).timeout


def _nobody(outputs: Tensors | None, error: ModelyardError | None) -> None:
    """The call only stands in for the request; nothing is answered through it."""
