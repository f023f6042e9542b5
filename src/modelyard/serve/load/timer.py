"""Wakes an event loop at a time finer than the millisecond that event loops keep."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_MONOTONIC = 1
_NONBLOCK = 0o4000
_CLOEXEC = 0o2000000
_ABSOLUTE = 1


class _Spec(ctypes.Structure):
    _fields_ = (("every_s", ctypes.c_long), ("every_ns", ctypes.c_long),
                ("at_s", ctypes.c_long), ("at_ns", ctypes.c_long))  # fmt: skip


class FineTimer:
    """Calls `wake` near a time of `time.monotonic`: tens of microseconds late on Linux, without spinning.

    Linux's timerfd is precise where the time-outs of epoll and of libuv are rounded up to a millisecond.
    Elsewhere the loop's own timer is used, and the generator's lag shows what that costs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        self._loop = loop
        self._wake = wake
        self._handle: asyncio.TimerHandle | None = None
        self._file = -1
        self._set: Callable[..., int] | None = None
        if sys.platform == "linux":
            library = ctypes.CDLL(None, use_errno=True)
            self._file = library.timerfd_create(_MONOTONIC, _NONBLOCK | _CLOEXEC)
            if self._file >= 0:
                self._set = library.timerfd_settime
                loop.add_reader(self._file, self._fired)

    def at(self, when: float) -> None:
        """Wakes at `when` (`time.monotonic`), instead of at any time set before."""
        if self._set is None:
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_later(max(0.0, when - time.monotonic()), self._wake)
            return
        nano = max(1, int(when * 1e9))
        spec = _Spec(0, 0, nano // 1_000_000_000, nano % 1_000_000_000)
        self._set(self._file, _ABSOLUTE, ctypes.byref(spec), None)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file, self._set = -1, None

    def _fired(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return
        self._wake()
