"""Metric values as bytes: a run's hundred numbers are one short column instead of a hundred rows.

Version 1: values are little-endian IEEE 754 doubles in the order of the metric set's names; steps are
little-endian signed 64-bit integers, either one for all values or one each. A change of this layout
comes as a migration that rewrites the columns.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence


def pack_values(values: Sequence[float]) -> bytes:
    """Values as bytes, NaN and infinities included.

    >>> unpack_values(pack_values([1.5, -0.0]))
    (1.5, -0.0)
    """
    return struct.pack(f"<{len(values)}d", *values)


def unpack_values(data: bytes) -> tuple[float, ...]:
    """The values of `pack_values`."""
    return struct.unpack(f"<{len(data) >> 3}d", data)


def pack_steps(steps: Sequence[int]) -> bytes:
    """Steps as bytes; eight of them when all steps are the same.

    >>> len(pack_steps([3, 3, 3])), len(pack_steps([3, 4]))
    (8, 16)
    """
    short = steps[:1] if len(set(steps)) == 1 else steps
    return struct.pack(f"<{len(short)}q", *short)


def unpack_steps(data: bytes, count: int) -> tuple[int, ...]:
    """The `count` steps of `pack_steps`."""
    steps: tuple[int, ...] = struct.unpack(f"<{len(data) >> 3}q", data)
    return steps * count if len(steps) == 1 else steps


def decoder(names: Sequence[str]) -> Callable[[bytes], dict[str, float]]:
    """What makes the values of one metric set a dict by name, thousands of times.

    >>> decoder(["a", "b"])(pack_values([1.0, 2.0]))
    {'a': 1.0, 'b': 2.0}
    """
    unpack = struct.Struct(f"<{len(names)}d").unpack
    empty = dict.fromkeys(names, 0.0)

    def decode(data: bytes) -> dict[str, float]:
        # A copy is made at its full size, where a dict that grows is moved several times.
        found = empty.copy()
        found.update(zip(names, unpack(data), strict=True))
        return found

    return decode
