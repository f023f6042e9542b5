"""Low-rank factorisation: one matrix product becomes two thin ones, one convolution several cheap ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.compress.lowrank_chain import (
    Part,
    Window,
    cp_chain,
    macs_of,
    pointwise_chain,
    tucker_chain,
    weights_of,
    window_of,
)  # fmt: skip
from modelyard.compress.lowrank_cp import cp, cp_within, full_rank
from modelyard.compress.lowrank_factors import svd_factors, tucker2
from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.layers import (
    Array,
    Layer,
    attribute,
    done,
    editable,
    fresh,
    known_shapes,
    put,
    replace_node,
    share,
    some_layers,
)  # fmt: skip
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class LowRank:
    """Factorises each layer to the least rank that keeps `energy` of its squared weights, or to `rank`.

    Gemm and MatMul by SVD, pointwise convolutions too. Other convolutions by `method`: "tucker" into a
    pointwise, a small spatial and a pointwise one (Tucker-2; not those in groups), "cp" into a pointwise one,
    a filter a channel along each axis and a pointwise one (Lebedev et al. 2015, arXiv:1412.6553), which is
    smaller at the same rank and needs a higher one. A layer is changed only where at most `gain` of its
    weights and of its multiplications is left; a convolution over pictures of unknown size stays. Sources:
    `lowrank_factors.py`, `lowrank_cp.py`.
    """

    energy: float = option(0.95, "the share of squared weights that is kept", low=0.05, high=0.9999)
    gain: float = option(0.8, "a layer is changed when at most this share of it is left", low=0.05, high=1.0)
    layers: str = option("all", "which layers", choices=("all", "matrices", "convolutions"))
    method: str = option("tucker", "how convolutions are factorised", choices=("tucker", "cp"))
    rank: int = option(0, "the rank of every layer that is changed; 0: by energy", low=0, high=65536)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled("low-rank", self)

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """The factorised model; `CompressError` when no layer is worth it. Needs no calibration."""
        proto = editable(model)
        found, left = some_layers(proto)
        shapes = known_shapes(proto)
        notes: list[str] = []
        changed = 0
        for layer in found:
            if self.layers != "all" and (layer.kind == "Conv") != (self.layers == "convolutions"):
                continue
            thin = self._thin(layer, shapes.get(layer.node.input[0]))
            if isinstance(thin, str):
                notes.append(f"{layer.kind} {layer.name!r}: stays, {thin}")
                continue
            replace_node(proto, _same(proto, layer), thin.nodes(proto, layer))
            changed += 1
            notes.append(f"{layer.kind} {layer.name!r}: {thin.told}")
        if not changed:
            raise CompressError(
                f"does not apply: no layer is {self.name} with at most {self.gain:g} of it left",
                value="; ".join(notes[:4]) or None, fix="lower the energy",
            )  # fmt: skip
        return done(proto, model, (f"{changed} of {len(found)} layers factorised", *notes, *left))

    def _thin(self, layer: Layer, shape: Sequence[int | None] | None) -> _Product | _Chain | str:
        """What takes the layer's place, or why it stays."""
        if layer.kind != "Conv":
            first, second = svd_factors(layer.matrix(), self.energy, self.rank)
            size, rank = first.size + second.size, first.shape[1]
            if size > self.gain * layer.values.size:
                return f"{share(size, layer.values.size)} would be left"
            return _Product(first, second, f"rank {rank}, {share(size, layer.values.size)} left")
        attributes = ("strides", "dilations", "pads", "auto_pad", "group")
        given = {name: attribute(layer.node, name, None) for name in attributes}
        kernel = layer.values.shape[2:]
        window = window_of(kernel, {name: value for name, value in given.items() if value is not None})
        whole = (Part(layer.values, tuple(range(len(kernel))), window.group),)
        sizes = None if shape is None else [size or 0 for size in shape[2:]]
        pointwise = all(size == 1 for size in kernel)
        if not pointwise and (not sizes or not all(sizes)):
            return "the size of its picture is not known"
        # A pointwise chain works where the convolution does, so its weights tell its multiplications too.
        macs = 0 if pointwise else macs_of(whole, window, sizes or ())
        parts = self._parts(layer.values, window, macs, sizes or ())
        if isinstance(parts, str):
            return parts
        weights = weights_of(parts) / layer.values.size
        work = macs_of(parts, window, sizes or ()) / macs if macs else weights
        told = f"{share(weights, 1)} left"
        if abs(work - weights) > 0.01 * weights:
            told = f"{share(weights, 1)} of its weights and {share(work, 1)} of its multiplications left"
        if max(weights, work) > self.gain:
            return told.replace("left", "would be left")
        return _Chain(parts, window, f"rank {_ranks(parts)}, {told}")

    def _parts(
        self, values: Array, window: Window, macs: int, sizes: Sequence[int]
    ) -> tuple[Part, ...] | str:
        if window.group == 1 and all(size == 1 for size in window.kernel):
            matrix = values.reshape(len(values), -1).T
            return pointwise_chain(*svd_factors(matrix, self.energy, self.rank), window)
        if self.method == "cp" and any(size > 1 for size in window.kernel):
            return self._cp(values, window, macs, sizes)
        if window.group != 1:
            return "it has groups"
        return tucker_chain(*tucker2(values, self.energy, rank=self.rank), window)

    def _cp(self, values: Array, window: Window, macs: int, sizes: Sequence[int]) -> tuple[Part, ...] | str:
        wide = [size for size in window.kernel if size > 1]
        kernels = [part.reshape(*part.shape[:2], *wide) for part in np.split(values, window.group)]
        probe = [[np.zeros((size, 1), np.float32) for size in kernels[0].shape]] * window.group
        one = cp_chain(probe, window)
        # Weights and multiplications grow with the rank in proportion, so both bound it.
        most = int(self.gain * min(values.size / weights_of(one), macs / max(1, macs_of(one, window, sizes))))
        if self.rank:
            rank = min(self.rank, max(full_rank(kernel.shape) for kernel in kernels))
            found = tuple(cp(kernel, rank) for kernel in kernels)
        else:
            found = cp_within(kernels, self.energy, most) if most else ()
        if not found:
            return f"no rank up to {most} keeps {self.energy:g} of its energy"
        # A kernel of nothing but zeros is told with one component, which must be as many as the others'.
        rank = max(item.rank for item in found)
        return cp_chain(
            [[np.pad(f, ((0, 0), (0, rank - f.shape[1]))) for f in item.factors] for item in found], window
        )


