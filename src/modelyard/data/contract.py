"""What the data promises: its columns, their types and ranges, and who answers for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from modelyard.core.digest import Digest, digest_json
from modelyard.core.errors import ContractError
from modelyard.core.format import check_format
from modelyard.core.names import did_you_mean
from modelyard.core.spec import DATATYPES, DYNAMIC, TensorSpec
from modelyard.core.unit import seconds

Kind: TypeAlias = Literal["number", "integer", "boolean", "category", "text", "timestamp", "tensor"]
Role: TypeAlias = Literal["feature", "label", "key", "order", "ignored"]
Privacy: TypeAlias = Literal["none", "quasi", "personal", "sensitive"]
Task: TypeAlias = Literal["classification", "regression"]

KINDS: tuple[str, ...] = get_args(Kind)
ROLES: tuple[str, ...] = get_args(Role)
PRIVACIES: tuple[str, ...] = get_args(Privacy)

FORMAT = 1
"""Version of the stored form. Raise it when an old reader would misread a new contract."""

_INPUT_DATATYPES = {
    "number": "FP32",
    "integer": "FP32",
    "boolean": "FP32",
    "category": "BYTES",
    "text": "BYTES",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column's promise; raises `ContractError` when the promise contradicts itself.

    `missing_max` is the largest share of missing values (null, NaN, or an empty text). `minimum` and
    `maximum` are inclusive and hold for every number, or for every element of a tensor. `categories`
    is the closed list of values of a category as text, in the order of the model's labels when the
    column is the label. `shape` and `datatype` (of the Open Inference Protocol) belong to tensors.

    >>> Column("age", "number", minimum=0, maximum=120).minimum
    0.0
    """

    name: str
    kind: Kind
    role: Role = "feature"
    missing_max: float = 0.0
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None
    shape: tuple[int, ...] | None = None
    datatype: str | None = None
    privacy: Privacy = "none"
    owner: str = ""
    source: str = ""
    deprecated: bool = False
    retention: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ContractError("a column has no name", value=self.name, rule="a text that is not empty")
        for key, known in (("kind", KINDS), ("role", ROLES), ("privacy", PRIVACIES)):
            value = getattr(self, key)
            if value not in known:
                raise self._wrong(key, value, "one of " + ", ".join(known), did_you_mean(str(value), known))
        for key in ("owner", "source", "retention", "description"):
            if not isinstance(getattr(self, key), str):
                raise self._wrong(key, getattr(self, key), "a text", "put it in quotes")
        if not isinstance(self.deprecated, bool):
            raise self._wrong("deprecated", self.deprecated, "true or false")
        self._check_numbers()
        self._check_categories()
        self._check_tensor()
        self._check_role()
        if self.retention:
            _duration(self.retention, f"column {self.name!r}: retention")

    def _check_numbers(self) -> None:
        if not _is_number(self.missing_max) or not 0 <= self.missing_max <= 1:
            raise self._wrong(
                "missing_max", self.missing_max, "a share from 0 to 1", "1 allows all to be missing"
            )
        object.__setattr__(self, "missing_max", float(self.missing_max))
        for key in ("minimum", "maximum"):
            value = getattr(self, key)
            if value is None:
                continue
            if not _is_number(value) or math.isnan(value):
                raise self._wrong(key, value, "a number")
            if self.kind not in ("number", "integer", "tensor"):
                raise self._wrong(key, value, f"a {self.kind} column has no range", f"remove {key}")
            object.__setattr__(self, key, float(value))
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise self._wrong(
                "minimum", self.minimum, f"at most the maximum, {self.maximum:g}", "swap the two"
            )

    def _check_categories(self) -> None:
        if self.categories is None:
            if self.kind == "category":
                raise self._wrong(
                    "categories", None, "a category lists its values", 'list them, or use kind = "text"'
                )
            return
        if self.kind != "category":
            raise self._wrong(
                "categories", self.categories, "only a category lists values", 'use kind = "category"'
            )
        values = tuple(self.categories)
        wrong = next((value for value in values if not isinstance(value, str) or not value), None)
        if wrong is not None or not values:
            raise self._wrong("categories", wrong, "texts that are not empty", "put each value in quotes")
        twice = (
            next((value for value in values if values.count(value) > 1), None)
            if len(set(values)) < len(values)
            else None
        )
        if twice is not None:
            raise self._wrong("categories", twice, "each value once", "remove the second one")
        object.__setattr__(self, "categories", values)

    def _check_tensor(self) -> None:
        if self.kind != "tensor":
            for key in ("shape", "datatype"):
                if getattr(self, key) is not None:
                    raise self._wrong(
                        key,
                        getattr(self, key),
                        f"only a tensor has a {key}",
                        f'remove {key}, or use kind = "tensor"',
                    )
            return
        sizes = self.shape
        if sizes is None or not all(
            isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes
        ):
            raise self._wrong(
                "shape",
                sizes,
                "one row's shape, as positive whole numbers",
                "write for example shape = [28, 28]",
            )
        object.__setattr__(self, "shape", tuple(sizes))
        numeric = [name for name in DATATYPES if name != "BYTES"]
        if self.datatype not in numeric:
            raise self._wrong(
                "datatype",
                self.datatype,
                "one of " + ", ".join(numeric),
                did_you_mean(str(self.datatype), numeric),
            )

    def _check_role(self) -> None:
        if self.kind == "timestamp" and self.role in ("feature", "label"):
            raise self._wrong(
                "role",
                self.role,
                "a timestamp cannot be a feature or the label",
                "derive numbers from it in the source (hour, weekday) and give it role order or ignored",
            )
        if self.role == "label" and self.kind not in ("number", "integer", "category"):
            raise self._wrong(
                "kind",
                self.kind,
                "a label is a category (classification), or a number or integer (regression)",
                'use kind = "category" and list the categories',
            )
        if self.role == "key" and self.kind in ("tensor", "number", "boolean"):
            raise self._wrong("role", "key", "a key is an integer, a text, a category or a timestamp")
        if self.role == "order" and self.kind not in ("timestamp", "integer", "number"):
            raise self._wrong("role", "order", "rows are ordered by a timestamp or a number")

    def _wrong(self, key: str, value: object, rule: str, fix: str | None = None) -> ContractError:
        return ContractError(f"column {self.name!r}: {key} is wrong", value=value, rule=rule, fix=fix)

    @property
    def private(self) -> bool:
        """Whether what it says of somebody is kept out of logs and samples unless asked for."""
        return self.privacy in ("personal", "sensitive")

    def to_json(self) -> dict[str, Any]:
        """Every field by name; tuples become lists."""
        value = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: list(item) if isinstance(item, tuple) else item for key, item in value.items()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Column:
        """The inverse of `to_json`; unknown keys raise `ContractError`."""
        known = [field.name for field in fields(Column)]
        for key in value:
            if key not in known:
                raise ContractError(
                    f"column {value.get('name', '?')!r} has no key {key!r}", fix=did_you_mean(key, known)
                )
        facts = dict(value)
        for key in ("categories", "shape"):
            if facts.get(key) is not None:
                if not isinstance(facts[key], list | tuple):
                    raise ContractError(
                        f"column {value.get('name', '?')!r}: {key} is wrong", value=facts[key], rule="a list"
                    )
                facts[key] = tuple(facts[key])
        for key in ("name", "kind"):
            if key not in facts:
                raise ContractError(
                    f"a column has no {key}", value=dict(value), rule=f"each column has a {key}"
                )
        return Column(**facts)


