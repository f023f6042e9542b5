"""Magnitude pruning: the smallest weights become zero."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.layers import done, editable, put, share, some_layers
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.compress.prune_mask import SCOPES, fractions, n_of_m, smallest
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model

_PATTERN = re.compile(r"([1-9][0-9]?):([1-9][0-9]?)\Z")


@dataclass(frozen=True, slots=True)
class MagnitudePrune:
    """Sets the weights of least magnitude to zero, in place (Han et al. 2015, arXiv:1506.02626).

    `pattern` is "free" (any weight, `sparsity` of them) or "N:M", which keeps N of every M weights that lie
    in a row along a layer's inputs (Mishra et al. 2021, arXiv:2104.08378). `scope` says what each layer
    loses: "lamp" shares it out by what it costs a layer (`prune_mask.lamp_scores`), "global" by one
    threshold on magnitudes, "layer" gives each the same share, which ruins small first layers early
    (`benchmarks/compress/curves.py` draws all three). The graph keeps its shapes: a dense runtime is not
    faster and the plain file not smaller, the stored file (`sharing_file.pack`) is.
    """

    sparsity: float = option(0.5, "the share of weights that become zero", low=0.01, high=0.999)
    pattern: str = option("free", '"free", or "N:M"')
    scope: str = option("lamp", "how the share is spread over the layers", choices=SCOPES)

    def __post_init__(self) -> None:
        check_options(self)
        if self.pattern != "free":
            self._counts()

    @property
    def name(self) -> str:
        return spelled("prune", self)

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """The model with zeros; needs no calibration."""
        proto = editable(model)
        found, left = some_layers(proto)
        matrices = [layer.matrix() for layer in found]
        if self.pattern == "free":
            shares = fractions(matrices, self.sparsity, self.scope)
            masks = [smallest(matrix, part) for matrix, part in zip(matrices, shares, strict=True)]
        else:
            kept, of = self._counts()
            masks = [n_of_m(matrix, kept, of) for matrix in matrices]
        notes = []
        for layer, mask in zip(found, masks, strict=True):
            stored = mask.T.reshape(layer.values.shape) if layer.kind == "Conv" or layer.transposed else mask
            # A product with zero would leave negative zeros, a second value for what is one.
            put(proto, layer.weight, np.where(stored, layer.values, np.float32(0)))
            notes.append(f"{layer.kind} {layer.name!r}: {share((~mask).sum(), mask.size)} zero")
        zeros, total = sum(int((~mask).sum()) for mask in masks), sum(mask.size for mask in masks)
        if zeros == 0:
            raise CompressError("does not apply: no weight is small enough to go", rule=self.name)
        first = f"{zeros} of {total} weights are zero ({share(zeros, total)}); the shapes are as before"
        return done(proto, model, (first, *notes, *left))

    def _counts(self) -> tuple[int, int]:
        match = _PATTERN.match(self.pattern)
        if match is None or int(match[1]) >= int(match[2]):
            raise CompressError(
                "the pruning pattern is wrong", value=self.pattern, rule='"free", or "N:M" with N below M',
                fix='for example "2:4"',
            )  # fmt: skip
        return int(match[1]), int(match[2])
