"""Endpoints: the names that clients call and the traffic policy behind each, all state from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.core.digest import Digest
from modelyard.release.policy import Policy

if TYPE_CHECKING:
    from modelyard.store.store import Store

SET, PROMOTE, ROLLBACK = "endpoint.set", "endpoint.promote", "endpoint.rollback"


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What an endpoint serves since ledger entry `generation`.

    `previous` are the releases that were champion before, the last one last: where rollback goes.
    `trial` is the ledger index at which the running canary or shadow began, `None` when there is none.
    """

    name: str
    generation: int
    policy: Policy
    previous: tuple[Digest, ...] = ()
    trial: int | None = None
    since: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of an endpoint's history, and whether it took effect (`refused` says why not)."""

    index: int
    time: str
    claim: str
    policy: Policy | None
    by: str
    why: str
    refused: str = ""


class Endpoints:
    """The endpoints of one store."""

    def __init__(self, store: Store) -> None:
        raise NotImplementedError

    def names(self) -> list[str]:
        raise NotImplementedError

    def show(self, name: str) -> EndpointState:
        raise NotImplementedError

    def set(self, name: str, policy: Policy, *, why: str, by: str, evidence: Sequence[int] = (),
            expected: int | None = None) -> EndpointState:  # fmt: skip
        raise NotImplementedError

    def promote(self, name: str, *, by: str, why: str = "", expected: int | None = None) -> EndpointState:
        raise NotImplementedError

    def rollback(self, name: str, *, why: str, by: str, expected: int | None = None) -> EndpointState:
        raise NotImplementedError

    def history(self, name: str) -> list[Change]:
        raise NotImplementedError
