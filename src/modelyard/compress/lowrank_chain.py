"""A convolution as a chain of thinner ones: what each covers, its attributes, and what it multiplies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution moves over its picture, spatial axis by spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    automatic: str = "NOTSET"
    group: int = 1

    def attributes(self, axes: Sequence[int], group: int) -> dict[str, Any]:
        """Of a convolution in `group` groups that covers these axes and is pointwise on all others.

        Padding is with zeros, which a convolution without bias keeps: each axis may be padded by whichever
        part of the chain covers it.
        """
        chosen = range(len(self.kernel))
        found: dict[str, Any] = {
            "kernel_shape": [self.kernel[axis] if axis in axes else 1 for axis in chosen],
            "strides": [self.strides[axis] if axis in axes else 1 for axis in chosen],
            "dilations": [self.dilations[axis] if axis in axes else 1 for axis in chosen],
            "group": group,
        }
        if self.automatic != "NOTSET":
            return {**found, "auto_pad": self.automatic if axes else "VALID"}
        ends = [[self.pads[axis][side] if axis in axes else 0 for axis in chosen] for side in (0, 1)]
        return {**found, "pads": ends[0] + ends[1]}

    def after(self, sizes: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
        """The picture's sizes once these axes are covered."""
        found = list(sizes)
        for axis in axes:
            reach = self.dilations[axis] * (self.kernel[axis] - 1)
            if self.automatic.startswith("SAME"):
                found[axis] = -(-sizes[axis] // self.strides[axis])
            else:
                pads = 0 if self.automatic == "VALID" else sum(self.pads[axis])
                found[axis] = (sizes[axis] + pads - reach - 1) // self.strides[axis] + 1
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Part:
    """One convolution of a chain: its kernel `[out, in / group, *k]`, and the axes that it covers."""

    kernel: Array
    axes: tuple[int, ...] = ()
    group: int = 1


def window_of(kernel: Sequence[int], attributes: Mapping[str, Any]) -> Window:
    """The window of a Conv node with that kernel and those attributes, ONNX's defaults filled in."""
    rank = len(kernel)
    pads = list(attributes.get("pads", [0] * (2 * rank)))
    automatic = attributes.get("auto_pad", b"NOTSET")
    return Window(
        tuple(kernel),
        tuple(attributes.get("strides", [1] * rank)),
        tuple(attributes.get("dilations", [1] * rank)),
        tuple(zip(pads[:rank], pads[rank:], strict=True)),
        automatic.decode() if isinstance(automatic, bytes) else str(automatic),
        int(attributes.get("group", 1)),
    )


def weights_of(parts: Sequence[Part]) -> int:
    """How many weights a chain has."""
    return sum(part.kernel.size for part in parts)


def macs_of(parts: Sequence[Part], window: Window, sizes: Sequence[int]) -> int:
    """Multiply-accumulates of a chain over one picture of these spatial sizes."""
    total, now = 0, tuple(sizes)
    for part in parts:
        now = window.after(now, part.axes)
        total += part.kernel.size * math.prod(max(size, 0) for size in now)
    return total


def whole(window: Window) -> tuple[int, ...]:
    """Every spatial axis."""
    return tuple(range(len(window.kernel)))


def pointwise_chain(first: Array, second: Array, window: Window) -> tuple[Part, ...]:
    """A pointwise convolution as two, from the factors `[in, r]` and `[r, out]` of its matrix."""
    tail = (1,) * len(window.kernel)
    return Part(first.T.reshape(*first.T.shape, *tail), whole(window)), Part(
        second.T.reshape(*second.T.shape, *tail)
    )


def tucker_chain(outer: Array, core: Array, inner: Array, window: Window) -> tuple[Part, ...]:
    """Pointwise, a small spatial one, pointwise, from the factors of `tucker2`."""
    tail = (1,) * len(window.kernel)
    return (
        Part(inner.reshape(*inner.shape, *tail)),
        Part(core, whole(window)),
        Part(outer.reshape(*outer.shape, *tail)),
    )


def cp_chain(groups: Sequence[Sequence[Array]], window: Window) -> tuple[Part, ...]:
    """Pointwise, one filter a channel along each spatial axis in turn, pointwise.

    `groups` holds, for each group of the convolution, the factors of its kernel: out, in, and each axis
    whose kernel is above one. The first filter also does what the other axes ask for (strides, pads).
    """
    rank = groups[0][0].shape[1]
    tail = (1,) * len(window.kernel)
    wide = [axis for axis in whole(window) if window.kernel[axis] > 1]
    inner = np.concatenate([factors[1].T for factors in groups])
    parts = [Part(inner.reshape(*inner.shape, *tail), (), len(groups))]
    for place, axis in enumerate(wide):
        covered = tuple(other for other in whole(window) if other not in wide) if place == 0 else ()
        filters = np.concatenate([factors[2 + place].T for factors in groups])
        shape = [1] * len(tail)
        shape[axis] = window.kernel[axis]
        parts.append(
            Part(filters.reshape(-1, 1, *shape), tuple(sorted((axis, *covered))), rank * len(groups))
        )
    outer = np.concatenate([factors[0] for factors in groups])
    return (*parts, Part(outer.reshape(*outer.shape, *tail), (), len(groups)))
