"""Every exception that Modelyard raises on purpose, and what it tells the user.

    ModelyardError                  what, the value, the rule, the next step
    ├── ProjectError                modelyard.toml or a function it names is wrong
    ├── DataError                   a source cannot be read, a snapshot cannot be made
    ├── ContractError               contract.toml is wrong (bad *data* is a finding, not an error)
    ├── ModelError                  a model file is refused, or cannot be run
    │   └── ConversionError         an estimator or module does not become an equal ONNX graph
    ├── TrainError                  the recipe raised, or returned what cannot be trained
    ├── CompressError               a pass cannot be applied
    ├── StoreError                  the store cannot be reached, read or written
    │   ├── ObjectMissing           no object has this digest
    │   ├── ObjectCorrupt           an object's bytes do not have its digest
    │   ├── LedgerBroken            the ledger's chain does not verify
    │   └── StoreBusy               another process holds the writer's lock too long
    ├── ReleaseError                a bundle, a version or an endpoint is wrong
    │   ├── BundleTampered          a bundle's bytes differ from what was signed
    │   └── PromotionRefused        evidence does not allow the change of traffic
    ├── ServeError                  the server cannot start or the service cannot be reached
    ├── RequestError                a request is wrong; carries the HTTP status for the wire
    ├── MonitorError                a window cannot be judged
    └── MissingExtra                an optional dependency is not installed

Each class has an exit code for the command line; `docs/reference/exit-codes.md` is made from them.
"""

from __future__ import annotations

from typing import ClassVar


class ModelyardError(Exception):
    """Root of the tree. `what` happened, the offending `value`, the `rule` and the next step (`fix`).

    >>> print(ModelyardError("port is wrong", value=70000, rule="1 to 65535", fix="use 8080"))
    port is wrong: got 70000; the rule is: 1 to 65535; use 8080
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        value: object = None,
        rule: str | None = None,
        fix: str | None = None,
        where: str | None = None,
    ) -> None:
        self.what = what
        self.value = value
        self.rule = rule
        self.fix = fix
        self.where = where
        super().__init__(what)

    def __str__(self) -> str:
        facts = []
        if self.value is not None:
            facts.append(f"got {_short(self.value)}")
        if self.rule is not None:
            facts.append(f"the rule is: {self.rule}")
        if self.fix is not None:
            facts.append(self.fix)
        place = f"{self.where}: " if self.where else ""
        return place + self.what + (": " + "; ".join(facts) if facts else "")

    def facts(self) -> dict[str, str]:
        """The same facts for machines: kind, what, and whichever of where, value, rule, fix are known."""
        known = {
            "where": self.where,
            "value": None if self.value is None else _short(self.value),
            "rule": self.rule,
            "fix": self.fix,
        }
        return {
            "kind": type(self).__name__,
            "what": self.what,
            **{key: text for key, text in known.items() if text is not None},
        }


def _short(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class ProjectError(ModelyardError):
    """The project file, or something that it names, is wrong."""

    exit_code = 3


class DataError(ModelyardError):
    """A source cannot be read or does not hold what the project says."""

    exit_code = 4


class ContractError(DataError):
    """A contract file is not a contract. (Data that breaks a contract is a finding instead.)"""


class ModelError(ModelyardError):
    """A model is refused by the reader, or the runtime cannot load or run it."""

    exit_code = 5


class ConversionError(ModelError):
    """A trained object cannot become an ONNX graph that gives the same answers."""


class TrainError(ModelyardError):
    """A recipe raised, or what it built cannot be trained."""

    exit_code = 6


class CompressError(ModelyardError):
    """A compression pass cannot be applied. The original model is untouched."""

    exit_code = 7


class StoreError(ModelyardError):
    """The store cannot be reached, read or written."""

    exit_code = 8


class ObjectMissing(StoreError):
    """No object in the store has this digest."""


class ObjectCorrupt(StoreError):
    """The bytes found under a digest do not have that digest."""


class LedgerBroken(StoreError):
    """The ledger's hash chain does not verify: an entry was changed, lost or put in."""


class StoreBusy(StoreError):
    """Another process kept the writer's lock for longer than the wait allowed."""


class ReleaseError(ModelyardError):
    """A bundle, a version or an endpoint is wrong."""

    exit_code = 9


class BundleTampered(ReleaseError):
    """A bundle's bytes, names or signature differ from what was signed by a trusted key."""


class PromotionRefused(ReleaseError):
    """The evidence does not allow this change of traffic."""

    exit_code = 10


class ServeError(ModelyardError):
    """The server cannot start, or the service does not answer."""

    exit_code = 11


class RequestError(ModelyardError):
    """A request that cannot be answered as asked; `status` is the HTTP status that says so."""

    exit_code = 12

    def __init__(
        self,
        what: str,
        *,
        status: int = 400,
        value: object = None,
        rule: str | None = None,
        fix: str | None = None,
        where: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, value=value, rule=rule, fix=fix, where=where)
        self.status = status
        self.retry_after = retry_after


class MonitorError(ModelyardError):
    """A window of the prediction log cannot be judged."""

    exit_code = 13


class MissingExtra(ModelyardError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    exit_code = 14

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"the module {module!r} is not installed",
            fix=f"install it with: pip install 'modelyard[{extra}]'",
        )
        self.module = module
        self.extra = extra
