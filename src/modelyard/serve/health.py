"""What the process says of itself: alive, ready, and why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from modelyard.serve.router import Router


class Following(Protocol):
    """What health needs to know of whoever follows the store."""

    @property
    def endpoints(self) -> tuple[str, ...]: ...

    @property
    def base(self) -> frozenset[str]: ...

    @property
    def refused(self) -> Mapping[str, Any]: ...

    @property
    def asked(self) -> bool: ...

    @property
    def store_error(self) -> str | None: ...

    @property
    def store_since(self) -> str: ...

    def met(self, name: str) -> bool: ...

    def state(self, name: str) -> str: ...


class Health:
    """Readiness of one process: every endpoint that it was started for is served, and it is not draining.

    What is loaded when it is asked for counts as served: it is known to the store, and nothing has failed.
    What an operator unloads is not waited for. What an operator loads has a readiness of its own: a name
    that was mistyped must not take the whole service out of its balancer.
    """

    def __init__(self, router: Router, following: Following) -> None:
        self._router = router
        self._following = following
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether requests to every endpoint are answered."""
        following = self._following
        return not self.draining and all(
            following.met(name) for name in following.endpoints if name in following.base
        )

    @property
    def settled(self) -> bool:
        """Whether every endpoint is served or refused, or the store was asked and did not answer."""
        following = self._following
        if following.asked and following.store_error is not None:
            return True
        return all(following.met(name) or name in following.refused for name in following.endpoints)

    def endpoint_ready(self, name: str) -> bool:
        """Whether requests to this endpoint are answered, maybe after it was loaded for the first."""
        return not self.draining and self._answers(name)

    def report(self) -> dict[str, Any]:
        """Everything, for people and probes."""
        following = self._following
        return {
            "live": True,
            "ready": self.ready,
            "draining": self.draining,
            "store": {
                "reachable": following.store_error is None,
                "since": following.store_since,
                "error": following.store_error,
            },
            "endpoints": {name: self._endpoint(name) for name in self._following.endpoints},
        }

    def _answers(self, name: str) -> bool:
        state = self._following.state(name)
        return state in ("ready", "evicted", "cold") or (state == "loading" and self._following.met(name))

    def _endpoint(self, name: str) -> dict[str, Any]:
        served = self._router.endpoints.get(name)
        refused = self._following.refused.get(name)
        report: dict[str, Any] = {"ready": self._answers(name), "state": self._following.state(name)}
        if served is not None:
            report |= {
                "generation": served.generation,
                "policy": served.policy.to_json(),
                "releases": [
                    {
                        "digest": item.digest,
                        "name": item.name,
                        "version": item.version,
                        "item_seconds": item.item_seconds,
                        "bytes": item.bytes,
                        "batched": item.lane.batchable,
                        "inline": item.lane.inline,
                        "waiting": item.lane.waiting,
                    }
                    for item in served.releases.values()
                ],
            }
        if refused is not None:
            report["refused"] = {
                "generation": refused.generation,
                "since": refused.since,
                "why": refused.why,
            }
        return report
