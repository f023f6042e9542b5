"""Gradual magnitude pruning: a little more each round, trained in between; or lottery-ticket rewinding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.compress import graph_file as gf
from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.layers import array_of, done, share
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.compress.plan_trainable import Trainable
from modelyard.compress.prune_mask import SCOPES, cubic
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class GradualPrune:
    """Prunes to `sparsity` in `rounds`, along Zhu and Gupta's cubic (arXiv:1710.01878), training after each.

    With `rewind` every round but its mask is forgotten: the weights that stay go back to what the recipe's
    module started from and are trained anew (iterative magnitude pruning, Frankle and Carbin 2019,
    arXiv:1803.03635). The graph is trained as it is served, its batch norms folded; a recipe whose first
    graph has other constants than the model cannot be rewound.
    """

    sparsity: float = option(0.8, "the share of weights that become zero", low=0.01, high=0.999)
    rounds: int = option(4, "prunings, with training after each", low=1, high=100)
    epochs: int = option(2, "passes over the training rows after each round", low=1, high=1000)
    rate: float = option(1e-3, "the largest learning rate of a round", low=1e-7, high=1.0)
    batch: int = option(64, "rows a step", low=1, high=65536)
    scope: str = option("lamp", "how the share is spread over the layers", choices=SCOPES)
    rewind: bool = option(False, "go back to the first weights after each round")

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled("prune-gradually", self)

    def train(self, model: Model, calibration: Tensors, trainable: Trainable) -> Compressed:
        """The sparse, trained model; the shapes are as before."""
        import torch

        from modelyard.compress.passes.torch_graph import GraphModule
        from modelyard.compress.passes.torch_tuning import schedule, taken, task_of, tune
        from modelyard.compress.prune_keep import magnitude_masks

        module, task = GraphModule(gf.parse(model)), task_of(trainable)
        layers = module.layer_weights()
        if not layers:
            raise CompressError("does not apply: no layer has weights that can be pruned")
        first = _first_weights(model, trainable) if self.rewind else {}
        notes = []
        masks: dict[torch.nn.Parameter, torch.Tensor] = {}
        for number in range(1, self.rounds + 1):
            part = cubic(0.0, self.sparsity, number, self.rounds)
            masks = magnitude_masks(layers, part, self.scope)
            with torch.no_grad():
                for name, weight in module.named().items() if self.rewind else ():
                    weight.copy_(torch.from_numpy(first[name]))
            found = tune(
                module, module, lambda rows: task.hard(module(taken(task.train, rows)), task.targets[rows]),
                task, schedule(self, trainable), masks=masks,
            )  # fmt: skip
            notes.append(f"round {number}: {100 * part:.3g} % zero, {found.note()}")
        zeros, total = (
            sum(int((~mask).sum()) for mask in masks.values()),
            sum(m.numel() for m in masks.values()),
        )
        head = f"{zeros} of {total} weights are zero ({share(zeros, total)}); the shapes are as before"
        rewound = ("each round began from the recipe's first weights",) if self.rewind else ()
        return done(module.written(), model, (head, *rewound, *notes))


def _first_weights(model: Model, trainable: Trainable) -> dict[str, Any]:
    """The constants of the graph of what the recipe builds, before any training."""
    recipe = trainable.require_recipe("rewinding goes back to the weights that it starts from")
    from modelyard.compress.passes.torch_recipe import built_answer, graph_of

    data = trainable.dataset
    rows = {name: values[:16] for name, values in data.train.items()}
    graph = graph_of(built_answer(recipe, trainable.params, data), rows, data)
    found = {item.name: array_of(item) for item in gf.parse(graph).graph.initializer}
    for item in gf.parse(model).graph.initializer:
        if item.name not in found or list(found[item.name].shape) != list(item.dims):
            raise CompressError(
                "the recipe's first graph is not this model's", value=item.name,
                rule="the same constants in the same shapes",
                fix="rewind before any pass that changes the graph",
            )  # fmt: skip
    return found
