"""Distillation: a small network learns from the answers of a large one, or of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.compress import graph_file as gf
from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.layers import done
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.compress.plan_trainable import Trainable
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.compress.passes.torch_tuning import Columns, Task, Tuned
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class Distil:
    """Trains a student with (1 - a) * hard + a * T^2 * KL (Hinton et al. 2015; see `distil_loss.py`).

    The student is the graph given (say, a pruned one), or with `student="recipe"` what `Trainable.student`
    builds. Teachers are those of the `Trainable`, else the model that the plan started from; several answer
    by the mean of their softened probabilities. Unlabelled rows count in the soft term only. `cosine` adds
    that weight times 1 - cos between the features before the last layer, of the first teacher and the
    student, where they are equally many. For regression the soft term is the squared distance to the
    teachers' mean.
    """

    a: float = option(0.7, "the weight of the teacher's term", low=0, high=1)
    temperature: float = option(4.0, "how soft the teacher's answers are made", low=1, high=100, alias="T")
    epochs: int = option(5, "passes over the rows", low=1, high=1000)
    rate: float = option(1e-3, "the largest learning rate", low=1e-7, high=1.0)
    batch: int = option(64, "rows a step", low=1, high=65536)
    cosine: float = option(0.0, "the weight of the features' term", low=0, high=100)
    student: str = option("graph", "who learns", choices=("graph", "recipe"))

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled("distil", self)

    def train(self, model: Model, calibration: Tensors, trainable: Trainable) -> Compressed:
        """The student as a model; zeros of a pruned graph stay zero."""
        from modelyard.compress.passes.torch_tuning import columns, task_of

        if not trainable.teachers:
            raise CompressError("distillation needs a teacher", fix="give Trainable.teachers")
        for teacher in trainable.teachers:
            if (teacher.signature, teacher.task, teacher.labels) != (
                model.signature,
                model.task,
                model.labels,
            ):
                raise CompressError(
                    "a teacher answers another question than the student", value=teacher.digest
                )
        task = task_of(trainable)
        extra = len(next(iter(trainable.unlabelled.values()))) if trainable.unlabelled else 0
        every = {
            name: np.concatenate([values, trainable.unlabelled[name]]) if extra else values
            for name, values in trainable.dataset.train.items()
        }
        pupil = _Pupil(self, trainable, task, columns(every), extra, self._soft(trainable, every))
        result, found = pupil.graph(model) if self.student == "graph" else pupil.recipe(model)
        told = f"{len(trainable.teachers)} teacher" + ("s" if len(trainable.teachers) > 1 else "")
        rows = (
            f"{len(task.targets)} labelled and {extra} unlabelled rows"
            if extra
            else f"{len(task.targets)} rows"
        )
        return Compressed(result.model, (f"taught by {told} on {rows}", found.note(), *result.notes))

    def _soft(self, trainable: Trainable, rows: Tensors) -> Any:
        """What the teachers say of every row: softened probabilities, or the mean of predictions."""
        import torch

        from modelyard.compress.distil_loss import mean_teacher
        from modelyard.compress.passes.torch_tuning import answers

        said = [answers(teacher, rows) for teacher in trainable.teachers]
        if not all(bool(torch.isfinite(item).all()) for item in said):
            raise CompressError("a teacher answers with NaN", fix="leave out rows that it cannot answer")
        if trainable.dataset.task == "classification":
            return mean_teacher(said, self.temperature)
        return torch.stack(said).mean(dim=0)


@dataclass(frozen=True, slots=True)
class _Pupil:
    """What is learned from: all rows, labelled ones first, and what the teachers say of them."""

    step: Distil
    trainable: Trainable
    task: Task
    rows: Columns
    extra: int
    soft: Any

    def graph(self, model: Model) -> tuple[Compressed, Tuned]:
        from modelyard.compress.passes.torch_graph import GraphModule
        from modelyard.compress.prune_keep import sparse_masks

        module = GraphModule(gf.parse(model))
        masks = sparse_masks(module.layer_weights().values(), module.codebooks())
        seen: list[Any] = []
        main = module.logits or module.output

        def forward(columns: Columns) -> Any:
            if not self.step.cosine or not module.training:
                return module(columns)
            output, features = module.run(columns, (main, module.features()))
            seen[:] = [features]
            if module.output == "prediction" or module.logits:
                return output.flatten(1)
            return output.clamp_min(1e-7).log()

        found = self._taught(module, forward, seen, masks)
        kept = (f"{len(masks)} layers keep their zeros",) if masks else ()
        return done(module.written(), model, kept), found

    def recipe(self, model: Model) -> tuple[Compressed, Tuned]:
        from modelyard.compress.passes.torch_recipe import built_answer, graph_of

        given = self.trainable.student
        if given is None:
            raise CompressError(
                "no student is given", fix="give Trainable.student, a recipe and its parameters"
            )
        data = self.trainable.dataset
        answer = built_answer(given[0], given[1], data)
        seen: list[Any] = []
        handle = _watch_features(answer, seen) if self.step.cosine else None

        def forward(columns: Columns) -> Any:
            output = answer.module(*answer.arguments(tuple(columns[name] for name in data.features)))
            if answer.classes:
                return output.float()
            return output.float().reshape(-1, 1) * answer.target_scale + answer.target_mean

        found = self._taught(answer, forward, seen, {}, keep_first=False)
        if handle is not None:
            handle.remove()
        student = graph_of(answer, {name: values[:256] for name, values in data.train.items()}, data)
        count = sum(weight.numel() for weight in answer.parameters())
        return Compressed(gf.reread(student.onnx, model), (f"the student has {count} weights",)), found

    def _taught(
        self,
        module: Any,
        forward: Callable[[Columns], Any],
        seen: list[Any],
        masks: Any,
        *,
        keep_first: bool = True,
    ) -> Tuned:
        import torch
        from torch.nn import functional

        from modelyard.compress.distil_loss import cosine, hinton
        from modelyard.compress.passes.torch_tuning import schedule, taken, tune

        task, step = self.task, self.step
        none = torch.full((self.extra,), -1 if task.classes else float("nan"), dtype=task.targets.dtype)
        targets = torch.cat([task.targets, none])
        taught = self._teacher_features() if step.cosine else None

        def loss(places: Any) -> Any:
            output = forward(taken(self.rows, places))
            if task.classes:
                value = hinton(output, targets[places], self.soft[places], step.a, step.temperature)
            else:
                wanted = (self.soft[places].reshape(-1) - task.mean) / task.scale
                value = step.a * functional.mse_loss((output.reshape(-1) - task.mean) / task.scale, wanted)
                known = ~torch.isnan(targets[places])
                if step.a < 1 and bool(known.any()):
                    value = value + (1 - step.a) * task.hard(output[known], targets[places][known])
            if taught is not None:
                if seen[0].flatten(1).shape[1] != taught.shape[1]:
                    raise CompressError(
                        "the features of student and teacher are not equally many",
                        value=seen[0].flatten(1).shape[1], rule=str(taught.shape[1]), fix="leave cosine at 0",
                    )  # fmt: skip
                value = value + step.cosine * cosine(seen[0], taught[places])
            return value

        return tune(
            module, forward, loss, task, schedule(step, self.trainable), rows=len(targets), masks=masks,
            keep_first=keep_first,
        )  # fmt: skip

    def _teacher_features(self) -> Any:
        """The first teacher's features of every row [rows, features]."""
        import torch

        from modelyard.compress.passes.torch_graph import GraphModule
        from modelyard.compress.passes.torch_tuning import taken

        module = GraphModule(gf.parse(self.trainable.teachers[0]))
        count = len(next(iter(self.rows.values())))
        with torch.no_grad():
            parts = torch.split(torch.arange(count), 256)
            return torch.cat(
                [module.run(taken(self.rows, part), (module.features(),))[0].flatten(1) for part in parts]
            )


def _watch_features(answer: Any, seen: list[Any]) -> Any:
    """Keeps what the student's last linear layer reads; the handle takes the watching off again."""
    import torch

    layers = [part for part in answer.modules() if isinstance(part, torch.nn.Linear)]
    if not layers:
        raise CompressError("the student has no linear layer to take features from", fix="leave cosine at 0")

    def keep(module: Any, given: Any) -> None:
        seen[:] = [given[0]]

    return layers[-1].register_forward_pre_hook(keep)