@dataclass(frozen=True, slots=True)
class Contract:
    """The promise of a whole table: exactly one label, at most one key and one order, one feature or more.

    `freshness` is the largest age of the newest row by the order column (for example `30d`; empty: not
    promised). Raises `ContractError` when the columns do not fit together.
    """

    name: str
    columns: tuple[Column, ...]
    owner: str = ""
    source: str = ""
    freshness: str = ""
    version: int = FORMAT

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        names = [column.name for column in self.columns]
        twice = (
            next((name for name in names if names.count(name) > 1), None)
            if len(set(names)) < len(names)
            else None
        )
        if twice is not None:
            raise ContractError("two columns share a name", value=twice, rule="each name once")
        for role, most in (("label", 1), ("key", 1), ("order", 1)):
            holders = [column.name for column in self.columns if column.role == role]
            if len(holders) > most:
                raise ContractError(
                    f"the contract has several columns with the role {role}",
                    value=holders,
                    rule=f"at most one {role}",
                    fix='set the others to role = "ignored"',
                )
        if not any(column.role == "label" for column in self.columns):
            raise ContractError(
                "the contract has no label", value=names, rule='one column has role = "label"'
            )
        if not self.features:
            raise ContractError(
                "the contract has no feature", value=names, rule='one column or more has role = "feature"'
            )
        if self.freshness:
            _duration(self.freshness, "freshness")
            if self.order is None:
                raise ContractError(
                    "freshness needs an order column",
                    value=self.freshness,
                    rule="the age of data is read from a timestamp with the role order",
                    fix='give a timestamp column role = "order", or remove freshness',
                )

    @property
    def features(self) -> tuple[Column, ...]:
        """The model's inputs, in order."""
        return tuple(column for column in self.columns if column.role == "feature")

    @property
    def label(self) -> Column:
        """What is predicted."""
        return next(column for column in self.columns if column.role == "label")

    @property
    def key(self) -> Column | None:
        """What identifies a row or its subject, if anything does."""
        return next((column for column in self.columns if column.role == "key"), None)

    @property
    def order(self) -> Column | None:
        """What says which row came first, if anything does."""
        return next((column for column in self.columns if column.role == "order"), None)

    @property
    def task(self) -> Task:
        """Classification when the label is a category, else regression."""
        return "classification" if self.label.kind == "category" else "regression"

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of the model's probabilities; empty for regression."""
        return self.label.categories or ()

    def column(self, name: str) -> Column:
        """The column of that name; raises `ContractError` with "did you mean"."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ContractError(
            f"the contract has no column {name!r}",
            fix=did_you_mean(name, [column.name for column in self.columns]),
        )

    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's input tensors: a scalar column is `[-1, 1]`, a tensor of shape S is `[-1, *S]`."""
        return tuple(
            TensorSpec(column.name, column.datatype or "FP32", (DYNAMIC, *(column.shape or ())))
            if column.kind == "tensor"
            else TensorSpec(column.name, _INPUT_DATATYPES[column.kind], (DYNAMIC, 1))
            for column in self.features
        )

    @property
    def digest(self) -> Digest:
        """The digest of the contract's content."""
        return digest_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "name": self.name,
            "owner": self.owner,
            "source": self.source,
            "freshness": self.freshness,
            "columns": [column.to_json() for column in self.columns],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Contract:
        """The inverse of `to_json`; raises `ContractError` for a version that is not known."""
        check_format(value.get("version"), FORMAT, "the contract", ContractError, key="version")
        return Contract(
            name=str(value["name"]),
            columns=tuple(Column.from_json(item) for item in value["columns"]),
            owner=str(value["owner"]),
            source=str(value["source"]),
            freshness=str(value["freshness"]),
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _duration(text: str, what: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise ContractError(
            f"{what} is wrong", value=text, rule="a duration such as 12h or 30d", fix="write for example 30d"
        ) from error
