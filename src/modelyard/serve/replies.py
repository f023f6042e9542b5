"""What goes out: answers, refusals and admitted faults, each counted by its status."""

from __future__ import annotations

import logging

from modelyard.core.errors import RequestError
from modelyard.serve.codec.inference import write_error
from modelyard.serve.encoding import SMALLEST, accepted, pack
from modelyard.serve.exchange import JSON_TYPE, Exchange, Reply, Written
from modelyard.serve.metrics import Counter, Metrics
from modelyard.serve.watch import Watched

_LOG = logging.getLogger("modelyard.serve")


class Replies:
    """Sends replies; used on the event loop's thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._statuses: dict[int, Counter] = {}

    def send(self, reply: Reply, status: int, kind: str, body: bytes,
             extra: list[tuple[str, str]] | None = None) -> None:  # fmt: skip
        """Replies with a body of that media type."""
        counter = self._statuses.get(status)
        if counter is None:
            counter = self._statuses[status] = self._metrics.http.at(str(status))
        counter.add()
        headers = [("content-type", kind)]
        if extra:
            headers += extra
        reply(status, headers, body)

    def write(self, exchange: Exchange, status: int, written: Written) -> None:
        """Sends what was written, compressed when it is long and the client takes that."""
        body, extra = written.body, list(written.headers)
        if len(body) >= SMALLEST:
            takes = exchange.headers("accept-encoding")
            encoding = None if takes is None else accepted(takes)
            if encoding is not None:
                body = pack(body, encoding)
                extra += [("content-encoding", encoding), ("vary", "accept-encoding")]
        self.send(exchange.reply, status, written.kind, body, extra)

    def refuse(self, error: RequestError, reply: Reply) -> None:
        """Replies with a refusal: the protocol's error object and the error's status."""
        extra = []
        if error.retry_after is not None:
            extra.append(("retry-after", str(max(1, round(error.retry_after)))))
        if error.status == 405 and error.rule is not None:
            extra.append(("allow", error.rule.replace(" or ", ", ")))
        if error.status in (408, 413):
            # What is left of the body is not waited for.
            extra.append(("connection", "close"))
        if error.status == 401:
            extra.append(("www-authenticate", "Bearer"))
        self.send(reply, error.status, JSON_TYPE, write_error(error), extra)

    def admit_fault(self, error: Exception, reply: Reply) -> None:
        """Replies that the service failed, and says in the log why."""
        fields = reply.names if isinstance(reply, Watched) else {}
        _LOG.error(
            "a request failed in a way that was not foreseen", exc_info=error, extra={"fields": fields}
        )
        self.send(reply, 500, JSON_TYPE, b'{"error":"the service failed; its log says why"}')
