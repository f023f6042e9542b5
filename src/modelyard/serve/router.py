"""Which release answers a request: the routing snapshot, one immutable value that is swapped whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from modelyard.core.digest import Digest
from modelyard.core.errors import RequestError
from modelyard.core.names import did_you_mean
from modelyard.release.policy import Policy, Single, route
from modelyard.serve.pool import Served


class Chosen(msgspec.Struct, frozen=True):
    """The release that answers one request, and those that are asked without being heard."""

    answer: Served
    shadows: tuple[Served, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint as it is served: its policy and every release that the policy names, loaded."""

    name: str
    generation: int
    policy: Policy
    releases: Mapping[Digest, Served]
    only: Chosen | None = field(init=False)
    """What answers everything, when there is no choice."""

    def __post_init__(self) -> None:
        missing = [digest for digest in self.policy.releases if digest not in self.releases]
        if missing:
            raise ValueError(f"the policy of {self.name} names releases that are not loaded: {missing}")
        only = Chosen(self.releases[self.policy.release]) if isinstance(self.policy, Single) else None
        object.__setattr__(self, "only", only)

    @property
    def champion(self) -> Served:
        """The release that stands for the endpoint in its metadata."""
        return self.releases[self.policy.champion]


class NotResident(RequestError):
    """The endpoint is one of the service's, but is not in memory now; it may be waited for."""

    def __init__(self, name: str) -> None:
        super().__init__("the endpoint is not loaded yet", status=503, value=name, retry_after=1.0,
                         fix="see /v2/health for the reason")  # fmt: skip
        self.name = name


class Router:
    """The endpoints that are in memory, by name, and the names of those that are not.

    `swap` replaces one at once: a request sees the old or the new.
    """

    def __init__(self, expected: tuple[str, ...] = ()) -> None:
        self._expected = frozenset(expected)
        self._endpoints: Mapping[str, Endpoint] = MappingProxyType({})
        self.changes = 0
        """How often `endpoints` or `expected` has changed."""
        self._names: tuple[int, tuple[str, ...]] | None = None

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """A snapshot of all endpoints."""
        return self._endpoints

    def swap(self, endpoint: Endpoint) -> None:
        """Serves an endpoint by a new policy from the next request on."""
        self._endpoints = MappingProxyType({**self._endpoints, endpoint.name: endpoint})
        self.changes += 1

    def drop(self, name: str) -> None:
        """Takes an endpoint out of memory; requests that were taken are answered."""
        self._endpoints = MappingProxyType(
            {key: kept for key, kept in self._endpoints.items() if key != name}
        )
        self.changes += 1

    @property
    def expected(self) -> frozenset[str]:
        """The endpoints that are served, or loaded when a request asks for them."""
        return self._expected

    @property
    def names(self) -> tuple[str, ...]:
        """All endpoints of the service, those in memory first."""
        if self._names is None or self._names[0] != self.changes:
            resident = tuple(self._endpoints)
            absent = tuple(sorted(self._expected.difference(resident)))
            self._names = (self.changes, resident + absent)
        return self._names[1]

    def expect(self, names: tuple[str, ...]) -> None:
        """From now on these are the endpoints that are served or will be."""
        self._expected = frozenset(names)
        self.changes += 1

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint of that name; raises `RequestError` 404 with the nearest name, or `NotResident`."""
        found = self._endpoints.get(name)
        if found is None and name in self._expected:
            raise NotResident(name)
        if found is None:
            raise RequestError("there is no such endpoint", status=404, value=name,
                               fix=did_you_mean(name, self._expected | set(self._endpoints)))  # fmt: skip
        return found

    def choose(self, endpoint: Endpoint, key: str, version: str | None = None) -> Chosen:
        """Where a request goes: by the policy and the key, or to the version that it names.

        Raises `RequestError` 404 when the endpoint does not serve that version.
        """
        if version is not None:
            return Chosen(self.version(endpoint, version))
        if endpoint.only is not None:
            return endpoint.only
        chosen = route(endpoint.policy, key)
        return Chosen(
            endpoint.releases[chosen.answer], tuple(endpoint.releases[digest] for digest in chosen.shadows)
        )

    def version(self, endpoint: Endpoint, version: str) -> Served:
        """The release of that version; raises `RequestError` 404 when it is not served."""
        for served in endpoint.releases.values():
            if served.version == version:
                return served
        raise RequestError(
            "the endpoint does not serve this version",
            status=404,
            value=version,
            where=endpoint.name,
            fix=did_you_mean(version, [served.version for served in endpoint.releases.values()]),
        )
