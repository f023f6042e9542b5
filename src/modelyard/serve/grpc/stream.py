"""One `ModelStreamInfer`: requests come in one after the other, answers go out as they are ready."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from modelyard.core.errors import RequestError
from modelyard.serve.grpc.codec import read_message
from modelyard.serve.grpc.engine import Rpc
from modelyard.serve.grpc.messages import messages
from modelyard.serve.grpc.plain import varint
from modelyard.serve.lane import Call

ROOM = 64
"""Requests of one stream that may be under way, or answered and not yet sent; then it is read no further."""

HELD = 32 << 20
"""Bytes of such requests, unless one alone has more."""

# `parameters {"triton_final_response": true}` of a ModelInferResponse: each request has one answer.
_FINAL = b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01"

Ask = Callable[[bytes, Callable[[bytes | None, RequestError | None], None]], Call]
"""Asks for one answer; raises `RequestError` for what is refused."""


class Stream:
    """Answers the requests of a stream, each once, in the order in which their answers are ready.

    What is refused is answered in `error_message`, and the stream goes on. `ended` hears once that it is
    over: with an error when the service ended it, with `None` when the client did.
    """

    def __init__(self, rpc: Rpc, ask: Ask, ended: Callable[[RequestError | None], None]) -> None:
        self._rpc = rpc
        self._ask = ask
        self._ended = ended
        self._calls: dict[int, Call] = {}
        self._number = 0
        self._open = 0
        self._held = 0
        self._queue: deque[bytes] = deque()
        self._sending = False
        self._receiving = False
        self._last = False
        self._over = False
        self._refusal: RequestError | None = None

    def begin(self) -> None:
        """Begins to read."""
        self._rpc.watch(self._gone)
        self._receive()

    def stop(self, refusal: RequestError) -> None:
        """Reads no further; ends with this refusal when all is answered that was read."""
        self._refusal = refusal
        self._last = True
        self._rest()

    def _receive(self) -> None:
        if not (self._receiving or self._last or self._over) and self._open < ROOM and self._held < HELD:
            self._receiving = True
            self._rpc.receive(self._heard)

    def _heard(self, data: bytes | None) -> None:
        self._receiving = False
        if self._over or self._refusal is not None:
            return
        if data is None:
            self._last = True
            self._rest()
            return
        self._open += 1
        self._held += len(data)
        self._number = number = self._number + 1
        answered = partial(self._answered, number, data)
        try:
            call = self._ask(data, answered)
        except RequestError as error:
            self._held -= len(data)
            self._put(_refused(data, error))
        else:
            self._calls[number] = call
        self._receive()

    def _answered(self, number: int, data: bytes, message: bytes | None, error: RequestError | None) -> None:
        self._calls.pop(number, None)
        self._held -= len(data)
        if message is None:
            self._put(_refused(data, error or RequestError("there is no answer", status=500)))
        else:
            message += _FINAL
            self._put(b"\x12" + varint(len(message)) + message)

    def _put(self, message: bytes) -> None:
        self._queue.append(message)
        self._send()

    def _send(self) -> None:
        if self._queue and not (self._sending or self._over):
            self._sending = True
            self._rpc.send(self._queue.popleft(), self._sent)

    def _sent(self, well: bool) -> None:
        self._sending = False
        self._open -= 1
        if not well:
            return  # the client has gone, of which `_gone` hears.
        self._send()
        self._receive()
        self._rest()

    def _rest(self) -> None:
        """Ends when the client has said all and heard all."""
        if self._last and not self._open and not self._over:
            self._over = True
            self._ended(self._refusal)

    def _gone(self) -> None:
        """The client has left: what waits for the model is dropped."""
        for call in self._calls.values():
            call.gone = True
        self._calls.clear()
        if not self._over:
            self._over = True
            self._ended(RequestError("the client has gone", status=499))


def _refused(data: bytes, error: RequestError) -> bytes:
    """A `ModelStreamInferResponse` that says why there is no answer, with the id of the request."""
    made = messages()["ModelStreamInferResponse"](error_message=_text(error))
    with suppress(RequestError):
        made.infer_response.id = read_message("ModelInferRequest", data).id
    written: bytes = made.SerializeToString()
    return written


def _text(error: RequestError) -> str:
    return str(error).encode("utf-8", "replace").decode()
