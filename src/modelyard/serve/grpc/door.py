"""The gRPC door: grpcio's asyncio server on the worker's own event loop, over the same plane as HTTP.

Messages are taken as bytes and read by our codec: what cannot be read is `INVALID_ARGUMENT` with a reason,
where the engine's own deserializer would answer `INTERNAL`. Compressed messages are refused
(`UNIMPLEMENTED`), for the engine unpacks them whole before it looks at their size.
"""

from __future__ import annotations

import logging
from typing import Any

from modelyard.core.errors import RequestError, ServeError
from modelyard.core.require import require
from modelyard.serve.access.guard import Guard
from modelyard.serve.access.tls import Tls
from modelyard.serve.access.token import Role
from modelyard.serve.grpc.messages import METHODS, SERVICE, messages
from modelyard.serve.grpc.service import InferenceService
from modelyard.serve.options import Limits, ServeOptions

_LOG = logging.getLogger("modelyard.serve")

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    415: "UNIMPLEMENTED",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""The status of gRPC for the status of HTTP."""

_OPEN: tuple[str, ...] = ("ServerLive", "ServerReady")
_OPERATE = ("RepositoryModelLoad", "RepositoryModelUnload")
_STREAMS = 1_024
_REASON = 1_500


class GrpcDoor:
    """Serves an `InferenceService` on a port until `close`.

    With `shared` several processes may listen on the port, and the kernel deals connections out among them.
    """

    def __init__(
        self,
        service: InferenceService,
        limits: Limits,
        *,
        guard: Guard | None = None,
        tls: Tls | None = None,
        shared: bool = False,
    ) -> None:
        self._grpc = require("grpc", extra="grpc")
        self._aio = require("grpc.aio", extra="grpc")
        messages()
        self._service = service
        self._guard = guard
        self._tls = tls
        self._limits = limits
        self._shared = shared
        self._server: Any = None

    async def open(self, host: str, port: int) -> int:
        """Begins to answer; the port. Raises `ServeError` when the address is taken."""
        server = self._aio.server(
            options=[
                # Checked against the length that a message announces, before memory is taken for it.
                ("grpc.max_receive_message_length", self._limits.body),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", 16 << 10),
                ("grpc.max_concurrent_streams", _STREAMS),
                ("grpc.compression_enabled_algorithms_bitset", 1),
                ("grpc.so_reuseport", int(self._shared)),
                # A client that is gone without a word, or keeps the line busy, is cut off.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
            maximum_concurrent_rpcs=self._limits.queue,
        )
        handlers = {name: self._grpc.unary_unary_rpc_method_handler(self._handler(name)) for name in METHODS}
        server.add_generic_rpc_handlers((self._grpc.method_handlers_generic_handler(SERVICE, handlers),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._tls is None:
                bound: int = server.add_insecure_port(address)
            else:
                key, chain = self._tls.key.read_bytes(), self._tls.certificate.read_bytes()
                credentials = self._grpc.ssl_server_credentials([(key, chain)])
                bound = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ServeError("the gRPC address cannot be listened on", value=address, rule=str(error)[:200],
                             fix="stop what uses it, or choose another port") from error  # fmt: skip
        await server.start()
        self._server = server
        return bound

    async def close(self, grace: float) -> None:
        """Takes no more calls, and ends those that are not answered after `grace` seconds."""
        if self._server is not None:
            await self._server.stop(grace)

    def _handler(self, method: str) -> Any:
        role: Role | None = "operate" if method in _OPERATE else "predict" if method == "ModelInfer" else None
        open_to_all = method in _OPEN
        codes = self._grpc.StatusCode

        async def handle(data: bytes, context: Any) -> bytes:
            try:
                if self._guard is not None and not open_to_all:
                    self._guard.allow(_authorization(context), role)
                return await self._service.call(method, data, context.time_remaining())
            except RequestError as error:
                if error.retry_after is not None:
                    wait = str(max(1, round(error.retry_after * 1000)))
                    context.set_trailing_metadata((("grpc-retry-pushback-ms", wait),))
                code = getattr(codes, _CODES.get(error.status, "UNKNOWN"))
                # Details travel in a header, whose size the client bounds.
                reason = str(error).encode("utf-8", "replace").decode()[:_REASON]
            except Exception:  # a bug must cost one call, not the process.
                _LOG.exception("a gRPC call failed in a way that was not foreseen")
                code, reason = codes.INTERNAL, "the service failed; its log says why"
            await context.abort(code, reason)
            return b""  # not reached: abort raises

        return handle


async def open_door(
    options: ServeOptions, service: InferenceService, port: int, *, guard: Guard | None
) -> GrpcDoor:
    """A door that answers as the options say; raises `ServeError` when its address is taken."""
    door = GrpcDoor(service, options.limits, guard=guard, tls=options.tls, shared=options.workers > 1)
    host = "127.0.0.1" if options.host == "localhost" else options.host
    await door.open(host, port)
    _LOG.info("gRPC on %s port %d", host, port)
    return door


def _authorization(context: Any) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return value if isinstance(value, str) else None
    return None
