"""How one key of the project file is declared: its help, how its value is read, its default.

A section is a frozen dataclass whose fields are made by `option`. Reading, checking, the "did you mean",
the settings reference in `docs/` and the file that `modelyard init` writes all come from that one place.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeVar

from modelyard.core.names import NAME_RULE, did_you_mean, is_name
from modelyard.core.unit import seconds, size

T = TypeVar("T")
Parse = Callable[[Any], Any]
_REQUIRED = object()


class Wrong(Exception):
    """A value breaks its key's rule; the reader adds the file, the line and the key."""

    def __init__(self, rule: str, fix: str | None = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.fix = fix


def option(help_text: str, parse: Parse, default: Any = _REQUIRED) -> Any:
    """Declares a key. Without a default the key must be written."""
    metadata = {"help": help_text, "parse": parse}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether the key has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise Wrong("a text in quotes", f'write "{value}"')
    return value


def name(value: Any) -> str:
    if not is_name(text(value)):
        raise Wrong(NAME_RULE)
    return str(value)


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong("true or false, without quotes")
    return value


def whole(low: int, high: int) -> Parse:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Wrong(f"a whole number from {low} to {high}")
        return value

    return parse


def number(low: float, high: float) -> Parse:
    def parse(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise Wrong(f"a number from {low:g} to {high:g}")
        return float(value)

    return parse


def one_of(*choices: str) -> Parse:
    def parse(value: Any) -> str:
        if value not in choices:
            hint = did_you_mean(value, choices) if isinstance(value, str) else None
            raise Wrong("one of " + ", ".join(choices), hint)
        return str(value)

    return parse


def duration(value: Any) -> float:
    try:
        parsed = seconds(value)
    except (ValueError, TypeError):
        raise Wrong("a duration such as 500ms, 30s, 10m, 2h, 30d") from None
    if not 0 < parsed < math.inf:
        raise Wrong("a duration above zero")
    return parsed


def searching(value: Any) -> bool | float:
    """Whether a searched plan is used, or how long the loop itself may search for one."""
    if isinstance(value, bool):
        return value
    try:
        return duration(value)
    except Wrong:
        raise Wrong("true, false, or a duration such as 10m") from None


def byte_size(value: Any) -> float:
    try:
        parsed = size(value)
    except (ValueError, TypeError):
        raise Wrong("a size such as 300kB, 1.5MB, 2GiB") from None
    if not 0 < parsed < math.inf:
        raise Wrong("a size above zero")
    return parsed


def fractions(value: Any) -> tuple[float, float, float]:
    rule = "three numbers above zero that add up to 1: train, validation, test"
    if not isinstance(value, list) or len(value) != 3:
        raise Wrong(rule)
    if any(isinstance(item, bool) or not isinstance(item, int | float) or item <= 0 for item in value):
        raise Wrong(rule)
    if not abs(sum(value) - 1) <= 1e-9:
        raise Wrong(rule, f"they add up to {sum(value):g}")
    return float(value[0]), float(value[1]), float(value[2])


def texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Wrong('a list of texts, such as ["a", "b"]')
    if len(set(value)) != len(value):
        raise Wrong("each text once")
    return tuple(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Margin:
    """How much worse is still as good: in the metric's unit, or a share of the value compared with.

    >>> Margin(0.02).of(0.97), Margin(0.5, relative=True).of(58.0)
    (0.02, 29.0)
    """

    amount: float
    relative: bool = False

    def of(self, value: float) -> float:
        """The margin in the metric's unit, beside a value of the metric."""
        return self.amount * abs(value) if self.relative else self.amount


def read_margin(value: Any) -> Margin:
    """A number in the metric's unit, or a share such as "5%"."""
    rule = 'a number from 0 in the metric\'s unit, or a share such as "5%"'
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return Margin(number(0, 1000)(float(value.strip()[:-1])) / 100, relative=True)
        except ValueError:
            raise Wrong(rule) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise Wrong(rule)
    return Margin(float(value))


def project_path(value: Any) -> str:
    """A path inside the project's folder."""
    path = PurePosixPath(text(value))
    if not value or path.is_absolute() or ".." in path.parts:
        raise Wrong("a path inside the project's folder, such as contract.toml")
    return str(value)


def function(value: Any) -> str:
    """`file.py:function`, inside the project's folder."""
    file, separator, called = text(value).partition(":")
    if not separator or not file.endswith(".py") or not called.isidentifier():
        raise Wrong("file.py:function, such as recipe.py:build")
    project_path(file)
    return str(value)


def source(value: Any) -> str:
    """A function of the project, or a table file."""
    if ":" in text(value) and ".py" in value:
        return function(value)
    if not value.lower().endswith((".csv", ".tsv", ".parquet", ".arrow", ".feather", ".npz")):
        raise Wrong("data.py:load, or a file that ends in .csv, .tsv, .parquet, .arrow, .feather or .npz")
    return str(value)


def maybe(parse: Parse) -> Parse:
    """The same, but the empty text means "not set"."""

    def parse_or_none(value: Any) -> Any:
        return None if value == "" else parse(value)

    return parse_or_none


def scalar(value: Any) -> str | float | bool:
    if not isinstance(value, str | int | float | bool):
        raise Wrong("a text, a number, true or false")
    return value


def read_section(section: type[T], table: Mapping[str, Any], path: str, fail: Callable[..., Exception]) -> T:
    """Makes a section from a TOML table; `fail(key, value, rule, fix)` builds the error to raise."""
    fields = {field.name: field for field in dataclasses.fields(section)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise fail(key, None, "known keys: " + ", ".join(fields), did_you_mean(key, fields))
    values: dict[str, Any] = {}
    for key, field in fields.items():
        if key not in table:
            if is_required(field):
                raise fail(None, None, f"the key {key!r} must be written in {path}", field.metadata["help"])
            continue
        try:
            values[key] = field.metadata["parse"](table[key])
        except Wrong as wrong:
            raise fail(key, table[key], wrong.rule, wrong.fix) from None
    return section(**values)


def describe(section: type[Any]) -> Sequence[tuple[str, str, str]]:
    """Each key of a section as (name, default, help), for the settings reference."""
    return [
        (
            field.name,
            "required" if is_required(field) else repr(field.default),
            str(field.metadata["help"]),
        )
        for field in dataclasses.fields(section)
    ]
