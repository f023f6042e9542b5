"""Reads `modelyard.toml`. Every error names the file, the line or key, the value and the rule."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from modelyard.core.errors import ModelyardError, ProjectError
from modelyard.core.names import NAME_RULE, did_you_mean, is_name
from modelyard.core.unit import seconds, size
from modelyard.lifecycle.option import read_section
from modelyard.lifecycle.options import LISTS, SECTIONS, RequirementOptions, SliceOptions
from modelyard.lifecycle.project import FILE, VERSION, Project, known_slice
from modelyard.measure.metric import COST_METRICS, METRICS, metric
from modelyard.measure.requirement import Requirement

_TOP = ("version", "name", "task")
_MAX_BYTES = 1 << 20
_RATES = frozenset(
    {"accuracy", "balanced_accuracy", "f1_macro", "precision_macro", "recall_macro", "roc_auc", "error_rate",
     "expected_calibration_error"}
)  # fmt: skip
"""Metrics that lie from 0 to 1: a bound of 95 is meant as 0.95, and can never be met."""


def find_project(start: Path) -> Path:
    """The nearest folder, from `start` upwards, that holds a project file."""
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder
    raise ProjectError(
        f"no {FILE} here or in a folder above",
        value=str(start),
        fix="run `modelyard init NAME` to make a project, or go to one",
    )


def read_project(root: Path) -> Project:
    """The project in a folder, checked as far as is possible without running anything of the user's."""
    path = root / FILE
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ProjectError(
            f"cannot read {path}", value=error.strerror, fix="run `modelyard init NAME` to make a project"
        ) from error
    if len(raw) > _MAX_BYTES:
        raise ProjectError(f"{path} is too large", value=len(raw), rule=f"at most {_MAX_BYTES} bytes")
    try:
        source = raw.decode()
        tables = tomllib.loads(source)
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path} is not UTF-8", value=str(error), fix="save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(
            f"{path} is not TOML", value=str(error), rule="https://toml.io/en/v1.0.0"
        ) from error
    return _Reader(root, path, source).project(tables)


