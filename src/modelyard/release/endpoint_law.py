"""What an entry of an endpoint does: the law that every reader of the ledger applies alike.

- A change counts only if the generation it names is still the one in force (of two at once, one wins).
- A release may take live traffic only after a passed gate (`infra.4`), and become champion in another's
  place only after a passed canary verdict that belongs to the running trial.
- A rollback needs no evidence.

So a promotion without evidence has no effect even when somebody writes the entry by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.core.digest import Digest, short
from modelyard.core.errors import PromotionRefused, ReleaseError
from modelyard.release.canary import CANARY
from modelyard.release.gate import GATE
from modelyard.release.policy import Canary, Policy, Single, policy_from_json
from modelyard.release.registry import ADDED

if TYPE_CHECKING:
    from modelyard.store.ledger import Entry

SET, PROMOTE, ROLLBACK = "endpoint.set", "endpoint.promote", "endpoint.rollback"
FORMAT = 1
"""Version of the entries' bodies; raised when an old reader would misread a new entry."""

Proof = Callable[[Digest, str], Sequence["Entry"]]
"""The entries with this subject and claim that count as evidence, oldest first."""


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What an endpoint serves since ledger entry `generation`, at time `since` (RFC 3339).

    `previous` are the releases that were champion before and were not rolled back from, the last one
    last: where the next rollbacks go. A canary's observations count from `since` on: every change of
    the policy, the fraction too, begins a new trial.
    """

    name: str
    generation: int
    since: str
    policy: Policy
    previous: tuple[Digest, ...] = ()

    @property
    def champion(self) -> Digest:
        """The release that clients get unless they are part of a trial."""
        return self.policy.champion


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of an endpoint's history; `refused` says why it had no effect (empty when it had)."""

    index: int
    time: str
    claim: str
    policy: Policy
    by: str
    why: str
    evidence: tuple[int, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a change is not allowed; `lacks` when it is evidence that is missing."""

    what: str
    fix: str
    lacks: bool = False

    def error(self, name: str, value: object) -> ReleaseError:
        """The refusal as whoever asked for the change is told."""
        kind = PromotionRefused if self.lacks else ReleaseError
        return kind(f"endpoint {name!r} cannot be changed, {self.what}", value=value, fix=self.fix)


@dataclass(frozen=True, slots=True)
class Wish:
    """A change that somebody asks for, made against generation `expected`."""

    claim: str
    policy: Policy
    expected: int


@dataclass(frozen=True, slots=True)
class Fold:
    """What the entries up to `after` made of an endpoint."""

    state: EndpointState | None = None
    changes: tuple[Change, ...] = ()
    after: int = 0


def step(fold: Fold, name: str, entry: Entry, proof: Proof) -> Fold:
    """The fold after one entry more; pure."""
    body: Mapping[str, Any] = entry.body
    try:
        if body["format"] != FORMAT or entry.claim not in (SET, PROMOTE, ROLLBACK):
            return Fold(fold.state, fold.changes, entry.index)
        policy = policy_from_json(body["policy"])
        expected = int(body["expected"])
        evidence = tuple(int(index) for index in body["evidence"])
        why = str(body["why"])
    except (KeyError, TypeError, ValueError, ReleaseError):
        # Not written by this module: a reader must not stop at it, and it must not change traffic.
        return Fold(fold.state, fold.changes, entry.index)
    state = fold.state
    refusal = objection(state, Wish(entry.claim, policy, expected), name, proof)
    change = Change(
        entry.index, entry.time, entry.claim, policy, entry.by, why, evidence, refusal.what if refusal else ""
    )
    if refusal is None:
        previous = _previous(state, entry.claim, policy)
        state = EndpointState(name, entry.index, entry.time, policy, previous)
    return Fold(state, (*fold.changes, change), entry.index)


def objection(state: EndpointState | None, change: Wish, name: str, proof: Proof) -> Refusal | None:
    """Why this change may not take effect on this state with this evidence; `None` when it may."""
    generation = 0 if state is None else state.generation
    if change.expected != generation:
        return moved(generation)
    if change.claim == ROLLBACK:
        target = None if state is None else rollback_target(state)
        right = isinstance(change.policy, Single) and change.policy.release == target
        return None if right else Refusal("that is not what served before", "roll back again")
    unknown = next((digest for digest in change.policy.releases if not proof(digest, ADDED)), None)
    if unknown is not None:
        return Refusal(f"{short(unknown)} is no release of this store", "list them with: modelyard releases")
    if state is None:
        return _first_refusal(change, proof)
    return _next_refusal(state, change, name, proof)


def _first_refusal(change: Wish, proof: Proof) -> Refusal | None:
    if change.claim == SET and isinstance(change.policy, Single):
        return _gate_missing(change.policy.release, proof)
    return Refusal("it has no champion yet", "let a single release serve first")


def _next_refusal(state: EndpointState, change: Wish, name: str, proof: Proof) -> Refusal | None:
    policy = change.policy
    if isinstance(policy, Single):
        # Ending a trial in the champion's favour is always allowed.
        if change.claim == SET and policy.release == state.champion:
            return None
        return _gate_missing(policy.release, proof) or _canary_missing(state, policy.release, name, proof)
    if change.claim != SET or policy.champion != state.champion:
        return Refusal(f"its champion is {short(state.champion)}", "name that release as the champion")
    # A shadow is never heard, so degraded copies may run there; a canary answers real clients.
    return _gate_missing(policy.candidate, proof) if isinstance(policy, Canary) else None


def _gate_missing(release: Digest, proof: Proof) -> Refusal | None:
    verdicts = _gate_verdicts(release, proof)
    if verdicts and verdicts[-1].passed is True:
        return None
    found = f"failed the gate: {verdicts[-1].body.get('why')}" if verdicts else "has no gate verdict"
    return Refusal(f"{short(release)} {found} ({GATE})", "validate it with: modelyard validate", lacks=True)


def _gate_verdicts(release: Digest, proof: Proof) -> list[Entry]:
    """Gate verdicts about the release or about the model in it, which is judged before it is packed."""
    subjects = {release}
    for entry in proof(release, ADDED):
        files = entry.body.get("files")
        subjects |= {str(files.get("model.onnx"))} if isinstance(files, dict) else set()
    found = [entry for subject in subjects for entry in proof(subject, GATE)]
    return sorted(found, key=lambda entry: entry.index)


def _canary_missing(state: EndpointState, release: Digest, name: str, proof: Proof) -> Refusal | None:
    fix = "let the canary run on, judged by: modelyard monitor --watch"
    if not isinstance(state.policy, Canary) or state.policy.candidate != release:
        return Refusal(
            f"{short(release)} is not the candidate of a running canary",
            "start one with: modelyard endpoint set",
            lacks=True,
        )
    about = [_details(entry) for entry in proof(release, CANARY) if entry.index > state.generation]
    verdicts = [
        item for item in about if (item.get("endpoint"), item.get("champion")) == (name, state.champion)
    ]
    if not verdicts:
        return Refusal(
            f"{short(release)} has no canary verdict since the canary began ({CANARY})", fix, lacks=True
        )
    if any(item.get("action") == "rollback" for item in verdicts):
        return Refusal(
            f"this canary of {short(release)} asked for a rollback",
            "roll back with: modelyard endpoint rollback",
            lacks=True,
        )
    if not (verdicts[-1]["passed"] is True and verdicts[-1].get("action") == "promote"):
        return Refusal(
            f"the canary of {short(release)} has not passed: {verdicts[-1]['why']}", fix, lacks=True
        )
    return None


def _details(entry: Entry) -> dict[str, Any]:
    details = entry.body.get("details")
    known = details if isinstance(details, dict) else {}
    return {**known, "passed": entry.passed, "why": entry.body.get("why")}


def relied_on(claim: str, policy: Policy, generation: int, proof: Proof) -> list[int]:
    """The entries that a change rests on, by index."""
    if claim == ROLLBACK:
        return []
    gates = [found[-1].index for digest in policy.releases if (found := _gate_verdicts(digest, proof))]
    canaries = [entry.index for entry in proof(policy.champion, CANARY) if entry.index > generation]
    return gates + (canaries[-1:] if isinstance(policy, Single) else [])


def rollback_target(state: EndpointState) -> Digest | None:
    """The release that a rollback leads to, if there is one."""
    if not isinstance(state.policy, Single):
        return state.policy.champion
    return state.previous[-1] if state.previous else None


def _previous(state: EndpointState | None, claim: str, policy: Policy) -> tuple[Digest, ...]:
    if state is None:
        return ()
    if claim == ROLLBACK:
        return state.previous[:-1] if isinstance(state.policy, Single) else state.previous
    return state.previous if policy.champion == state.champion else (*state.previous, state.champion)


def moved(generation: int) -> Refusal:
    """What is said to a change that was made against another generation."""
    return Refusal(
        f"it was changed meanwhile and is at generation {generation}",
        "look with: modelyard endpoint show; then decide again",
    )
