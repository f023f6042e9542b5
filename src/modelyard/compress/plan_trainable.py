"""What a pass that trains is given beside the model: rows with targets, teachers, and the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.compress.pass_protocol import Compressed
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors
from modelyard.train.dataset import Dataset
from modelyard.train.fit import Fitted, fit
from modelyard.train.recipe import Recipe

if TYPE_CHECKING:
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class Trainable:
    """The recipe, its parameters and the data set that a model came from, for passes that train.

    Passes train the ONNX graph itself, on `dataset`'s training part, and keep the epoch that is best on its
    validation part; only a student of its own (`student`, or the recipe with other parameters) and
    lottery-ticket rewinding run the recipe, through `fit` or its build function. `teachers` answer for
    distillation (their mean; the model that a plan starts from when there is none), `unlabelled` are more
    rows for it. The seed decides everything random.
    """

    recipe: Recipe | None
    params: Mapping[str, Any]
    dataset: Dataset
    fit: Callable[..., Fitted] = fit
    teachers: tuple[Model, ...] = ()
    student: tuple[Recipe, Mapping[str, Any]] | None = None
    unlabelled: Tensors = field(default_factory=dict)
    seed: int = 0
    threads: int = 1

    def taught_by(self, *teachers: Model) -> Trainable:
        """The same with these teachers, where it has none of its own."""
        return self if self.teachers else replace(self, teachers=teachers)

    def require_recipe(self, why: str) -> Recipe:
        """The recipe; `CompressError` that says what needs it where there is none."""
        if self.recipe is None:
            raise CompressError("this pass needs the recipe that made the model", value=why)
        return self.recipe

    def require_fit_for(self, model: Model) -> None:
        """Raises `CompressError` unless the data set's rows and targets are those of the model."""
        names = [spec.name for spec in model.signature.inputs]
        if sorted(self.dataset.train) != sorted(names):
            raise CompressError(
                "the training rows do not fit the model",
                value=sorted(self.dataset.train),
                rule=str(sorted(names)),
            )
        if self.dataset.task != model.task or (model.labels and self.dataset.labels != model.labels):
            raise CompressError(
                "the training targets do not fit the model",
                value=f"{self.dataset.task}, {len(self.dataset.labels)} labels",
                rule=f"{model.task}, {len(model.labels)} labels",
            )
        extra = sorted(self.unlabelled)
        if extra and extra != sorted(names):
            raise CompressError(
                "the unlabelled rows do not fit the model", value=extra, rule=str(sorted(names))
            )


class TrainedPass(Protocol):
    """A pass that learns: `train` is called once, with what `Pass.apply` gets and a `Trainable`.

    It keeps what `Pass` keeps: the model given is not changed, nothing is printed or written, `CompressError`
    when it does not apply. The same arguments give the same model.
    """

    @property
    def name(self) -> str: ...

    def train(self, model: Model, calibration: Tensors, trainable: Trainable) -> Compressed:
        """A new model with the same signature, task and labels."""
        ...


@dataclass(frozen=True, slots=True)
class Bound:
    """A pass that learns together with what it learns from: an ordinary `Pass`."""

    step: TrainedPass
    trainable: Trainable

    @property
    def name(self) -> str:
        return self.step.name

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """What the step makes of the model, which is also the teacher where there is no other."""
        self.trainable.require_fit_for(model)
        return self.step.train(model, calibration, self.trainable.taught_by(model))
