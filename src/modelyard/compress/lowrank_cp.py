"""CP decomposition of kernels: sums of outer products, a factor an axis, by alternating least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.compress.lowrank_factors import rank_for

Array = npt.NDArray[Any]

SWEEPS = 200
_SEARCHED = 50
_FEWEST = 8
_STALLED = 1e-4
_NOTHING = 1e-12
_OPERATIONS = 1e10
"""About how many multiplications one fit may take; a large kernel gets fewer sweeps."""


@dataclass(frozen=True, slots=True)
class Cp:
    """Factors `[size of the axis, rank]` float32, one an axis; the squared error as a share of the whole."""

    factors: tuple[Array, ...]
    error: float

    @property
    def rank(self) -> int:
        return int(self.factors[0].shape[1])

    @property
    def tensor(self) -> Array:
        """What the factors stand for."""
        wide = [factor.astype(np.float64) for factor in self.factors]
        shape = tuple(len(factor) for factor in wide)
        return (wide[0] @ _products(wide[1:]).T).reshape(shape)


def full_rank(shape: Sequence[int]) -> int:
    """A rank at which factors are exact: the product of all axes but the longest."""
    return math.prod(shape) // max(shape)


def least_rank(values: Array, energy: float) -> int:
    """No rank below this keeps that share of the squares: the unfolding along each axis would need more."""
    return max(
        rank_for(np.linalg.svd(_unfolded(values, axis), compute_uv=False), energy)
        for axis in range(values.ndim)
    )


def cp(
    values: Array, rank: int, *, goal: float = 0.0, sweeps: int = SWEEPS, starts: int = 4, seed: int = 0
) -> Cp:
    """The best of some fits of that rank: begun from singular vectors, from a fit with the last two axes as
    one, and from random factors of this seed.

    Each factor in turn solves a least squares problem that holds it to its last value, the less the smaller
    the error is: the normal matrix stays well conditioned where components are nearly parallel. After a sweep
    each component is spread evenly over its factors, so that none grows while another vanishes. Ends where
    the error is at most `goal`, or stalls. At the full rank the factors are exact. Sources: Lebedev et al.
    2015, arXiv:1412.6553; Kolda and Bader 2009; Navasca, De Lathauwer and Kindermann 2008 for the held steps.
    """
    tensor = values.astype(np.float64)
    size = float(np.linalg.norm(tensor))
    if not size:
        return Cp(tuple(np.zeros((length, 1), np.float32) for length in tensor.shape), 0.0)
    if rank >= full_rank(tensor.shape):
        return Cp(_exact(tensor), 0.0)
    rng = np.random.default_rng(seed)
    most = max(_FEWEST, min(sweeps, int(_OPERATIONS / (2 * tensor.ndim * tensor.size * rank))))
    best: tuple[list[Array], float] | None = None
    for number in range(starts):
        start = _start(tensor, rank, number, most, rng)
        found = _fitted(tensor / size, start, goal, most)
        if best is None or found[1] < best[1]:
            best = found
        if best[1] <= max(goal, _NOTHING):
            break
    factors, error = best or ([], 1.0)
    scale = size ** (1 / tensor.ndim)
    return Cp(tuple((factor * scale).astype(np.float32) for factor in factors), error)


def cp_within(kernels: Sequence[Array], energy: float, most: int, *, seed: int = 0) -> tuple[Cp, ...]:
    """Each kernel at the least common rank found, up to `most`, that keeps `energy` of each; none: empty.

    By bisection between the bound of `least_rank` and `most`, with short fits: a rank that a longer fit would
    reach may be passed over, never one accepted that does not hold.
    """
    found: tuple[Cp, ...] = ()
    low = max(least_rank(kernel, energy) for kernel in kernels)
    high = min(most, max(full_rank(kernel.shape) for kernel in kernels))
    tried = high
    while low <= high:
        fits: list[Cp] = []
        for kernel in kernels:
            fits.append(cp(kernel, tried, goal=1 - energy, sweeps=_SEARCHED, starts=2, seed=seed))
            if fits[-1].error > 1 - energy:
                break
        if fits[-1].error <= 1 - energy:
            found, high = tuple(fits), tried - 1
        elif not found:
            return ()
        else:
            low = tried + 1
        tried = (low + high) // 2
    return found


def _start(tensor: Array, rank: int, number: int, sweeps: int, rng: np.random.Generator) -> list[Array]:
    if number == 1 and tensor.ndim > 3:
        return _unmerged(tensor, rank, sweeps, rng)
    factors: list[Array] = [rng.normal(size=(size, rank)) for size in tensor.shape]
    if number == 0:
        for axis, drawn in enumerate(factors):
            vectors = np.linalg.svd(_unfolded(tensor, axis), full_matrices=False)[0][:, :rank]
            drawn[:, : vectors.shape[1]] = vectors
    return factors


def _unmerged(tensor: Array, rank: int, sweeps: int, rng: np.random.Generator) -> list[Array]:
    """Factors of the tensor with its last two axes as one, each component's last then cut in two by SVD.

    With fewer, longer axes components are less alike, and the right ones are found from nearly any start.
    """
    shape = tensor.shape[-2:]
    merged = tensor.reshape(*tensor.shape[:-2], -1)
    scaled = merged / np.linalg.norm(merged)
    start = _start(merged, rank, 1 if merged.ndim > 3 else 0, sweeps, rng)
    factors, _ = _fitted(scaled, start, 0.0, min(sweeps, _SEARCHED))
    left, singular, right = np.linalg.svd(factors[-1].T.reshape(-1, *shape), full_matrices=False)
    root = np.sqrt(singular[:, 0])
    return [*factors[:-1], (left[:, :, 0] * root[:, None]).T, (right[:, 0] * root[:, None]).T]


def _fitted(tensor: Array, factors: list[Array], goal: float, sweeps: int) -> tuple[list[Array], float]:
    """The factors after the sweeps, and the squared error that they leave of a tensor of norm one."""
    unfolded = [_unfolded(tensor, axis) for axis in range(tensor.ndim)]
    error = 1.0
    for sweep in range(sweeps):
        before = error
        for axis, matrix in enumerate(unfolded):
            others = factors[:axis] + factors[axis + 1 :]
            wanted = matrix @ _products(others)
            normal = np.prod([factor.T @ factor for factor in others], axis=0)
            held = (1e-3 * min(error, 1.0) + 1e-9) * (float(np.trace(normal)) / len(normal) or 1.0)
            left = normal + held * np.eye(len(normal))
            factors[axis] = np.linalg.solve(left, (wanted + held * factors[axis]).T).T
        # All that the last solution has at hand; differences of squares keep about eight digits.
        crossed = float(np.sum(wanted * factors[-1]))
        error = max(0.0, 1.0 - 2 * crossed + float(np.sum(normal * (factors[-1].T @ factors[-1]))))
        factors = _even(factors)
        gained = before - error
        if error <= max(goal, _NOTHING) or (sweep >= _FEWEST and gained < _STALLED * error):
            break
        if sweep >= _FEWEST and error - goal > gained * (sweeps - sweep):
            break  # Gains shrink from sweep to sweep: the goal is out of reach.
    return factors, error


def _even(factors: list[Array]) -> list[Array]:
    norms = [np.linalg.norm(factor, axis=0) for factor in factors]
    mean = np.prod(norms, axis=0) ** (1 / len(factors))
    return [factor * (mean / np.maximum(norm, 1e-300)) for factor, norm in zip(factors, norms, strict=True)]


def _exact(tensor: Array) -> tuple[Array, ...]:
    """One component a fibre along the longest axis."""
    longest = int(np.argmax(tensor.shape))
    others = [size for axis, size in enumerate(tensor.shape) if axis != longest]
    places = list(np.indices(others).reshape(len(others), -1))
    factors = [
        _unfolded(tensor, longest) if axis == longest else np.eye(size)[:, places.pop(0)]
        for axis, size in enumerate(tensor.shape)
    ]
    return tuple(factor.astype(np.float32) for factor in _even(factors))


def _unfolded(tensor: Array, axis: int) -> Array:
    """The fibres along an axis as columns, the other axes in their order."""
    return np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1).astype(np.float64)


def _products(factors: Sequence[Array]) -> Array:
    """The Khatri-Rao product: column by column the outer product, flat."""
    found = factors[0]
    for factor in factors[1:]:
        found = (found[:, None, :] * factor[None, :, :]).reshape(-1, factor.shape[1])
    return found
