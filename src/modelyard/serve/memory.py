"""Memory: how much is in use, how much there is, and what was freed given back to the machine."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from math import inf
from pathlib import Path

_ALLOCATOR = ((-8, 1), (-3, 32 << 20), (-1, 128 << 20))
"""M_ARENA_MAX, M_MMAP_THRESHOLD (the largest there is) and M_TRIM_THRESHOLD of mallopt(3)."""


class _Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
                     "fordblks", "keepcost")
    )  # fmt: skip


def in_use() -> int:
    """Bytes that the process has taken and not freed: of the C library's heaps, else its resident pages.

    What a model takes shows here even when it fits into memory that was freed before, which the pages do
    not tell. Costs some microseconds.
    """
    info = _mallinfo()
    if info is not None:
        found = info()
        return int(found.uordblks + found.hblkhd)
    return resident()


def resident() -> int:
    """Bytes of the process's resident pages; 0 where the kernel does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def limit() -> int | None:
    """Bytes that the machine, or the container that this process is in, has; `None` when unknown."""
    found = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # "max": the container has what the machine has.
            continue
    try:
        line = Path("/proc/meminfo").read_text().partition("MemTotal:")[2]
        found.append(int(line.split()[0]) * 1_024)
    except (OSError, ValueError, IndexError):
        pass
    return min(found, default=None)


def budget(wanted: int | None, workers: int) -> float:
    """Bytes that the models of one worker may hold: as wanted (0: any), or its part of what there is."""
    if wanted is not None:
        return wanted or inf
    there = limit()
    return inf if there is None else 0.75 * there / workers


def keep_between_runs() -> None:
    """Has the C library keep what a run has freed for the next run; before the first thread starts.

    As it comes, glibc returns the end of a heap at once, and a model whose layers take megabytes faults
    the same pages in again in every run: up to a tenth of a convolutional network's time. `give_back`
    returns them when there is nothing to do. One heap for all threads: each would keep as much.
    """
    mallopt = _mallopt()
    if mallopt is not None:
        for parameter, value in _ALLOCATOR:
            mallopt(parameter, value)


def give_back() -> None:
    """Returns what libraries keep of freed memory: Arrow's pool and the C library's heaps.

    Both hold on to it for the next burst, and a server would keep the size of its largest one. Costs
    about a millisecond; not for the request's path.
    """
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = _trim()
    if trim is not None:
        trim(1 << 20)


@cache
def _mallopt() -> Callable[[int, int], int] | None:
    """glibc's `mallopt`, where there is one."""
    try:
        found: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return None
    return found if _mallinfo() is not None else None


@cache
def _trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`, where there is one."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return found


@cache
def _mallinfo() -> Callable[[], _Mallinfo] | None:
    """glibc's `mallinfo2`, where there is one."""
    try:
        found = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    found.restype = _Mallinfo
    return found
