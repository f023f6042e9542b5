"""Fine-tuning: more epochs on the graph's own weights, with what earlier passes did kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.compress import graph_file as gf
from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.layers import done
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.compress.plan_trainable import Trainable
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class FineTune:
    """Trains the graph on the training rows and keeps the epoch that validates best.

    Zeros of a layer that has many stay zero (pruning is kept) unless `zeros` is false; a codebook's table
    learns while its indices stay (Deep Compression's trained centroids, arXiv:1510.00149, section 3.3).
    """

    epochs: int = option(3, "passes over the training rows", low=1, high=1000)
    rate: float = option(1e-3, "the largest learning rate", low=1e-7, high=1.0)
    batch: int = option(64, "rows a step", low=1, high=65536)
    zeros: bool = option(True, "pruned weights stay zero")

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled("tune", self)

    def train(self, model: Model, calibration: Tensors, trainable: Trainable) -> Compressed:
        """The model with trained weights; `CompressError` when nothing in it can learn."""
        from modelyard.compress.passes.torch_graph import GraphModule
        from modelyard.compress.passes.torch_tuning import schedule, taken, task_of, tune
        from modelyard.compress.prune_keep import sparse_masks

        module, task = GraphModule(gf.parse(model)), task_of(trainable)
        masks = sparse_masks(module.layer_weights().values(), module.codebooks()) if self.zeros else {}
        found = tune(
            module, module, lambda rows: task.hard(module(taken(task.train, rows)), task.targets[rows]),
            task, schedule(self, trainable), masks=masks,
        )  # fmt: skip
        kept = (f"{len(masks)} layers keep their zeros",) if masks else ()
        return done(module.written(), model, (found.note(), *kept))
