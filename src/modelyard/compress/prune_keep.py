"""Masks of torch weights: which are kept zero while a network trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from modelyard.compress.prune_mask import fractions, smallest

_MANY = 0.05


def sparse_masks(
    weights: Iterable[torch.nn.Parameter], tables: Iterable[torch.nn.Parameter] = ()
) -> dict[torch.nn.Parameter, torch.Tensor]:
    """True where a weight is not zero, for each weight of which at least a twentieth is.

    In the table of a codebook one value stands for many weights, so there a single zero is kept.
    """
    found = {weight: weight.detach() != 0 for weight in weights}
    masks = {weight: mask for weight, mask in found.items() if float((~mask).float().mean()) >= _MANY}
    books = {table: table.detach() != 0 for table in tables}
    return masks | {table: mask for table, mask in books.items() if not bool(mask.all())}


def magnitude_masks(
    weights: Mapping[str, torch.nn.Parameter], sparsity: float, scope: str
) -> dict[torch.nn.Parameter, torch.Tensor]:
    """True for the weights that stay at this sparsity, spread over the layers as `fractions` says."""
    values = [weight.detach().numpy() for weight in weights.values()]
    shares = fractions(values, sparsity, scope)
    return {
        weight: torch.from_numpy(smallest(array, part))
        for weight, array, part in zip(weights.values(), values, shares, strict=True)
    }
