"""`Project`: the user's `modelyard.toml`, read, checked and resolved."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modelyard.core.names import did_you_mean
from modelyard.lifecycle.option import Margin
from modelyard.lifecycle.options import (
    CanaryOptions,
    CompressOptions,
    DataOptions,
    EndpointOptions,
    GateOptions,
    MonitorOptions,
    PolicyOptions,
    ScoreOptions,
    SliceOptions,
    StoreOptions,
    TrainOptions,
)
from modelyard.measure.requirement import Requirement

FILE = "modelyard.toml"
VERSION = 1
"""The format of `modelyard.toml`. Raised when an old file would be read differently; old readers stay."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Project:
    """What the user wants, typed and checked. `root` is the folder that holds the file."""

    root: Path
    name: str
    task: Literal["classification", "regression"]
    data: DataOptions
    train: TrainOptions
    compress: CompressOptions
    gate: GateOptions
    endpoint: EndpointOptions
    canary: CanaryOptions
    monitor: MonitorOptions
    policy: PolicyOptions
    score: ScoreOptions
    store: StoreOptions
    requirements: tuple[Requirement, ...]
    slices: tuple[SliceOptions, ...]

    @property
    def endpoint_name(self) -> str:
        """What clients call."""
        return self.endpoint.name or self.name

    @property
    def store_root(self) -> Path:
        """The embedded store's folder."""
        return self.root / self.store.root

    @property
    def state(self) -> Path:
        """Where the prediction service keeps its routing, its logs and its process file."""
        return self.store_root / "service"

    @property
    def keys(self) -> Path:
        """Where the signing key and the trusted public keys lie."""
        return self.store_root / "keys"

    def margin(self, written: Margin | None) -> Margin:
        """A margin as written, or the task's default: two points of a rate, a tenth of an error."""
        if written is not None:
            return written
        return Margin(0.02) if self.task == "classification" else Margin(0.1, relative=True)

    @property
    def contract_path(self) -> Path:
        return self.root / self.data.contract

    @property
    def recipe_path(self) -> Path:
        return self.root / self.train.recipe.partition(":")[0]


def expand(value: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Puts environment variables in place of `${NAME}`; raises `KeyError` with the name when unset.

    >>> expand("s3://${BUCKET}/models", {"BUCKET": "b"})
    's3://b/models'
    """
    if value is None:
        return None
    return _VARIABLE.sub(lambda match: environment[match[1]], value)


def slice_names(slices: tuple[SliceOptions, ...]) -> list[str]:
    """The names of the declared slices."""
    return [item.name for item in slices]


def known_slice(requirement: Requirement, slices: tuple[SliceOptions, ...]) -> str | None:
    """What is wrong with a requirement's slice, or nothing."""
    names = slice_names(slices)
    if not requirement.slice or requirement.slice in names:
        return None
    return did_you_mean(requirement.slice, names)


def document(project: Project, section: str) -> dict[str, Any]:
    """A section's options as JSON, for cache keys."""
    values = dataclasses.asdict(getattr(project, section))
    return {key: list(item) if isinstance(item, tuple) else item for key, item in values.items()}
