"""What a recipe is trained on: named tensors and targets of the training and the validation part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from modelyard.core.digest import Digest
from modelyard.core.errors import TrainError
from modelyard.core.spec import Tensors

Task = Literal["classification", "regression"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Training and validation rows as tensors by column name, all of one part sharing their first dimension.

    Targets are `int64 [N]` indices into `labels` for classification, `float64 [N]` for regression. The
    validation part decides about hyper-parameters and early stopping; the test part is never in here.
    Raises `TrainError` for parts that are empty, unequal in length or columns, or have one class only.
    """

    task: Task
    labels: tuple[str, ...]
    train: Tensors
    train_targets: npt.NDArray[Any]
    validation: Tensors
    validation_targets: npt.NDArray[Any]

    def __post_init__(self) -> None:
        _check_part("training", self.train, self.train_targets)
        _check_part("validation", self.validation, self.validation_targets)
        if list(self.train) != list(self.validation):
            raise TrainError(
                "the training and the validation part have different columns",
                value=sorted(set(self.train) ^ set(self.validation)),
                fix="make both parts with the same contract",
            )
        if self.task == "classification":
            self._check_classes()
        for part, targets in (("training", self.train_targets), ("validation", self.validation_targets)):
            if self.task == "regression" and not np.all(np.isfinite(targets)):
                raise TrainError(
                    f"the {part} targets hold NaN or infinity",
                    value=f"{int(np.sum(~np.isfinite(targets)))} of {len(targets)} rows",
                    fix="give every row a target, or leave such rows out of the data",
                )

    def _check_classes(self) -> None:
        seen = np.unique(self.train_targets)
        if len(seen) < 2:
            raise TrainError(
                "the training part has only one class",
                value=[self.labels[int(index)] for index in seen if 0 <= int(index) < len(self.labels)],
                rule="at least two classes, each with some rows",
                fix="check the label column, or give more data",
            )
        for targets in (self.train_targets, self.validation_targets):
            if targets.min() < 0 or targets.max() >= len(self.labels):
                raise TrainError(
                    "a target is no index into the labels",
                    value=[int(targets.min()), int(targets.max())],
                    rule=f"0 to {len(self.labels) - 1}",
                )

    @property
    def features(self) -> tuple[str, ...]:
        """The column names, in the contract's order."""
        return tuple(self.train)

    @property
    def rows(self) -> int:
        """How many training rows there are."""
        return len(self.train_targets)

    def digest(self) -> Digest:
        """The digest of everything in the data set: names, types, shapes, values, labels."""
        state = hashlib.sha256(repr((self.task, self.labels)).encode())
        for part, targets in ((self.train, self.train_targets), (self.validation, self.validation_targets)):
            for name, array in [*part.items(), ("", targets)]:
                state.update(repr((name, array.dtype.str, array.shape)).encode())
                if array.dtype == object:
                    for text in array.ravel():
                        data = str(text).encode()
                        state.update(len(data).to_bytes(8, "little") + data)
                else:
                    state.update(np.ascontiguousarray(array).data)
        return "sha256:" + state.hexdigest()

    def sample(self, rows: int, *, seed: int = 0) -> Dataset:
        """The same data set with at most `rows` training rows, drawn without replacement.

        Classes keep at least one row each, so that a small sample can still be fitted.
        """
        if rows >= self.rows:
            return self
        random = np.random.default_rng(seed)
        order = random.permutation(self.rows)
        if self.task == "classification":
            _, first = np.unique(self.train_targets[order], return_index=True)
            order = np.concatenate([order[first], np.delete(order, first)])
            rows = max(rows, len(first))
        chosen = np.sort(order[:rows])
        return replace(
            self,
            train={name: array[chosen] for name, array in self.train.items()},
            train_targets=self.train_targets[chosen],
        )


def _check_part(name: str, tensors: Mapping[str, npt.NDArray[Any]], targets: npt.NDArray[Any]) -> None:
    if not tensors:
        raise TrainError(f"the {name} part has no feature", fix="give at least one column the role feature")
    if len(targets) == 0:
        raise TrainError(
            f"the {name} part is empty", rule="at least one row", fix="give more data or change the split"
        )
    for column, array in tensors.items():
        if len(array) != len(targets):
            raise TrainError(
                f"column {column!r} of the {name} part has {len(array)} rows and the targets {len(targets)}"
            )