class _Reader:
    def __init__(self, root: Path, path: Path, source: str) -> None:
        self._root = root
        self._path = path
        self._lines = source.splitlines()

    def project(self, tables: Mapping[str, Any]) -> Project:
        for key in tables:
            known = (*_TOP, *SECTIONS, *LISTS)
            if key not in known:
                raise self._fail("", 0)(key, None, "known: " + ", ".join(known), did_you_mean(key, known))
        name, task = self._top(tables)
        sections = {key: self._section(key, tables.get(key, {})) for key in SECTIONS}
        slices = tuple(self._slice(index, row) for index, row in enumerate(self._rows(tables, "slice")))
        requirements = tuple(
            self._requirement(index, row, task, slices)
            for index, row in enumerate(self._rows(tables, "requirement"))
        )
        self._twice("slice", "name", [item.name for item in slices])
        # A claim is a metric on a slice: two lines of it could not be told apart in the evidence.
        self._twice("requirement", "metric", [item.claim for item in requirements])
        self._metric("train", 0, "metric", sections["train"].metric, task, cost=False)
        if sections["data"].split == "time" and sections["data"].order is None:
            raise self._fail("data", 0)("split", "time", "split = 'time' needs a column that orders rows",
                                        "write order = \"COLUMN\"")  # fmt: skip
        return Project(
            root=self._root, name=name, task=task, requirements=requirements, slices=slices, **sections
        )

    def _top(self, tables: Mapping[str, Any]) -> tuple[str, Literal["classification", "regression"]]:
        fail = self._fail("", 0)
        version = tables.get("version")
        if version != VERSION or isinstance(version, bool):
            raise fail("version", version, f"version = {VERSION}", f"write version = {VERSION} at the top")
        name = tables.get("name")
        if not isinstance(name, str) or not is_name(name):
            raise fail("name", name, NAME_RULE, 'write name = "my-model"')
        task = tables.get("task")
        if task == "classification":
            return name, "classification"
        if task == "regression":
            return name, "regression"
        hint = did_you_mean(task, ("classification", "regression")) if isinstance(task, str) else None
        raise fail("task", task, "classification or regression", hint)

    def _section(self, key: str, table: object) -> Any:
        if not isinstance(table, dict):
            raise self._fail("", 0)(key, table, f"a table: [{key}]", None)
        return read_section(SECTIONS[key], table, f"[{key}]", self._fail(key, 0))

    def _rows(self, tables: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        rows = tables.get(key, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._fail("", 0)(key, rows, f"a list of tables: [[{key}]]", None)
        return rows

    def _slice(self, index: int, row: Mapping[str, Any]) -> SliceOptions:
        fail = self._fail("slice", index)
        options = read_section(SliceOptions, row, "[[slice]]", fail)
        if options.equals is None and options.at_least is None and options.below is None:
            raise fail(None, None, "one of equals, at_least, below", 'write equals = "VALUE"')
        return options

    def _requirement(
        self, index: int, row: Mapping[str, Any], task: str, slices: tuple[SliceOptions, ...]
    ) -> Requirement:
        fail = self._fail("requirement", index)
        options = read_section(RequirementOptions, row, "[[requirement]]", fail)
        if (options.at_least is None) == (options.at_most is None):
            raise fail(None, None, "exactly one of at_least and at_most", "write at_least = 0.9, say")
        self._metric("requirement", index, "metric", options.metric, task, cost=True)
        key = "at_most" if options.at_least is None else "at_least"
        cost = options.metric in COST_METRICS
        made = Requirement(
            metric=options.metric,
            bound=self._bound(fail, key, options.metric, getattr(options, key)),
            direction="at_most" if key == "at_most" else "at_least",
            where="service" if options.metric == "error_rate" else "release" if cost else "test",
            slice=options.slice,
            strict=options.strict,
        )
        hint = known_slice(made, slices)
        if hint is not None:
            raise fail("slice", options.slice, "a [[slice]] of this file", hint)
        if cost and options.slice:
            raise fail(
                "slice", options.slice, f"{options.metric} is measured on the whole model", "remove slice"
            )
        return made

    def _bound(self, fail: Callable[..., Exception], key: str, name: str, value: object) -> float:
        unit = COST_METRICS[name].unit if name in COST_METRICS else ""
        try:
            if unit == "s":
                bound = seconds(value)  # type: ignore[arg-type]
            elif unit in ("B", "bytes"):
                bound = size(value)  # type: ignore[arg-type]
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise fail(key, value, f"a number; {name} has no unit", None)
            else:
                bound = float(value)
        except (ValueError, TypeError) as error:
            raise fail(key, value, str(error), None) from None
        if not math.isfinite(bound) or (name in COST_METRICS and bound < 0):
            raise fail(key, value, "a finite bound, not below zero for a cost", None)
        if name in _RATES and not 0 <= bound <= 1:
            raise fail(key, value, f"{name} lies from 0 to 1", f"write {bound / 100:g} for {bound:g} %")
        return bound

    def _metric(self, section: str, index: int, key: str, name: str, task: str, *, cost: bool) -> None:
        known = [item.name for item in METRICS.values() if item.task == task]
        if cost:
            known += list(COST_METRICS)
        if name in known:
            return
        fail = self._fail(section, index)
        rule = f"a metric of {task}: " + ", ".join(known)
        try:
            metric(name)
        except ModelyardError:
            raise fail(key, name, rule, did_you_mean(name, known)) from None
        raise fail(key, name, rule, f"{name} is not for {task}")

    def _twice(self, section: str, key: str, names: list[str]) -> None:
        for index, name in enumerate(names):
            if name in names[:index]:
                rule = "each name once" if key == "name" else "each metric once for all rows and once a slice"
                raise self._fail(section, index)(key, name, rule, "rename one or take one away")

    def _fail(self, section: str, index: int) -> Callable[..., ProjectError]:
        def build(key: str | None, value: object, rule: str, fix: str | None) -> ProjectError:
            label = f"[{section}]" if section in SECTIONS else f"[[{section}]] number {index + 1}"
            place = " ".join(
                part for part in (label if section else "", f"key {key!r}" if key else "") if part
            )
            line = self._line(section, index, key)
            where = f"{self._path}" + (f", line {line}" if line else "")
            return ProjectError(f"{place} is wrong", value=value, rule=rule, fix=fix, where=where)

        return build

    def _line(self, section: str, index: int, key: str | None) -> int | None:
        """The line of a key, found by reading headers and keys as people write them."""
        current, seen, header = "", -1, None
        for number, line in enumerate(self._lines, start=1):
            found = re.match(r"\s*\[\[?\s*([A-Za-z0-9_-]+)\s*\]\]?\s*(#.*)?$", line)
            if found:
                current = found[1]
                seen += current == section
                header = number if current == section and seen == index else header
            inside = current == section and (not section or section in SECTIONS or seen == index)
            if inside and key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
                return number
            if not section and found and found[1] == key:
                return number
        return header
