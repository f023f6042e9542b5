"""The prediction log's writer: takes records in no time, writes them to Parquet from a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.clock import Clock
from modelyard.core.digest import Digest
from modelyard.data.live import LiveContract
from modelyard.serve.journal import JOURNAL, Journal
from modelyard.serve.memory import give_back
from modelyard.serve.metrics import Metrics
from modelyard.serve.options import LogOptions
from modelyard.serve.pace import Load, Rest, go_on, step_back
from modelyard.serve.piece import Piece, pieces_of
from modelyard.serve.record import PredictionRecord, ReleaseFacts

_LOG = logging.getLogger("modelyard.serve")
_Sized = tuple[PredictionRecord, int]
"""A record and the bytes it was counted with."""
_Key = tuple[str, Digest]
"""Endpoint and release: what has a segment of its own."""
_SEAL_BYTES = 8 << 20
_SEAL_SECONDS = 60.0
_SEAL_ROWS = 2_048
"""A flush of so many rows is a segment of its own: writing them again with more costs more than a file."""
_SEAL_YOUNG_BYTES = 1 << 20
"""The same for bytes."""
_BUSY_BYTES = 512 << 10
"""A flush of so many bytes, or of `_SEAL_ROWS`, says that there is much to do."""
_BUSY = 0.5
"""Of a core: with more than that to do, the process leaves journals as they are."""
_LARGE = 4_096
"""Bytes of one item from which on it counts against the limit of input bytes."""
_PIECE_ROWS = 512
"""Rows that are worked on at once, which takes less than a millisecond: requests wait no longer."""
_PIECE_BYTES = 1 << 20
_HURRY_BYTES = 1 << 30
"""So much may wait in journals for a quieter time; beyond, some is finished at each flush."""
_FINISHED = 4
"""Segments that are finished at one flush."""
_CLOSE_SECONDS = 2.0
"""For so long journals are finished at the end; the next process takes over the rest."""
_GIVE_BACK_SECONDS = 30.0
"""Freed memory is given back so often: each time, the next burst pays for clean pages anew."""


class PredictionLog:
    """A bounded queue of records and the thread that empties it.

    Records become rows of `<state>/predictions/<endpoint>/<segment>.parquet` within `options.seconds`. A
    young segment is written again, longer, at each flush until it is full, large or a minute old: few
    files, and yet nothing older than a second is lost to `kill -9`. Under load a flush is a journal,
    `<segment>.journal`, a quarter of the work; it is turned into Parquet when there is less to do, or when
    the log closes, or by the next process. What the queue has no room for, or the disk refuses, is dropped
    and counted; serving goes on. Large inputs (images) beyond `options.input_bytes` a second are left out
    of their rows, and counted too: at full speed they would cost more than the model.
    """

    def __init__(self, state: Path, options: LogOptions, metrics: Metrics, clock: Clock) -> None:
        self._folder = state / "predictions"
        self._options = options
        self._metrics = metrics
        self._clock = clock
        self._queue: deque[_Sized] = deque()
        self._bytes = 0
        self._rows = 0
        self._unfinished: deque[tuple[Path, int]] = deque()
        self._unfinished_bytes = 0
        self._given_back = clock.monotonic()
        self._rest: Callable[[], None] = go_on
        self._load = Load()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._flushing = threading.Lock()
        self._open: dict[_Key, _Young] = {}
        self._contracts: dict[Digest, LiveContract] = {}
        self._sequence = 0
        self._allowed = float(options.input_bytes)
        self._refilled = clock.monotonic()
        self._sampled = 0.0
        self.source: Callable[[], None] | None = None
        """Called before each flush: whoever holds records back appends them now."""
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)

    def start(self) -> None:
        """Starts the writing thread."""
        self._thread.start()

    def append(self, record: PredictionRecord) -> None:
        """Takes a record, or drops and counts it when the disk is too far behind."""
        if self._options.sample < 1 and not self._chosen(record):
            return
        size = record.size
        if record.inputs and size > _LARGE * record.items:
            size = self._limited(record, size)
        if self._bytes + size > self._options.pending_bytes:
            self._metrics.dropped.at(record.endpoint).add(record.items)
            return
        self._bytes += size
        self._rows += record.items
        self._queue.append((record, size))
        if self._rows >= self._options.rows:
            self._wake.set()

    def flush(self, *, gently: bool = False) -> None:
        """Writes everything that was appended before the call; `gently` with rests between pieces of work."""
        if self.source is not None:
            self.source()
        with self._flushing:
            self._rest = Rest(self._pause) if gently else go_on
            busy = self._rows >= _SEAL_ROWS or self._bytes >= _BUSY_BYTES or (gently and self._load() > _BUSY)
            self._rows = 0
            now = self._clock.monotonic()
            for key, waiting in self._taken().items():
                if waiting.rows >= min(_SEAL_ROWS, self._options.rows) or waiting.bytes >= _SEAL_YOUNG_BYTES:
                    self._hurry(key, waiting)
                else:
                    self._grow(key, waiting, now)
            for key, young in list(self._open.items()):
                if now - young.born > _SEAL_SECONDS:
                    del self._open[key]
            if not busy or self._unfinished_bytes > _HURRY_BYTES:
                self._finish(_FINISHED)
        if now - self._given_back > _GIVE_BACK_SECONDS:
            self._given_back = now
            give_back()

    def close(self) -> None:
        """Stops the thread and writes what is left."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()
        began = time.monotonic()
        while self._unfinished and time.monotonic() - began < _CLOSE_SECONDS:
            self._finish(1)

    def _adopt(self) -> None:
        """Takes over what an earlier process wrote in a hurry and did not finish."""
        for path in sorted(self._folder.glob(f"*/[!.]*{JOURNAL}")):
            self._remember(path)

    def _remember(self, journal: Path) -> None:
        """Keeps in mind that a journal is to be finished."""
        size = journal.stat().st_size
        self._unfinished.append((journal, size))
        self._unfinished_bytes += size

    def _finish(self, most: int) -> None:
        """Turns journals into Parquet, the oldest first."""
        if not self._unfinished:
            return
        from modelyard.serve.segment import finish_segment

        for _ in range(min(most, len(self._unfinished))):
            path, size = self._unfinished.popleft()
            self._unfinished_bytes -= size
            try:
                finish_segment(path, self._rest)
            except Exception as error:  # it stays readable as it is.
                _LOG.warning("the segment %s stays a journal: %s", path.name, error)

    def _chosen(self, record: PredictionRecord) -> bool:
        """Whether a record is of the share that is kept: every n-th, not by chance."""
        self._sampled += self._options.sample
        if self._sampled < 1:
            return False
        self._sampled -= 1
        return True

    def _limited(self, record: PredictionRecord, size: int) -> int:
        """The record's size, after its inputs were taken out if they are more than is allowed now."""
        now = self._clock.monotonic()
        rate = self._options.input_bytes
        self._allowed = min(float(rate), self._allowed + (now - self._refilled) * rate)
        self._refilled = now
        bytes_ = sum(values.nbytes for values in record.inputs.values())
        # What does not fit is let through once the allowance is whole: one large request must not be lost.
        if bytes_ > self._allowed and self._allowed < rate:
            record.inputs = {}
            self._metrics.left_out.at(record.endpoint).add(record.items)
            return record.size
        self._allowed -= bytes_
        return size

    def _work(self) -> None:
        step_back()
        self._adopt()
        seconds, took = self._options.seconds, 0.0
        while not self._stop.is_set():
            # What comes while one flush works is written by the end of the next: it must not be older either.
            self._wake.wait(max(seconds / 4, seconds - 2 * took))
            self._wake.clear()
            began = time.monotonic()
            try:
                self.flush(gently=True)
            except Exception:  # the log must outlive whatever one batch of records brings with it.
                _LOG.exception("the prediction log could not be written")
            took = time.monotonic() - began

    def _pause(self, seconds: float) -> None:
        """Waits, unless there is too much to write or the end has come."""
        if self._bytes < self._options.pending_bytes // 2:
            self._stop.wait(seconds)

    def _taken(self) -> dict[_Key, _Waiting]:
        """What waits, by segment."""
        found: dict[_Key, _Waiting] = {}
        while self._queue:
            record, size = self._queue.popleft()
            key = (record.endpoint, record.by.digest)
            waiting = found.get(key)
            if waiting is None:
                waiting = found[key] = _Waiting(record.by)
            waiting.records.append((record, size))
            waiting.rows += record.items
            waiting.bytes += size
        return found

    def _pieces(self, key: _Key, waiting: _Waiting, taken: _Rows) -> Iterator[Piece]:
        """The oldest of what waits, as much as is worked on at once, checked and without what is private."""
        records, rows, size = waiting.oldest()
        try:
            pieces = pieces_of(records)
            for piece in pieces:
                self._inspect(key, waiting.release, piece)
        except Exception as error:  # these rows are lost, the next may not be.
            self._lose(key[0], _Rows(rows, size), error)
            return
        taken.rows += rows
        taken.bytes += size
        yield from pieces

    def _inspect(self, key: _Key, release: ReleaseFacts, piece: Piece) -> None:
        """Counts what a piece breaks of the contract, and drops what must not be logged."""
        endpoint, digest = key
        contract = self._contracts.get(digest)
        if contract is None:
            contract = self._contracts[digest] = LiveContract(release.contract)
        if not piece.inputs:
            return
        breaches = contract.breaches(piece.inputs)
        if breaches:
            piece.broken = contract.broken(piece.inputs, piece.items, breaches)
            for breach in breaches:
                self._metrics.breaches.at(endpoint, breach.column, breach.rule).add(breach.rows)
        if not self._options.keep_private:
            logged = {item.name for item in release.contract.features if not item.private}
            piece.inputs = {name: values for name, values in piece.inputs.items() if name in logged}

    def _hurry(self, key: _Key, waiting: _Waiting) -> None:
        """Writes journals: what comes so fast must cost little."""
        self._open.pop(key, None)
        while waiting.records:
            path, taken = self._new_path(key[0], JOURNAL), _Rows()
            try:
                with Journal(path, key[0], waiting.release) as journal:
                    while waiting.records and journal.size < _SEAL_BYTES:
                        for piece in self._pieces(key, waiting, taken):
                            journal.add(piece)
                        self._rest()
                if taken.rows:
                    self._remember(path)
            except Exception as error:  # a full disk, say: what is left would fare no better.
                self._lose(key[0], waiting.with_all(taken), error)
            else:
                self._kept(key[0], taken)

    def _grow(self, key: _Key, waiting: _Waiting, now: float) -> None:
        """Writes the young segment of an endpoint and release again, with these rows behind the others."""
        # Imported on the writing thread: the server answers before Arrow is loaded.
        import pyarrow as pa

        from modelyard.serve.segment import table_of_piece, write_segment

        taken = _Rows()
        try:
            young = self._open.get(key)
            if young is None:
                young = self._open[key] = _Young(self._new_path(key[0], ".parquet"), now)
            tables = list(young.tables)
            while waiting.records:
                pieces = self._pieces(key, waiting, taken)
                tables.extend(table_of_piece(piece, key[0], waiting.release) for piece in pieces)
                self._rest()
            if not taken.rows:
                return
            whole = pa.concat_tables(tables, promote_options="permissive")
            young.tables = [whole]
            write_segment(young.path, whole)
            if whole.num_rows >= min(_SEAL_ROWS, self._options.rows) or whole.nbytes >= _SEAL_YOUNG_BYTES:
                del self._open[key]
        except Exception as error:  # a full disk, say.
            self._open.pop(key, None)
            self._lose(key[0], waiting.with_all(taken), error)
        else:
            self._kept(key[0], taken)

    def _new_path(self, endpoint: str, suffix: str) -> Path:
        self._sequence += 1
        name = f"{int(self._clock.now() * 1e6):017d}-{os.getpid()}-{self._sequence}{suffix}"
        return self._folder / endpoint / name

    def _kept(self, endpoint: str, rows: _Rows) -> None:
        self._metrics.logged.at(endpoint).add(rows.rows)
        self._bytes -= rows.bytes

    def _lose(self, endpoint: str, rows: _Rows, error: Exception) -> None:
        """Drops rows, and says so."""
        self._metrics.dropped.at(endpoint).add(rows.rows)
        self._bytes -= rows.bytes
        _LOG.error("%d rows of the prediction log of %s are lost: %s", rows.rows, endpoint, error)