@dataclass(frozen=True, slots=True)
class _Product:
    """The two factors of a matrix product, and a word about them."""

    first: Array
    second: Array
    told: str

    def nodes(self, proto: Any, layer: Layer) -> list[Any]:
        import onnx

        down = fresh(proto, f"{layer.weight}_down")
        put(proto, down, self.first)
        up = fresh(proto, f"{layer.weight}_up")
        put(proto, up, np.ascontiguousarray(self.second.T) if layer.transposed else self.second)
        between = fresh(proto, f"{layer.name}_thin")
        last = type(layer.node)()
        last.CopyFrom(layer.node)
        last.input[0], last.input[1] = between, up
        # A Gemm's alpha scales the whole product, so it stays with the last factor alone.
        return [onnx.helper.make_node("MatMul", [layer.node.input[0], down], [between]), last]


@dataclass(frozen=True, slots=True)
class _Chain:
    """The convolutions in a convolution's place, and a word about them."""

    parts: tuple[Part, ...]
    window: Window
    told: str

    def nodes(self, proto: Any, layer: Layer) -> list[Any]:
        import onnx

        made = []
        now = layer.node.input[0]
        for index, part in enumerate(self.parts):
            name = fresh(proto, f"{layer.weight}_{index}")
            put(proto, name, part.kernel)
            end = index == len(self.parts) - 1
            inputs = [now, name, *(layer.node.input[2:] if end else [])]
            now = layer.node.output[0] if end else fresh(proto, f"{layer.name}_thin{index}")
            attributes = self.window.attributes(part.axes, part.group)
            made.append(onnx.helper.make_node("Conv", inputs, [now], **attributes))
        return made


def _ranks(parts: tuple[Part, ...]) -> str:
    """Of a Tucker core its two sizes, else the one between the first two parts."""
    core = parts[1]
    if len(parts) == 3 and core.group == 1:
        return f"{core.kernel.shape[0]} x {core.kernel.shape[1]}"
    return str(parts[0].kernel.shape[0] // parts[0].group)


def _same(proto: Any, layer: Layer) -> Any:
    """The layer's node in the graph as it is now: earlier edits made copies."""
    return next(node for node in proto.graph.node if list(node.output) == list(layer.node.output))
