"""Where a lane's work happens in the serving process: the event loop, and threads for what is expensive."""

from __future__ import annotations

import asyncio
import heapq
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

_LOG = logging.getLogger("modelyard.serve")

_Work = tuple[float, int, Callable[[], Any], Callable[[Any], None], object, float]


class LoopExecutor:
    """A `lane.Executor` on an event loop, with threads beside it.

    Work that waits is ordered by start-time fair queueing: an owner's work begins, on a clock of used
    seconds, where its last one ended, so that a cheap model passes an expensive one that has had its turn
    (Goyal, Vin & Cheng, SIGCOMM 1996). What a run really took is charged when it is over.
    There are more threads than one even on one core, so that one long run does not hold up the short ones
    behind it: the kernel shares the core among them. Work waits at most for the shortest of the runs in
    work, and for those of others that have used less. Of the threads that are idle the one that ran last is
    woken: the memory that a model computes in is still its own, and in the cache.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int) -> None:
        self._loop = loop
        self.soon: Callable[[Callable[[], None]], object] = loop.call_soon
        self._wanted = threads
        self._threads: list[threading.Thread] = []
        self._idle: list[SimpleQueue[None]] = []
        self._closed = False
        self._heap: list[_Work] = []
        self._lock = threading.Lock()
        self._used: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._now = 0.0
        self._number = 0

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any], None], *, owner: object = None, cost: float = 0.0
    ) -> None:
        """Calls `work` in a thread, then `done` with its result on the loop."""
        with self._lock:
            self._number += 1
            start = self._now if owner is None else max(self._now, self._used.get(owner, 0.0))
            if owner is not None:
                self._used[owner] = start + cost
            heapq.heappush(self._heap, (start, self._number, work, done, owner, cost))
            if self._idle:
                self._idle.pop().put(None)
            elif len(self._threads) < self._wanted:
                thread = threading.Thread(
                    target=self._work, name=f"runtime-{len(self._threads)}", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def close(self) -> None:
        """Ends the threads after their work."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        woken: SimpleQueue[None] = SimpleQueue()
        answer: tuple[Callable[[Any], None], Any] | None = None
        while True:
            with self._lock:
                next_of_all = heapq.heappop(self._heap) if self._heap else None
                ends = next_of_all is None and self._closed
                if next_of_all is not None:
                    self._now = max(self._now, next_of_all[0])
                elif not ends:
                    self._idle.append(woken)
            # It is known to be idle before the loop hears of its result: what that begins next comes here.
            if answer is not None and not self._hand_back(*answer):
                return
            answer = None
            if ends:
                return
            if next_of_all is None:
                woken.get()
                continue
            _, _, work, done, owner, cost = next_of_all
            began = perf_counter()
            answer = done, work()
            if owner is not None:
                with self._lock:
                    self._used[owner] += perf_counter() - began - cost
            del next_of_all, work, done, owner

    def _hand_back(self, done: Callable[[Any], None], result: Any) -> bool:
        """Whether the loop still takes results."""
        try:
            self._loop.call_soon_threadsafe(done, result)
        except RuntimeError as error:  # the loop has ended, and whoever waited with it.
            _LOG.warning("a result came after the end: %s", error)
            return False
        return True
