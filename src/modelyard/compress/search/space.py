"""What a search may try: families of plans, each with options, on one or several engines."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from modelyard.compress.catalogue import PASSES
from modelyard.compress.pass_protocol import Compressed, Pass
from modelyard.core.digest import JSON
from modelyard.core.spec import Tensors
from modelyard.model.model import Model

Value: TypeAlias = bool | int | float | str
Options: TypeAlias = Mapping[str, Value]
Make: TypeAlias = Callable[[Options], Pass]
"""From options to what is applied: a pass, or several in a `Chain`."""

HOME = "onnxruntime"
"""The engine that the original runs on."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Passes one after the other, as one pass; `name` joins theirs with ">"."""

    steps: tuple[Pass, ...]

    @property
    def name(self) -> str:
        return ">".join(step.name for step in self.steps)

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        """What the last step gives; raises what a step raises."""
        notes: list[str] = []
        for step in self.steps:
            made = step.apply(model, calibration)
            model = made.model
            notes.extend(f"{step.name}: {note}" for note in made.notes)
        return Compressed(model, tuple(notes))


@dataclass(frozen=True, slots=True)
class Family:
    """Plans that differ in their options only.

    `options` lists each option's values, the one to begin with first. `make` gives the plan for chosen
    options. A plan that trains names in `sketch` a plan that gives a graph of the same size and operators
    without training, so that hard limits are known before an hour is spent.
    """

    name: str
    make: Make = field(repr=False)
    options: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    sketch: Make | None = field(default=None, repr=False)
    abroad: bool = False
    """Only for engines other than the original's."""

    @property
    def size(self) -> int:
        return math.prod(len(values) for values in self.options.values())


@dataclass(frozen=True, slots=True)
class Choice:
    """One plan of a space: a family, its options, and the engine it is to run on."""

    family: str
    options: Options
    runtime: str = HOME

    @property
    def name(self) -> str:
        """How it is written: `int8-static(activations=u8)@openvino`."""
        # Some options are called like the family: saying it twice helps nobody.
        said = {key: value for key, value in self.options.items() if value != self.family}
        told = ", ".join(f"{key}={value}" for key, value in said.items())
        where = "" if self.runtime == HOME else f"@{self.runtime}"
        return self.family + (f"({told})" if told else "") + where

    @property
    def key(self) -> str:
        """The same for equal choices."""
        return json.dumps([self.family, dict(sorted(self.options.items())), self.runtime])

    def to_json(self) -> dict[str, JSON]:
        return {"family": self.family, "options": dict(self.options), "runtime": self.runtime}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Choice:
        return Choice(str(value["family"]), dict(value["options"]), str(value["runtime"]))


@dataclass(frozen=True, slots=True)
class Space:
    """The families to choose from, and the engines."""

    families: tuple[Family, ...]
    runtimes: tuple[str, ...] = (HOME,)

    def __post_init__(self) -> None:
        names = [family.name for family in self.families]
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"families need names that differ, and there must be one: {names}")
        if not self.runtimes:
            raise ValueError("a space needs an engine")

    @property
    def size(self) -> int:
        """How many plans there are."""
        pairs = itertools.product(self.runtimes, self.families)
        return sum(family.size for runtime, family in pairs if _fits(family, runtime))

    def family(self, name: str) -> Family:
        """The family of that name; `KeyError` when there is none."""
        return next(item for item in self.families if item.name == name)

    def first(self) -> list[Choice]:
        """Each family with the values to begin with, on each engine."""
        return [
            Choice(family.name, {key: values[0] for key, values in family.options.items()}, runtime)
            for runtime in self.runtimes
            for family in self.families
            if _fits(family, runtime)
        ]

    def has(self, choice: Choice) -> bool:
        """Whether the choice is one of the plans; a trial may combine what does not go together."""
        return _fits(self.family(choice.family), choice.runtime)

    def every(self) -> Iterator[Choice]:
        """All plans, one after the other."""
        for runtime, family in itertools.product(self.runtimes, self.families):
            if not _fits(family, runtime):
                continue
            for values in itertools.product(*family.options.values()):
                yield Choice(family.name, dict(zip(family.options, values, strict=True)), runtime)

    def suggest(self, trial: Any) -> Choice:
        """The choice that an Optuna trial makes."""
        family = self.family(trial.suggest_categorical("plan", [item.name for item in self.families]))
        options = {
            key: values[0]
            if len(values) == 1
            else trial.suggest_categorical(f"{family.name}.{key}", list(values))
            for key, values in family.options.items()
        }
        runtime = trial.suggest_categorical("runtime", list(self.runtimes))
        return Choice(family.name, options, runtime)

    @staticmethod
    def parameters(choice: Choice) -> dict[str, Value]:
        """The same choice as Optuna's parameters, for a trial that is to make it."""
        own = {f"{choice.family}.{key}": value for key, value in choice.options.items()}
        return {"plan": choice.family, "runtime": choice.runtime, **own}

    def to_json(self) -> dict[str, JSON]:
        return {
            "families": [
                {"name": item.name, "options": {key: list(values) for key, values in item.options.items()}}
                for item in self.families
            ],
            "runtimes": list(self.runtimes),
        }


def _fits(family: Family, runtime: str) -> bool:
    return not (family.abroad and runtime == HOME)


@dataclass(frozen=True, slots=True)
class _AsTrained:
    """The model as it is: what another engine is tried with."""

    name: str = "float"

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        return Compressed(model, ("as trained",))


def as_trained() -> Family:
    """The original itself, for engines other than the one it is compared on."""
    return Family("float", lambda options: _AsTrained(), abroad=True)


def space_of(passes: Sequence[str], runtimes: Sequence[str] = (HOME,)) -> Space:
    """The space of some pass names ("int8-static", "graph>int8-dynamic"), their alternatives as families.

    With more than one engine the model as trained is tried too. Raises `ModelyardError` for a pass that is
    not known.
    """
    families: dict[str, Family] = {} if tuple(runtimes) == (HOME,) else {"float": as_trained()}
    for name in passes:
        parts = [PASSES.get(part.strip()) for part in name.split(">")]
        for steps in itertools.product(*parts):
            chain = Chain(tuple(steps))
            families.setdefault(chain.name, _fixed(chain))
    return Space(tuple(families.values()), tuple(runtimes))


def _fixed(chain: Chain) -> Family:
    return Family(chain.name, lambda options: chain)
