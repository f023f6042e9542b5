"""A plan: passes in an order, with their options and the training between them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tomlkit

from modelyard.compress.pass_protocol import Compressed, Pass
from modelyard.compress.plan_option import Value
from modelyard.compress.plan_order import require_order
from modelyard.compress.plan_steps import KINDS, kind_of, step_of
from modelyard.compress.plan_trainable import Bound, Trainable, TrainedPass
from modelyard.core.digest import Digest, digest_json
from modelyard.core.errors import CompressError, ModelyardError
from modelyard.core.progress import Progress, quiet
from modelyard.core.spec import Tensors

if TYPE_CHECKING:
    from modelyard.model.model import Model

FORMAT = 2
"""The version of a plan's digest; raised when the same text comes to mean something else."""

_STEP = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9:_-]*)\s*(?:\((.*)\))?\s*\Z", re.DOTALL)
_PIECE = re.compile(r"""\s*(?:([A-Za-z_]\w*)\s*=)?\s*("[^"]*"|'[^']*'|[^\s,'"()=]+)\s*""")


@dataclass(frozen=True, slots=True)
class Step:
    """A pass under the name by which a plan calls it."""

    kind: str
    run: Pass | TrainedPass

    @property
    def trains(self) -> bool:
        """Whether it needs a `Trainable`."""
        return hasattr(self.run, "train")

    def options(self) -> dict[str, Value]:
        """Every option and its value, those that the name stands for left out."""
        if self.kind not in KINDS:
            return {}
        found: dict[str, Value] = {}
        for name, (_, default) in KINDS[self.kind].options().items():
            value = getattr(self.run, name)
            # 4 and 4.0 are the same option and must have the same digest.
            found[name] = float(value) if isinstance(default, float) else value
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """Passes to be applied one after the other; made by `parse`, `of_tables` or `from_toml`.

    An order in which a later pass is known to undo an earlier one is refused, with the reason
    (`plan_order.py`). Two plans are equal, and have the same digest, when their steps and all their options
    are, however they were written.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise CompressError("the plan is empty", rule="one pass or more, joined by >")
        require_order([(step.kind, step.run) for step in self.steps])

    @property
    def text(self) -> str:
        """The plan in one line, as `parse` reads it; options at their defaults are not said."""
        return " > ".join(step.run.name for step in self.steps)

    @property
    def trains(self) -> bool:
        """Whether a step needs a `Trainable`."""
        return any(step.trains for step in self.steps)

    @property
    def digest(self) -> Digest:
        """The digest of the steps and of every option, defaults included."""
        return digest_json({"format": FORMAT, "steps": [{"pass": s.kind, **s.options()} for s in self.steps]})

    def to_toml(self) -> str:
        """The plan as TOML, a `[[step]]` a pass, with every option."""
        document = tomlkit.document()
        tables = tomlkit.aot()
        for step in self.steps:
            table = tomlkit.table()
            table.update({"pass": step.kind, **step.options()})
            tables.append(table)
        document.append("step", tables)
        return tomlkit.dumps(document)


@dataclass(frozen=True, slots=True)
class Done:
    """What a step did: its name, its notes, and the bytes of the model after it."""

    name: str
    notes: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan's result: the last model, and what each step did."""

    model: Model
    done: tuple[Done, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """All notes in order, each with its step's name."""
        return tuple(f"{step.name}: {note}" for step in self.done for note in step.notes)


@dataclass(frozen=True, slots=True)
class PlanPass:
    """A plan with what it learns from, as one `Pass`."""

    plan: Plan
    trainable: Trainable | None = None

    @property
    def name(self) -> str:
        return self.plan.text

    def apply(self, model: Model, calibration: Tensors) -> Compressed:
        found = run_plan(self.plan, model, calibration, trainable=self.trainable)
        return Compressed(found.model, found.notes)


def parse(text: str) -> Plan:
    """A plan from one line: names joined by ">", options in brackets.

    >>> plan = parse("prune(0.5) > distil(T=4, epochs=2) > int8-static")
    >>> plan.text
    'prune > distil(epochs=2) > int8-static'
    >>> plan == parse(plan.text), plan.trains
    (True, True)

    The first option may be given without its name, and by the letter that papers use. Raises `CompressError`
    that names the step and says what was expected.
    """
    steps = []
    for number, part in enumerate(text.split(">"), start=1):
        match = _STEP.match(part)
        if match is None:
            raise CompressError(
                f"step {number} of the plan cannot be read",
                value=part.strip(),
                rule="name, or name(option=value, ...)",
            )
        with _numbered(number):
            steps.append(Step(match[1], step_of(match[1], _options(match[1], match[2] or ""))))
    return Plan(tuple(steps))


def of_tables(tables: Sequence[Mapping[str, Any]]) -> Plan:
    """A plan from tables as in TOML or JSON, each a `pass` and its options."""
    steps = []
    for number, table in enumerate(tables, start=1):
        if not isinstance(table, Mapping) or not isinstance(table.get("pass"), str):
            raise CompressError(f"step {number} of the plan names no pass", value=table, rule='pass = "..."')
        with _numbered(number):
            given = {str(key): value for key, value in table.items() if key != "pass"}
            steps.append(Step(table["pass"], step_of(table["pass"], given)))
    return Plan(tuple(steps))


def from_toml(text: str) -> Plan:
    """A plan from TOML: `plan = "..."` as `parse` reads it, or a `[[step]]` a pass."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CompressError("the plan is no TOML", value=str(error)) from error
    unknown = sorted(set(document) - {"plan", "step"})
    if unknown or len(document) != 1:
        raise CompressError(
            "a plan's file holds one thing", value=sorted(document), rule='plan = "...", or [[step]]'
        )
    if "plan" in document:
        if not isinstance(document["plan"], str):
            raise CompressError("plan is no text", value=document["plan"])
        return parse(document["plan"])
    if not isinstance(document["step"], list):
        raise CompressError("step is no array of tables", rule="[[step]] with two brackets")
    return of_tables(document["step"])


def run_plan(
    plan: Plan,
    model: Model,
    calibration: Tensors,
    *,
    trainable: Trainable | None = None,
    progress: Progress = quiet,
) -> Planned:
    """Applies the steps in order; the model given is not changed and teaches where there is no other teacher.

    Raises `CompressError` that names the step which does not apply or failed; nothing half done is returned.
    A plan that trains needs a `Trainable`, and says so before anything is done.
    """
    needs = [step.kind for step in plan.steps if step.trains]
    if needs and trainable is None:
        raise CompressError(
            f"{needs[0]} needs rows with targets to train on", value=plan.text,
            fix="give the training data, or leave it out of the plan",
        )  # fmt: skip
    if needs and trainable is not None:
        trainable.require_fit_for(model)
        trainable = trainable.taught_by(model)
    done: list[Done] = []
    now = model
    for number, step in enumerate(plan.steps, start=1):
        name = step.run.name
        progress((number - 1) / len(plan.steps), name)
        try:
            found = _bound(step, trainable).apply(now, calibration)
        except CompressError as error:
            raise _at(error, number, name, plan) from error
        except ModelyardError as error:
            raise CompressError(f"step {number} ({name}) failed", value=str(error)) from error
        now = found.model
        done.append(Done(name, found.notes, now.size))
    progress(1.0, "planned")
    return Planned(now, tuple(done))


def _bound(step: Step, trainable: Trainable | None) -> Pass:
    run: Any = step.run
    if step.trains and trainable is not None:
        return Bound(run, trainable)
    return run  # type: ignore[no-any-return]


def _at(error: CompressError, number: int, name: str, plan: Plan) -> CompressError:
    """The same error, with the step that raised it where the plan has more than one."""
    if len(plan.steps) == 1:
        return error
    return CompressError(
        f"step {number} ({name}): {error.what}",
        value=error.value,
        rule=error.rule,
        fix=error.fix,
        where=error.where,
    )


@contextmanager
def _numbered(number: int) -> Iterator[None]:
    """Errors within say which step of the plan they are about."""
    try:
        yield
    except CompressError as error:
        raise CompressError(
            f"step {number} of the plan: {error.what}", value=error.value, rule=error.rule, fix=error.fix
        ) from error


def _options(name: str, text: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, value in _pairs(name, text):
        if key in found:
            raise CompressError(f"{name} is given {key!r} twice", value=value)
        found[key] = value
    return found


def _pairs(name: str, text: str) -> Iterator[tuple[str, Value]]:
    """The options in a step's brackets; a bare value is the first option."""
    place, first = 0, True
    while text.strip() and place < len(text):
        match = _PIECE.match(text, place)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            raise CompressError(
                f"the options of {name} cannot be read", value=text.strip(), rule="option=value, ..."
            )
        key = match[1]
        if key is None:
            if not first:
                raise CompressError(f"an option of {name} has no name", value=match[2], rule="option=value")
            kind = kind_of(name)
            known = list(kind.options()) if kind is not None else []
            if not known:
                raise CompressError(f"{name} takes no options", value=match[2])
            key = known[0]
        yield key, _value(match[2])
        place, first = match.end() + 1, False
        if place == len(text):
            raise CompressError(f"the options of {name} end in a comma", value=text.strip())


def _value(text: str) -> Value:
    """A value as TOML would read it; what it would not is text."""
    if text[0] in "\"'":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