@dataclass(slots=True)
class _Rows:
    """How many rows, and the bytes that they were counted with while they waited."""

    rows: int = 0
    bytes: int = 0


class _Waiting(_Rows):
    """Records of one segment."""

    __slots__ = ("records", "release")

    def __init__(self, release: ReleaseFacts) -> None:
        super().__init__()
        self.release = release
        self.records: deque[_Sized] = deque()

    def oldest(self) -> tuple[list[PredictionRecord], int, int]:
        """Takes out as many records as are worked on at once: they, their rows, their bytes."""
        found: list[PredictionRecord] = []
        rows = size = 0
        while self.records and rows < _PIECE_ROWS and size < _PIECE_BYTES:
            record, bytes_ = self.records.popleft()
            found.append(record)
            rows += record.items
            size += bytes_
        self.rows -= rows
        self.bytes -= size
        return found, rows, size

    def with_all(self, taken: _Rows) -> _Rows:
        """Takes out all that is left: it, and what was taken before."""
        self.records.clear()
        return _Rows(taken.rows + self.rows, taken.bytes + self.bytes)


class _Young:
    """A segment that still grows."""

    __slots__ = ("born", "path", "tables")

    def __init__(self, path: Path, born: float) -> None:
        self.path = path
        self.born = born
        self.tables: list[Any] = []
