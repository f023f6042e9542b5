"""The prediction log's writer: takes records in no time, writes them to Parquet from a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.core.clock import Clock
from modelyard.core.digest import Digest
from modelyard.serve.metrics import Metrics
from modelyard.serve.options import LogOptions
from modelyard.serve.record import PredictionRecord

if TYPE_CHECKING:
    from modelyard.data.live import LiveContract

_LOG = logging.getLogger("modelyard.serve")
_SEAL_BYTES = 8 << 20
_SEAL_SECONDS = 60.0
_MOST = 4_096


class PredictionLog:
    """A bounded queue of records and the thread that empties it.

    Records become rows of `<state>/predictions/<endpoint>/<segment>.parquet` within `options.seconds`. A
    young segment is written again, longer, at each flush until it is full, large or a minute old: few
    files, and yet nothing older than a second is lost to `kill -9`. What the queue has no room for, or
    the disk refuses, is dropped and counted; serving goes on.
    """

    def __init__(self, state: Path, options: LogOptions, metrics: Metrics, clock: Clock) -> None:
        self._folder = state / "predictions"
        self._options = options
        self._metrics = metrics
        self._clock = clock
        self._queue: deque[PredictionRecord] = deque()
        self._bytes = 0
        self._rows = 0
        self._wake = threading.Event()
        self._stop = False
        self._flushing = threading.Lock()
        self._open: dict[tuple[str, Digest], _Young] = {}
        self._contracts: dict[Digest, LiveContract] = {}
        self._sequence = 0
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)

    def start(self) -> None:
        """Starts the writing thread."""
        self._thread.start()

    def append(self, record: PredictionRecord) -> None:
        """Takes a record, or drops and counts it when the disk is too far behind."""
        size = _size(record)
        if self._bytes + size > self._options.pending_bytes:
            self._metrics.dropped.at(record.endpoint).add(record.rows)
            return
        self._bytes += size
        self._rows += record.rows
        self._queue.append(record)
        if self._rows >= self._options.rows:
            self._wake.set()

    def flush(self) -> None:
        """Writes everything that was appended before the call."""
        with self._flushing:
            records = []
            while self._queue:
                records.append(self._queue.popleft())
            self._rows = 0
            try:
                self._write(records)
            finally:
                self._bytes -= sum(_size(record) for record in records)

    def close(self) -> None:
        """Stops the thread and writes what is left."""
        self._stop = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def _work(self) -> None:
        while not self._stop:
            self._wake.wait(self._options.seconds)
            self._wake.clear()
            try:
                self.flush()
            except Exception:  # the log must outlive whatever one batch of records brings with it.
                _LOG.exception("the prediction log could not be written")

    def _write(self, records: list[PredictionRecord]) -> None:
        now = self._clock.monotonic()
        groups: dict[tuple[str, Digest], list[PredictionRecord]] = {}
        for record in records:
            groups.setdefault((record.endpoint, record.by.digest), []).append(record)
        for (endpoint, digest), group in groups.items():
            rows = sum(record.rows for record in group)
            try:
                self._write_group(endpoint, digest, group, now)
                self._metrics.logged.at(endpoint).add(rows)
            except Exception as error:  # a full disk, say: these rows are lost, the next may not be.
                self._open.pop((endpoint, digest), None)
                self._metrics.dropped.at(endpoint).add(rows)
                _LOG.error("%d rows of the prediction log of %s are lost: %s", rows, endpoint, error)
        for key, young in list(self._open.items()):
            if now - young.born > _SEAL_SECONDS:
                del self._open[key]

    def _write_group(self, endpoint: str, digest: Digest, group: list[PredictionRecord], now: float) -> None:
        # Imported on the writing thread: the server answers before Arrow is loaded.
        import pyarrow as pa

        from modelyard.data.live import LiveContract
        from modelyard.serve.segment import table_of_records

        contract = self._contracts.get(digest)
        if contract is None:
            contract = self._contracts[digest] = LiveContract(group[0].by.contract)
        for part in _alike(group):
            for chunk in _chunks(part):
                table, breaches = table_of_records(chunk, contract, keep_private=self._options.keep_private)
                for breach in breaches:
                    self._metrics.breaches.at(endpoint, breach.column, breach.rule).add(breach.rows)
                self._grow((endpoint, digest), table, now)
        # Arrow keeps freed memory for itself; a server does not want it back in bursts only.
        pa.default_memory_pool().release_unused()

    def _grow(self, key: tuple[str, Digest], table: Any, now: float) -> None:
        """Writes the young segment of an endpoint and release again, with these rows behind the others."""
        import pyarrow as pa

        from modelyard.serve.segment import write_segment

        young = self._open.get(key)
        if young is None:
            self._sequence += 1
            name = f"{int(self._clock.now() * 1e6):017d}-{os.getpid()}-{self._sequence}.parquet"
            young = self._open[key] = _Young(self._folder / key[0] / name, now)
        young.tables.append(table)
        whole = pa.concat_tables(young.tables, promote_options="permissive")
        young.tables = [whole]
        write_segment(young.path, whole)
        if whole.num_rows >= self._options.rows or whole.nbytes >= _SEAL_BYTES:
            del self._open[key]


class _Young:
    """A segment that still grows."""

    __slots__ = ("born", "path", "tables")

    def __init__(self, path: Path, born: float) -> None:
        self.path = path
        self.born = born
        self.tables: list[Any] = []


def _alike(group: Iterable[PredictionRecord]) -> list[list[PredictionRecord]]:
    """The records with inputs and outputs, those with inputs only, and those with neither."""
    parts: dict[tuple[bool, bool], list[PredictionRecord]] = {}
    for record in group:
        parts.setdefault((bool(record.inputs), bool(record.outputs)), []).append(record)
    return list(parts.values())


def _chunks(part: list[PredictionRecord]) -> Iterator[list[PredictionRecord]]:
    """The records in pieces whose tables stay small."""
    chunk: list[PredictionRecord] = []
    size = 0
    for record in part:
        chunk.append(record)
        size += _size(record)
        if size >= _SEAL_BYTES or len(chunk) >= _MOST:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _size(record: PredictionRecord) -> int:
    size = 512
    for values in record.inputs.values():
        size += values.nbytes
    return size
