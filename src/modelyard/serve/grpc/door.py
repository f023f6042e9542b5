"""The gRPC door: calls from the engine, through guard and watch, to the plane, and answers back.

Messages are taken as bytes and read by our codec: what cannot be read is `INVALID_ARGUMENT` with a reason.
Everything runs on the worker's event loop; only the changes of the repository are tasks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from typing import Any

from modelyard.core.clock import Clock
from modelyard.core.errors import RequestError, ServeError
from modelyard.core.require import require
from modelyard.serve.access.guard import Guard
from modelyard.serve.access.tls import Tls
from modelyard.serve.access.token import Role
from modelyard.serve.encoding import Encoding, unpack
from modelyard.serve.exchange import Reply
from modelyard.serve.grpc.engine import Engine, Rpc
from modelyard.serve.grpc.inference import Answered, Inference, waits
from modelyard.serve.grpc.messages import METHODS, SERVICE, STREAM
from modelyard.serve.grpc.packed import encoding_of
from modelyard.serve.grpc.service import CHANGES, InferenceService
from modelyard.serve.grpc.status import status_of
from modelyard.serve.grpc.stream import Stream
from modelyard.serve.lane import Call
from modelyard.serve.metrics import Counter, Metrics
from modelyard.serve.options import Limits, ServeOptions
from modelyard.serve.router import NotResident
from modelyard.serve.watch import Watch, Watched

_LOG = logging.getLogger("modelyard.serve")

_PREFIX = f"/{SERVICE}/"
_INFER = "ModelInfer"
_OPEN = ("ServerLive", "ServerReady")
_STREAMS = 1_024
_CONNECTIONS = 4_096
_REASON = 1_500
_INLINE = 1 << 16
_PUSHBACK = "grpc-retry-pushback-ms"
_BUG = RequestError("the service failed; its log says why", status=500)
_DRAINING = RequestError("the service is draining", status=503, retry_after=1.0)


class GrpcDoor:
    """Serves inference and the service's other methods on a port until `close`.

    With `shared` several processes may listen on the port, and the kernel deals connections out among them.
    """

    def __init__(
        self,
        service: InferenceService,
        inference: Inference,
        metrics: Metrics,
        clock: Clock,
        limits: Limits,
        *,
        guard: Guard | None = None,
        watch: Watch | None = None,
        tls: Tls | None = None,
        shared: bool = False,
    ) -> None:
        self._grpc = require("grpc", extra="grpc")
        self._service = service
        self._inference = inference
        self._clock = clock
        self._limits = limits
        self._guard = guard
        self._watch = watch or Watch(clock)
        self._tls = tls
        self._family = metrics.grpc
        self._counters: dict[tuple[str, str], Counter] = {}
        self._names = {(_PREFIX + name).encode(): name for name in (*METHODS, STREAM)}
        self._roles: dict[str, Role | None] = dict.fromkeys(METHODS) | dict.fromkeys(CHANGES, "operate")
        self._roles |= {_INFER: "predict", STREAM: "predict"}
        self._streams: set[Stream] = set()
        self._changes: set[asyncio.Task[None]] = set()
        self._engine = Engine(
            self._begin,
            streams=frozenset({(_PREFIX + STREAM).encode()}),
            most=limits.queue,
            seconds=limits.body_seconds,
            options=_options(limits, shared),
        )

    async def open(self, host: str, port: int) -> int:
        """Begins to answer; the port. Raises `ServeError` when the address is taken."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        credentials = None
        if self._tls is not None:
            key, chain = self._tls.key.read_bytes(), self._tls.certificate.read_bytes()
            credentials = self._grpc.ssl_server_credentials([(key, chain)])
        bound = self._engine.listen(address, credentials)
        if not bound:
            raise ServeError("the gRPC address cannot be listened on", value=address,
                             fix="stop what uses it, or choose another port")  # fmt: skip
        self._engine.start(asyncio.get_running_loop())
        return bound

    async def close(self, grace: float) -> None:
        """Takes no more calls, and ends those that are not answered after `grace` seconds."""
        for stream in list(self._streams):
            stream.stop(_DRAINING)
        await self._engine.close(grace)

    def _begin(self, rpc: Rpc) -> None:
        method = self._names.get(rpc.method, "")
        reply: Reply = partial(self._reply, rpc, method)
        try:
            if self._watch.all or rpc.header("traceparent") is not None:
                path = rpc.method.decode("utf-8", "replace")
                reply = self._watch.over("gRPC", path, rpc.header, reply)
            if not method:
                raise RequestError("there is no such method", status=501, fix=f"see {SERVICE}")  # noqa: TRY301
            if self._guard is not None and method not in _OPEN:
                self._guard.allow(rpc.header("authorization"), self._roles[method])
            if method == STREAM:
                self._stream(rpc, reply)
                return
            data = rpc.data
            if data is None:
                # None was sent, or it was too large, which the engine has said, or the client has gone.
                raise RequestError("a message is needed", where="message")  # noqa: TRY301
            encoding = encoding_of(data)
            if encoding is None:
                self._take(rpc, method, data, reply)
            else:
                self._unpacked(data, encoding, partial(self._take, rpc, method, reply=reply), reply)
        except RequestError as error:
            self._refuse(error, reply)
        except Exception as error:  # a bug must cost one call, not the process.
            self._bug(error, reply)

    def _take(self, rpc: Rpc, method: str, data: bytes, reply: Reply) -> None:
        """Answers a unary call whose message is as it was before it was compressed."""
        if method == _INFER:
            facts = reply.facts if isinstance(reply, Watched) else None
            answered = partial(self._answered, rpc, reply)
            call = self._inference.ask(data, self._left(rpc), answered, facts=facts)
            if waits(call):
                rpc.watch(partial(self._gone, call, reply))
        elif method in CHANGES:
            self._task(self._change(method, data, reply))
        else:
            self._tell(rpc, method, data, reply)

    def _tell(
        self, rpc: Rpc, method: str, data: bytes, reply: Reply, error: RequestError | None = None
    ) -> None:
        """Answers a question; of an endpoint that is not in memory when it is."""
        try:
            if error is not None:
                raise error  # noqa: TRY301 - one handler for all refusals
            try:
                reply(200, [], self._service.tell(method, data))
            except NotResident as missing:
                again = partial(self._tell, rpc, method, data, reply)
                self._inference.hold(missing, self._left(rpc), again)
        except RequestError as refused:
            self._refuse(refused, reply)
        except Exception as bug:  # as in `_begin`
            self._bug(bug, reply)

    def _stream(self, rpc: Rpc, reply: Reply) -> None:
        first = True

        def ask(data: bytes, answered: Answered) -> Call:
            nonlocal first
            if self._guard is not None and not first:
                # A rate is for requests, however they come.
                self._guard.allow(rpc.header("authorization"), "predict")
            first = False
            encoding = encoding_of(data)
            if encoding is not None:
                data = unpack(data, encoding, limit=self._limits.body, ratio=self._limits.ratio)
            return self._inference.ask(data, self._left(rpc), answered)

        def ended(error: RequestError | None) -> None:
            self._streams.discard(stream)
            if error is None:
                reply(200, [], b"")
            else:
                self._refuse(error, reply)

        stream = Stream(rpc, ask, ended)
        self._streams.add(stream)
        stream.begin()

    def _unpacked(self, data: bytes, encoding: Encoding, take: Callable[[bytes], None], reply: Reply) -> None:
        """Goes on with a compressed message; a large one is unpacked in a thread."""
        plain = partial(unpack, data, encoding, limit=self._limits.body, ratio=self._limits.ratio)
        if len(data) <= _INLINE:
            take(plain())
            return

        async def later() -> None:
            try:
                take(await asyncio.to_thread(plain))
            except RequestError as error:
                self._refuse(error, reply)
            except Exception as error:  # as in `_begin`
                self._bug(error, reply)

        self._task(later())

    async def _change(self, method: str, data: bytes, reply: Reply) -> None:
        try:
            reply(200, [], await self._service.change(method, data))
        except RequestError as error:
            self._refuse(error, reply)
        except Exception as error:  # as in `_begin`
            self._bug(error, reply)

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    def _left(self, rpc: Rpc) -> float:
        """Seconds that the client waits."""
        return inf if rpc.deadline == inf else rpc.deadline - self._clock.now()

    def _gone(self, call: Call, reply: Reply) -> None:
        """The client has left: its work is dropped unless it has begun."""
        call.gone = True
        self._refuse(RequestError("the client has gone", status=499), reply)

    def _answered(self, rpc: Rpc, reply: Reply, message: bytes | None, error: RequestError | None) -> None:
        if rpc.ended:
            return  # the client left while the model ran.
        if message is None:
            self._refuse(error or _BUG, reply)
        else:
            reply(200, [], message)

    def _refuse(self, error: RequestError, reply: Reply) -> None:
        extra = []
        if error.retry_after is not None:
            extra.append((_PUSHBACK, str(max(1, round(error.retry_after * 1000)))))
        reply(error.status, extra, str(error).encode("utf-8", "replace"))

    def _bug(self, error: Exception, reply: Reply) -> None:
        fields = reply.names if isinstance(reply, Watched) else {}
        _LOG.error(
            "a gRPC call failed in a way that was not foreseen", exc_info=error, extra={"fields": fields}
        )
        self._refuse(_BUG, reply)

    def _reply(self, rpc: Rpc, method: str, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """The engine's side of a `Reply`: the statuses of HTTP, and a refusal's reason as the body."""
        if status == 200 and method != STREAM:
            rpc.answer(body, headers)
        else:
            # Details travel in a header, whose size the client bounds.
            reason = "" if status == 200 else body.decode("utf-8", "replace")[:_REASON]
            rpc.end(status_of(status), reason, headers)
        key = (method or "other", status_of(status).name)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._family.at(*key)
        counter.add()


async def open_door(
    options: ServeOptions,
    service: InferenceService,
    inference: Inference,
    metrics: Metrics,
    clock: Clock,
    *,
    guard: Guard | None,
    watch: Watch,
) -> GrpcDoor:
    """A door that answers as the options say; raises `ServeError` when its address is taken."""
    door = GrpcDoor(service, inference, metrics, clock, options.limits, guard=guard, watch=watch,
                    tls=options.tls, shared=options.workers > 1)  # fmt: skip
    host = "127.0.0.1" if options.host == "localhost" else options.host
    bound = await door.open(host, options.grpc_port or 0)
    _LOG.info("gRPC on %s port %d", host, bound)
    return door


def _options(limits: Limits, shared: bool) -> list[tuple[str, int]]:
    return [
        # Checked against the length that a message announces, before memory is taken for it.
        ("grpc.max_receive_message_length", limits.body),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.max_allowed_incoming_connections", _CONNECTIONS),
        # Messages come as they were sent: `packed` bounds what they may become.
        ("grpc.per_message_decompression", 0),
        ("grpc.so_reuseport", int(shared)),
        # A client that is gone without a word, keeps the line busy, or does not begin to speak, is cut off.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.server_handshake_timeout_ms", int(limits.header_seconds * 1000)),
    ]
