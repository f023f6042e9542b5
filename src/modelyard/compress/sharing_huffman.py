"""Canonical, length-limited Huffman codes over small alphabets, coded and decoded lane by lane in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LONGEST = 16
"""The longest code in bits, which lets a table of 65,536 entries decode any symbol in one look."""
LANE = 512
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

    Takes memory for `count` symbols and a few times the data, whatever the data says.
    """
    lanes = -(-count // LANE)
    if len(sizes) != lanes or int(sizes.astype(np.int64).sum()) != len(data):
        raise ValueError("the lanes do not fit the data")
    table, width = _table(lengths)
    # Lanes are checked at their ends, so a wrong one may run this far beyond the data.
    padded = np.zeros(len(data) + LANE * LONGEST // 8 + 3, dtype=np.uint32)
    padded[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    window = (padded[:-2] << 16) | (padded[1:-1] << 8) | padded[2:]
    starts = np.concatenate([[0], np.cumsum(sizes.astype(np.int64))])
    place, ends = starts[:-1] * 8, starts[1:] * 8
    out = np.empty((LANE, lanes), dtype=np.uint8 if len(lengths) <= 256 else np.uint16)
    last = count - (lanes - 1) * LANE
    for step in range(min(count, LANE)):
        live = lanes if step < last else lanes - 1
        at = place[:live]
        seen = (window[at >> 3] >> (8 - (at & 7)).astype(np.uint32)) & 0xFFFF
        out[step, :live] = table[seen]
        at += width[seen]
    if ((ends - place) >> 3).any():
        raise ValueError("a lane does not end with its last symbol")
    return out.T.reshape(-1)[:count]


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
        if len(np.flatnonzero(lengths)) == 1:
            # A lone symbol's second code does not exist; it may as well be the first.
            symbols[:], width[:] = symbol, 1
    return symbols, width
