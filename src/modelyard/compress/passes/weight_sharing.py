"""Weight sharing: every layer's weights become a few values (Deep Compression's second stage)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.layers import done, editable, fresh, put, some_layers
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.compress.sharing_clusters import assign, clusters
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class WeightSharing:
    """A codebook a layer by k-means (Han, Mao and Dally 2016, arXiv:1510.00149).

    `bits` for matrices and `conv_bits` for convolutions say how many values a layer may have. Zeros stay
    zeros, so pruning before this is kept. With `store="plain"` the graph holds ordinary float weights with
    few distinct values, which `sharing_file.pack` stores in a few bits each; with "codebook" the graph itself
    holds eight-bit indices and a small table that the runtime looks up once, when it loads: a quarter of the
    file, at the same speed.
    """

    bits: int = option(5, "2^bits values for a matrix", low=1, high=8)
    conv_bits: int = option(8, "2^conv_bits values for a convolution", low=1, high=8)
    store: str = option("codebook", "how the graph holds them", choices=("codebook", "plain"))

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled("share", self)

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """The model with shared weights; needs no calibration."""
        proto = editable(model)
        found, left = some_layers(proto)
        notes: list[str] = []
        lookups: list[Any] = []
        for layer in found:
            count = 2 ** (self.conv_bits if layer.kind == "Conv" else self.bits)
            if layer.values.size <= 2 * count:
                notes.append(f"{layer.kind} {layer.name!r}: stays, {layer.values.size} weights are too few")
                continue
            centres = clusters(layer.values, count)
            places = assign(layer.values, centres)
            error = float(np.square(layer.values - centres[places], dtype=np.float64).sum())
            whole = float(np.square(layer.values, dtype=np.float64).sum())
            notes.append(
                f"{layer.kind} {layer.name!r}: {len(centres)} values, "
                f"error {100 * error / (whole or 1):.2g} % of energy"
            )
            if self.store == "plain":
                put(proto, layer.weight, centres[places])
            else:
                lookups += _lookup(proto, layer.weight, centres, places)
        changed = sum("values, error" in note for note in notes)
        if not changed:
            raise CompressError(
                "does not apply: no layer has weights enough to share", value="; ".join(notes[:3])
            )
        rest = [type(node).FromString(node.SerializeToString()) for node in proto.graph.node]
        del proto.graph.node[:]
        proto.graph.node.extend([*lookups, *rest])
        return done(proto, model, (f"{changed} of {len(found)} layers share their weights", *notes, *left))


def _lookup(proto: Any, weight: str, centres: Any, places: Any) -> list[Any]:
    """Nodes that make the weights from a table; all constant, so the runtime folds them at load."""
    import onnx

    table, indices, wide = (fresh(proto, f"{weight}_{part}") for part in ("values", "places", "wide"))
    for index, item in enumerate(proto.graph.initializer):
        if item.name == weight:
            del proto.graph.initializer[index]
            break
    exact = np.flatnonzero(centres == 0)
    if len(exact):
        # Pruned weights get the index 0, so that the stored file can leave them out.
        places = np.where(places == exact[0], 0, places + (places < exact[0])).astype(places.dtype)
        centres = np.concatenate([centres[exact], np.delete(centres, exact)])
    put(proto, table, centres)
    put(proto, indices, places)
    return [
        onnx.helper.make_node("Cast", [indices], [wide], to=onnx.TensorProto.INT32),
        onnx.helper.make_node("Gather", [table, wide], [weight], axis=0),
    ]
