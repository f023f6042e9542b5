"""The options of a pass: dataclass fields with a checked range, read from text, spelled back shortly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from modelyard.core.errors import CompressError
from modelyard.core.names import did_you_mean

Value: TypeAlias = bool | int | float | str

_KEY = "modelyard.option"


@dataclass(frozen=True, slots=True)
class Option:
    """What a field may hold: a number from `low` to `high` (both included), or one of `choices`."""

    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    alias: str = ""
    """The letter that papers use for it, understood in a plan's text ("T" for the temperature)."""


def option(
    default: Value,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    alias: str = "",
) -> Any:
    """A dataclass field that is an option of a pass; `check_options` holds its value against the bounds."""
    return dataclasses.field(default=default, metadata={_KEY: Option(text, low, high, choices, alias)})


def options_of(kind: Any) -> dict[str, tuple[Option, Value]]:
    """The options of a pass's class by name, in order, each with its default."""
    found: dict[str, tuple[Option, Any]] = {
        item.name: (item.metadata[_KEY], item.default)
        for item in dataclasses.fields(kind)
        if _KEY in item.metadata
    }
    return found


def check_options(step: Any) -> None:
    """Raises `CompressError` for the first option that is of the wrong type or out of its range.

    An integer is taken where a number is wanted; nothing else is converted.
    """
    for name, (facts, default) in options_of(type(step)).items():
        _check(type(step).__name__, name, facts, default, getattr(step, name))


def made(kind: Any, given: Mapping[str, Value], *, called: str) -> Any:
    """The pass of that class with these options; an unknown option is answered with the nearest known one."""
    known = options_of(kind)
    aliases = {facts.alias: name for name, (facts, _) in known.items() if facts.alias}
    chosen: dict[str, Value] = {}
    for key, value in given.items():
        name = aliases.get(key, key)
        if name not in known:
            raise CompressError(f"{called} has no option {key!r}", fix=did_you_mean(key, known))
        if name in chosen:
            raise CompressError(f"{called} is given the option {name!r} twice", value=value)
        wants_text = isinstance(known[name][1], str)
        # A choice that looks like a number is still a choice.
        chosen[name] = str(value) if wants_text and type(value) is int else value
    return kind(**chosen)


def spelled(stem: str, step: Any, *, said: tuple[str, ...] = ()) -> str:
    """The pass as a plan spells it: its name and the options that are not the defaults.

    `said` are options that the stem tells already. Two passes are equal when their spellings are.
    """
    told = [
        f"{name}={show(getattr(step, name))}"
        for name, (_, default) in options_of(type(step)).items()
        if name not in said and getattr(step, name) != default
    ]
    return f"{stem}({', '.join(told)})" if told else stem


def show(value: Value) -> str:
    """A value as it is written in a plan.

    >>> show(True), show(4.0), show(0.5), show("2:4")
    ('true', '4', '0.5', '2:4')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value) if isinstance(value, int | str) else repr(value)


def _check(owner: str, name: str, facts: Option, default: Value, value: Any) -> None:
    where = f"{owner}.{name}"
    if isinstance(default, str):
        if not isinstance(value, str):
            raise CompressError(f"{where} is no text", value=value, rule=facts.text)
        if facts.choices and value not in facts.choices:
            raise CompressError(
                f"{where} is not known",
                value=value,
                rule=f"one of {', '.join(facts.choices)}",
                fix=did_you_mean(value, facts.choices),
            )
        return
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise CompressError(f"{where} is neither true nor false", value=value, rule=facts.text)
        return
    wanted = "a whole number" if isinstance(default, int) else "a number"
    fits = isinstance(value, int) or (isinstance(value, float) and isinstance(default, float))
    if isinstance(value, bool) or not fits or not math.isfinite(value):
        raise CompressError(f"{where} is not {wanted}", value=value, rule=_range(facts))
    if (facts.low is not None and value < facts.low) or (facts.high is not None and value > facts.high):
        raise CompressError(f"{where} is out of range", value=value, rule=_range(facts), fix=facts.text)


def _range(facts: Option) -> str:
    if facts.low is None and facts.high is None:
        return "a finite number"
    low = "" if facts.low is None else f"from {facts.low:g} "
    return (low + ("" if facts.high is None else f"to {facts.high:g}")).strip()
