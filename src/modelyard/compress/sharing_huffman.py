"""Canonical, length-limited Huffman codes over small alphabets, coded and decoded lane by lane in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LONGEST = 16
"""The longest code in bits, which lets a table of 65,536 entries decode any symbol in one look."""
LANE = 4096
"""Symbols a lane; lanes start at whole bytes and are decoded side by side."""


def code_lengths(counts: Array) -> Array:
    """The code length of each symbol, 0 for one that never occurs; optimal among codes of at most 16 bits.

    Package-merge (Larmore and Hirschberg 1990). Where no length reaches the limit this is Huffman's code, so
    the mean length lies between the entropy and the entropy plus one bit. A lone symbol takes one bit.

    >>> code_lengths(np.array([5, 1, 1, 0])).tolist()
    [1, 2, 2, 0]
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), dtype=np.uint8)
    if len(used) <= 1:
        lengths[used] = 1
        return lengths
    if len(used) > 1 << LONGEST:
        raise ValueError(f"{len(used)} symbols cannot have codes of {LONGEST} bits")
    single = sorted((int(counts[symbol]), (int(symbol),)) for symbol in used)
    packages: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(LONGEST):
        merged = sorted([*single, *packages])
        packages = [
            (merged[index][0] + merged[index + 1][0], merged[index][1] + merged[index + 1][1])
            for index in range(0, len(merged) - 1, 2)
        ]
    for _, symbols in packages[: len(used) - 1]:
        for symbol in symbols:
            lengths[symbol] += 1
    return lengths


def codes(lengths: Array) -> Array:
    """The canonical code of each symbol as a number: shorter first, then by symbol (RFC 1951, 3.2.2).

    Raises `ValueError` for lengths that are no prefix code: over-full, or with room left (but one lone
    symbol).
    """
    used = np.flatnonzero(lengths)
    if not len(used) or int(lengths.max()) > LONGEST:
        raise ValueError("no code, or one that is too long")
    full = int(np.sum(1 << (LONGEST - lengths[used].astype(np.int64))))
    if full != 1 << LONGEST and not (len(used) == 1 and lengths[used[0]] == 1):
        raise ValueError("the lengths are no prefix code")
    found = np.zeros(len(lengths), dtype=np.uint32)
    order = used[np.argsort(lengths[used], kind="stable")]
    code, before = 0, int(lengths[order[0]])
    for symbol in order:
        code <<= int(lengths[symbol]) - before
        before = int(lengths[symbol])
        found[symbol] = code
        code += 1
    return found


def encode(symbols: Array, lengths: Array) -> tuple[bytes, Array]:
    """The coded symbols, and the bytes of each lane (uint16)."""
    table = codes(lengths)
    parts, sizes = [], []
    for start in range(0, len(symbols), LANE):
        lane = symbols[start : start + LANE]
        size = lengths[lane].astype(np.int64)
        ends = np.cumsum(size)
        bit = np.arange(ends[-1])
        owner = np.repeat(np.arange(len(lane)), size)
        bits = (table[lane][owner] >> (ends[owner] - 1 - bit).astype(np.uint32)) & 1
        data = np.packbits(bits.astype(np.uint8)).tobytes()
        parts.append(data)
        sizes.append(len(data))
    return b"".join(parts), np.array(sizes, dtype="<u2")


def decode(data: bytes, sizes: Array, lengths: Array, count: int) -> Array:
    """The `count` symbols of coded lanes, uint8 or uint16; raises `ValueError` for data that is not theirs.

    Takes memory for `count` symbols and the data, whatever the data says.
    """
    lanes = -(-count // LANE)
    if len(sizes) != lanes or int(sizes.astype(np.int64).sum()) != len(data):
        raise ValueError("the lanes do not fit the data")
    table, width = _table(lengths)
    padded = np.zeros(len(data) + 3, dtype=np.uint8)
    padded[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    starts = np.concatenate([[0], np.cumsum(sizes.astype(np.int64))])
    place, ends = starts[:-1] * 8, starts[1:] * 8
    out = np.empty(lanes * LANE, dtype=np.uint8 if len(lengths) <= 256 else np.uint16).reshape(lanes, LANE)
    last = count - (lanes - 1) * LANE
    for step in range(min(count, LANE)):
        live = lanes if step < last else lanes - 1
        at = place[:live]
        byte = at >> 3
        window = (
            (padded[byte].astype(np.uint32) << 16)
            | (padded[byte + 1].astype(np.uint32) << 8)
            | padded[byte + 2]
        )
        seen = (window >> (8 - (at & 7)).astype(np.uint32)) & 0xFFFF
        symbol = table[seen]
        length = width[seen]
        # A lone symbol's code leaves half of the table empty.
        if not length.all():
            raise ValueError("the data holds a code that does not exist")
        out[:live, step] = symbol
        place[:live] = at + length
        if (place[:live] > ends[:live]).any():
            raise ValueError("a lane ends within a code")
    if ((ends - place) >= 8).any():
        raise ValueError("a lane is longer than its symbols")
    return out.reshape(-1)[:count]


def _table(lengths: Array) -> tuple[Array, Array]:
    """For each 16 bits the symbol whose code they begin with, and its length."""
    found = codes(lengths)
    symbols = np.zeros(1 << LONGEST, dtype=np.uint16)
    width = np.zeros(1 << LONGEST, dtype=np.int64)
    for symbol in np.flatnonzero(lengths):
        free = LONGEST - int(lengths[symbol])
        start = int(found[symbol]) << free
        symbols[start : start + (1 << free)] = symbol
        width[start : start + (1 << free)] = lengths[symbol]
    return symbols, width
