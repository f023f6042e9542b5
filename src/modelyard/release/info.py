"""What `release.json` says: the release's name and version, what it was made from, how to run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from modelyard.core.clock import from_iso
from modelyard.core.digest import JSON, Digest, finite, is_digest
from modelyard.core.errors import ModelError, ReleaseError
from modelyard.core.format import check_format
from modelyard.core.names import NAME_RULE, is_name
from modelyard.model.chosen_runtime import DEFAULT_RUNTIME, HOME, ChosenRuntime

FORMAT = 1
"""Version of the bundle's format: its list of files and the fields of `release.json`.

Raised when a reader of the version before would misread a new bundle; readers of all versions up to
this one stay, and `tests/formats` keeps a bundle of each."""

TASKS = ("classification", "regression")
_VERSION_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ReleaseInfo:
    """One release's identity. `created` is RFC 3339 in UTC.

    `lineage` holds the digests it was made from (`snapshot`, `contract`, `code`, `model`, `project`, ...)
    and `options` what the endpoint needs (`max_batch`, ...), plain JSON. `runtime` is what it was measured
    on and is served with; a release that names none runs on onnxruntime as it is set up by default.
    """

    name: str
    version: int
    created: str
    task: str
    labels: tuple[str, ...] = ()
    lineage: Mapping[str, Digest] = field(default_factory=lambda: MappingProxyType({}))
    options: Mapping[str, JSON] = field(default_factory=lambda: MappingProxyType({}))
    runtime: ChosenRuntime = DEFAULT_RUNTIME

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ReleaseError("the release's name is wrong", value=self.name, rule=NAME_RULE)
        if isinstance(self.version, bool) or not 1 <= self.version <= _VERSION_MAX:
            raise ReleaseError(
                "the release's version is wrong", value=self.version, rule="a whole number from 1"
            )
        if self.task not in TASKS:
            raise ReleaseError("the release's task is wrong", value=self.task, rule=" or ".join(TASKS))
        if (self.task == "classification") != bool(self.labels):
            raise ReleaseError(
                "the release's labels do not fit its task",
                value=self.labels,
                rule="labels for classification, none for regression",
            )
        for part, digest in self.lineage.items():
            if not is_digest(digest):
                raise ReleaseError(
                    f"the release's lineage names no digest for {part!r}",
                    value=digest,
                    rule="sha256: and 64 hex digits",
                )
        try:
            from_iso(self.created)
        except ValueError as error:
            raise ReleaseError("the release's time is wrong", value=self.created, rule="RFC 3339") from error

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "created": self.created,
            "task": self.task,
            "labels": list(self.labels),
            "lineage": dict(self.lineage),
            "options": finite(dict(self.options)),
            "runtime": self.runtime.name,
            "runtime_options": dict(self.runtime.settings),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> ReleaseInfo:
        """The identity that `to_json` wrote; raises `ReleaseError` for anything else."""
        check_format(value.get("format"), FORMAT, "the bundle", ReleaseError)
        try:
            return ReleaseInfo(
                name=str(value["name"]),
                version=int(value["version"]),
                created=str(value["created"]),
                task=str(value["task"]),
                labels=tuple(str(label) for label in value["labels"]),
                lineage=MappingProxyType({str(key): str(item) for key, item in value["lineage"].items()}),
                options=MappingProxyType(dict(value["options"])),
                runtime=ChosenRuntime(
                    str(value.get("runtime", HOME)), MappingProxyType(dict(value.get("runtime_options", {})))
                ),
            )
        except ModelError as error:
            raise ReleaseError(
                "release.json names a runtime that cannot be", value=error.value, rule=error.rule,
                fix=error.fix or "upgrade modelyard where it is read",
            ) from error  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ReleaseError("release.json is not complete", value=error) from error
