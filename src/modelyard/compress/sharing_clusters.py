"""One-dimensional k-means: few values that many weights share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def clusters(values: Array, count: int, *, rounds: int = 50) -> Array:
    """At most `count` sorted centres of Lloyd's algorithm over finite values, float32.

    Started evenly between the least and the greatest value, which keeps the few large weights
    (Han, Mao and Dally 2016, arXiv:1510.00149, section 3.2). Exact zeros, where there are any, keep a centre
    at zero of their own. A centre that loses all its values moves into the cluster of largest error.

    >>> clusters(np.array([0.0, 0.0, 1.0, 1.2, 5.0], np.float32), 3).tolist()
    [0.0, 1.100000023841858, 5.0]
    """
    ordered = np.sort(values.ravel().astype(np.float64))
    zeros = bool((ordered == 0).any())
    moving = ordered[ordered != 0] if zeros else ordered
    if not len(moving):
        return np.zeros(1, np.float32)
    distinct = np.unique(moving)
    room = max(1, count - zeros)
    centres = distinct if len(distinct) <= room else _lloyd(moving, room, rounds)
    found = np.concatenate([centres, [0.0]]) if zeros else centres
    return np.unique(found.astype(np.float32))


def _lloyd(ordered: Array, count: int, rounds: int) -> Array:
    """In one dimension a cluster is an interval, so a round is one search and differences of running sums."""
    centres = np.linspace(ordered[0], ordered[-1], count)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    squares = np.concatenate([[0.0], np.cumsum(np.square(ordered))])
    for _ in range(rounds):
        cuts = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        edges = np.concatenate([[0], cuts, [len(ordered)]])
        counts = np.diff(edges)
        used = counts > 0
        means: Array = np.diff(sums[edges])[used] / counts[used]
        if len(means) == len(centres) and np.allclose(means, centres, rtol=1e-9, atol=0):
            return means
        lost = len(centres) - len(means)
        if lost:
            # A centre without values helps the cluster with the largest error instead.
            errors = np.diff(squares[edges])[used] - counts[used] * np.square(means)
            worst = np.argsort(-errors, kind="stable")[:lost]
            spread = np.sqrt(np.maximum(errors[worst], 0.0) / counts[used][worst])
            means = np.sort(np.concatenate([means, means[worst] + spread]))
        centres = means
    return centres


def assign(values: Array, centres: Array) -> Array:
    """The index of each value's nearest centre, in the smallest unsigned type, zero to zero; shape kept."""
    kind = np.uint8 if len(centres) <= 256 else np.uint16
    wide = centres.astype(np.float64)
    found = np.searchsorted((wide[1:] + wide[:-1]) / 2, values.astype(np.float64))
    exact = np.searchsorted(centres, np.float32(0))
    if exact < len(centres) and centres[exact] == 0:
        found = np.where(values == 0, exact, found)
    return found.astype(kind)
