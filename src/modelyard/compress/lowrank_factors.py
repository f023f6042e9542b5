"""Low-rank factors of matrices and kernels, and the rank that keeps a share of the energy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def rank_for(singular: Array, energy: float) -> int:
    """The least rank whose squared singular values hold that share of their sum; at least 1.

    By Eckart and Young (1936) the squared error of the best rank-r matrix is exactly the sum of the squared
    singular values left out, so `1 - energy` bounds the relative squared error.

    >>> rank_for(np.array([3.0, 1.0, 0.1]), 0.89), rank_for(np.array([3.0, 1.0, 0.1]), 0.999)
    (1, 2)
    """
    squares = np.square(singular, dtype=np.float64)
    total = squares.sum()
    if not total:
        return 1
    kept = np.cumsum(squares) / total
    return min(int(np.searchsorted(kept, energy - 1e-12)) + 1, len(singular))


def svd_factors(matrix: Array, energy: float, rank: int = 0) -> tuple[Array, Array]:
    """`[in, r]` and `[r, out]` float32 whose product is the best approximation of `[in, out]` of its rank.

    r is `rank`, or the least that keeps `energy` where that is 0. The singular values are shared evenly
    between both, so that neither has an extreme range.
    """
    left, singular, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    rank = min(rank, len(singular)) or rank_for(singular, energy)
    root = np.sqrt(singular[:rank])
    return (left[:, :rank] * root).astype(np.float32), (root[:, None] * right[:rank]).astype(np.float32)


def tucker2(kernel: Array, energy: float, *, rank: int = 0, rounds: int = 10) -> tuple[Array, Array, Array]:
    """Factors of a kernel `[out, in, *k]` along both channel modes: `[out, ro]`, `[ro, ri, *k]`, `[ri, in]`.

    Ranks by energy of each mode's unfolding, or `rank` where that is not 0; started by the truncated HOSVD
    and improved by `rounds` of higher-order orthogonal iteration (De Lathauwer et al. 2000; for convolutions
    Kim et al. 2016, arXiv:1511.06530). By energy, the relative squared error is at most twice `1 - energy`
    (the HOSVD's bound).
    """
    values = kernel.astype(np.float64)
    out, wide = values.shape[:2]
    columns = values.reshape(out, wide, -1)
    left, singular, _ = np.linalg.svd(columns.reshape(out, -1), full_matrices=False)
    ro = min(rank, len(singular)) or rank_for(singular, energy)
    right, singular, _ = np.linalg.svd(columns.transpose(1, 0, 2).reshape(wide, -1), full_matrices=False)
    ri = min(rank, len(singular)) or rank_for(singular, energy)
    outer, inner = left[:, :ro], right[:, :ri]
    for _ in range(rounds):
        half = np.einsum("oik,ir->ork", columns, inner).reshape(out, -1)
        outer = np.linalg.svd(half, full_matrices=False)[0][:, :ro]
        half = np.einsum("oik,or->irk", columns, outer).reshape(wide, -1)
        inner = np.linalg.svd(half, full_matrices=False)[0][:, :ri]
    core = np.einsum("oik,op,ir->prk", columns, outer, inner).reshape(
        outer.shape[1], inner.shape[1], *kernel.shape[2:]
    )
    return outer.astype(np.float32), core.astype(np.float32), inner.T.astype(np.float32)


def separable(kernel: Array) -> tuple[Array, Array]:
    """A depthwise kernel `[in, *k]` and a pointwise matrix `[out, in]` nearest to a kernel `[out, in, *k]`.

    The nearest in squared error: input channel by input channel the best rank-1 matrix of `[out, k]`
    (network decoupling, Guo et al. 2018, arXiv:1808.05517, with one term).
    """
    out, wide = kernel.shape[:2]
    slices = kernel.astype(np.float64).reshape(out, wide, -1).transpose(1, 0, 2)
    left, singular, right = np.linalg.svd(slices, full_matrices=False)
    root = np.sqrt(singular[:, 0])
    depthwise = (root[:, None] * right[:, 0]).reshape(wide, *kernel.shape[2:])
    return depthwise.astype(np.float32), (left[:, :, 0] * root[:, None]).T.astype(np.float32)
