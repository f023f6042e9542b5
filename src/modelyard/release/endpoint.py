"""Endpoints: the names that clients call and the traffic policy behind each, folded from the ledger alone.

A change is one ledger entry that carries the generation it was made against. Whether it takes effect is
decided where it is read, by the entries before it, and every reader decides alike:

- it counts only if the generation it names is still the one in force (of two changes at once, one wins);
- a release may take live traffic only after a passed gate (`infra.4`), and become champion in another's
  place only after a passed canary verdict that belongs to the running trial;
- a rollback needs no evidence.

So a promotion without evidence has no effect even when somebody writes the entry by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.core.digest import Digest, short
from modelyard.core.errors import PromotionRefused, ReleaseError
from modelyard.core.names import NAME_RULE, did_you_mean, is_name
from modelyard.release.canary import CANARY
from modelyard.release.gate import GATE
from modelyard.release.policy import Canary, Policy, Single, policy_from_json
from modelyard.release.registry import ADDED

if TYPE_CHECKING:
    from modelyard.store.ledger import Entry
    from modelyard.store.store import Store

SET, PROMOTE, ROLLBACK = "endpoint.set", "endpoint.promote", "endpoint.rollback"
FORMAT = 1
"""Version of the entries' bodies; raised when an old reader would misread a new entry."""

_SUBJECT = "endpoint:"
_MANY = 4
"""Beyond so many endpoints at once, all evidence is read in three queries instead of some for each."""

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
class _Refusal:
    """Why a change is not allowed; `lacks` when it is evidence that is missing."""

    what: str
    fix: str
    lacks: bool = False

    def error(self, name: str, value: object) -> ReleaseError:
        kind = PromotionRefused if self.lacks else ReleaseError
        return kind(f"endpoint {name!r} cannot be changed, {self.what}", value=value, fix=self.fix)


@dataclass(frozen=True, slots=True)
class _Wish:
    claim: str
    policy: Policy
    expected: int


@dataclass(frozen=True, slots=True)
class _Fold:
    state: EndpointState | None = None
    changes: tuple[Change, ...] = ()
    after: int = 0


class Endpoints:
    """The endpoints of one store. Holds what it has folded so far, all of it derived from the ledger."""

    def __init__(self, store: Store) -> None:
        self._ledger = store.ledger
        self._folds: dict[str, _Fold] = {}
        self._read = 0

    def catch_up(self) -> frozenset[str]:
        """The endpoints that the ledger speaks of since the last call; all of them at the first.

        One query when nothing is new. What is new is folded here, so that `known` needs none.
        """
        entries = self._ledger.entries(prefix="endpoint.", after=self._read)
        by_name: dict[str, list[Entry]] = {}
        for entry in entries:
            by_name.setdefault(entry.subject.removeprefix(_SUBJECT), []).append(entry)
        # What an entry relies on was written before it: whatever is read from now on holds all of it.
        evidence = self._evidence() if len(by_name) > _MANY else None
        for name, its in by_name.items():
            fold = self._folds.get(name, _Fold())
            known: dict[tuple[Digest, str], list[Entry]] = {}
            for entry in its:
                if entry.index > fold.after:
                    proof = self._proof(entry.index, known) if evidence is None else evidence(entry.index)
                    fold = _step(fold, name, entry, proof)
            self._folds[name] = fold
        if entries:
            self._read = entries[-1].index
        return frozenset(by_name)

    def known(self, name: str) -> EndpointState | None:
        """What the endpoint served when it was last folded; nothing is asked of the ledger."""
        return self._folds.get(name, _Fold()).state

    def names(self) -> list[str]:
        """The endpoints that serve something, sorted."""
        entries = self._ledger.entries(claim=SET)
        names = {entry.subject.removeprefix(_SUBJECT) for entry in entries}
        return sorted(name for name in names if self._fold(name).state is not None)

    def show(self, name: str) -> EndpointState:
        """What the endpoint serves now; `ReleaseError` with "did you mean" when there is no such endpoint."""
        state = self._fold(name).state
        if state is None:
            raise ReleaseError(f"there is no endpoint {name!r}", fix=did_you_mean(name, self.names()))
        return state

    def history(self, name: str) -> list[Change]:
        """Every change that was written, oldest first, with those that had no effect and why."""
        return list(self._fold(name).changes)

    def set(
        self,
        name: str,
        policy: Policy,
        *,
        why: str,
        by: str,
        evidence: Sequence[int] = (),
        expected: int | None = None,
    ) -> EndpointState:
        """Changes the policy; setting what is set already changes nothing.

        `evidence` are ledger indexes to note beside the change. With `expected`, the change is made only
        against that generation. Raises `PromotionRefused` when evidence is missing (the first champion
        needs a passed gate; another in its place is a promotion), `ReleaseError` when the policy does not
        fit what is served or somebody else changed the endpoint meanwhile.
        """
        if not is_name(name):
            raise ReleaseError("the endpoint's name is wrong", value=name, rule=NAME_RULE)
        state = self._fold(name).state
        if state is not None and state.policy == policy and expected in (None, state.generation):
            return state
        return self._change(name, state, SET, policy, why=why, by=by, evidence=evidence, expected=expected)

    def promote(
        self, name: str, *, by: str, why: str = "the canary passed", expected: int | None = None
    ) -> EndpointState:
        """Makes the canary's candidate the champion.

        Raises `PromotionRefused`, saying what is missing and which command brings it, unless the candidate
        has passed the gate and the newest canary verdict since the trial began has passed and none
        asked for a rollback.
        """
        state = self.show(name)
        if not isinstance(state.policy, Canary):
            raise PromotionRefused(
                f"endpoint {name!r} runs no canary",
                value=state.policy.kind,
                rule="only a canary's candidate is promoted",
                fix="start one with: modelyard endpoint set",
            )
        policy = Single(state.policy.candidate)
        return self._change(name, state, PROMOTE, policy, why=why, by=by, expected=expected)

    def rollback(self, name: str, *, why: str, by: str, expected: int | None = None) -> EndpointState:
        """Goes back to what served before, whatever the evidence says.

        While a canary or shadow runs, that ends and the champion answers all. Otherwise the champion
        before this one serves again, and a further rollback goes further back; a release that was
        rolled back from is never gone back to. Raises `ReleaseError` when nothing served before.
        """
        state = self.show(name)
        target = _rollback_target(state)
        if target is None:
            raise ReleaseError(
                f"endpoint {name!r} has nothing to roll back to",
                value=short(state.champion),
                rule="a release that served before",
                fix="release a better version, or stop the service",
            )
        return self._change(name, state, ROLLBACK, Single(target), why=why, by=by, expected=expected)

    def _change(
        self,
        name: str,
        state: EndpointState | None,
        claim: str,
        policy: Policy,
        *,
        why: str,
        by: str,
        evidence: Sequence[int] = (),
        expected: int | None,
    ) -> EndpointState:
        generation = 0 if state is None else state.generation
        if expected is not None and expected != generation:
            raise _moved(generation).error(name, expected)
        proof = self._proof()
        refusal = _refusal(state, _Wish(claim, policy, generation), name, proof)
        if refusal is not None:
            raise refusal.error(name, short(policy.releases[-1]))
        body = {
            "format": FORMAT,
            "expected": generation,
            "policy": policy.to_json(),
            "why": why,
            "evidence": sorted({*evidence, *_relied_on(claim, policy, generation, proof)}),
        }
        entry = self._ledger.append(_SUBJECT + name, claim, body=body, by=by)
        fold = self._fold(name)
        change = next((item for item in fold.changes if item.index == entry.index), None)
        if change is None or change.refused or fold.state is None:
            reason = change.refused if change else "the entry is not in the ledger"
            raise ReleaseError(
                f"endpoint {name!r} was not changed, {reason}",
                value=entry.index,
                fix="look with: modelyard endpoint show; then decide again",
            )
        return fold.state

    def _fold(self, name: str) -> _Fold:
        fold = self._folds.get(name, _Fold())
        known: dict[tuple[Digest, str], list[Entry]] = {}
        for entry in self._ledger.entries(subject=_SUBJECT + name, prefix="endpoint.", after=fold.after):
            fold = _step(fold, name, entry, self._proof(entry.index, known))
        self._folds[name] = fold
        return fold

    def _evidence(self) -> Callable[[int], Proof]:
        """All that endpoints may rely on, as the proof before any entry that was read already."""
        found: dict[tuple[Digest, str], list[Entry]] = {}
        for claim in (ADDED, GATE, CANARY):
            for entry in self._ledger.entries(claim=claim):
                found.setdefault((entry.subject, claim), []).append(entry)

        def proof(before: int) -> Proof:
            return lambda digest, claim: [
                entry for entry in found.get((digest, claim), ()) if entry.index < before
            ]

        return proof

    def _proof(
        self, before: float = math.inf, known: dict[tuple[Digest, str], list[Entry]] | None = None
    ) -> Proof:
        """What the ledger says before an entry; `known` keeps the answers of one pass over the history."""
        found = {} if known is None else known

        def entries(digest: Digest, claim: str) -> Sequence[Entry]:
            if (digest, claim) not in found:
                found[digest, claim] = self._ledger.entries(subject=digest, claim=claim)
            return [entry for entry in found[digest, claim] if entry.index < before]

        return entries


def _step(fold: _Fold, name: str, entry: Entry, proof: Proof) -> _Fold:
    """The fold after one entry more; pure."""
    body: Mapping[str, Any] = entry.body
    try:
        if body["format"] != FORMAT or entry.claim not in (SET, PROMOTE, ROLLBACK):
            return _Fold(fold.state, fold.changes, entry.index)
        policy = policy_from_json(body["policy"])
        expected = int(body["expected"])
        evidence = tuple(int(index) for index in body["evidence"])
        why = str(body["why"])
    except (KeyError, TypeError, ValueError, ReleaseError):
        # Not written by this module: a reader must not stop at it, and it must not change traffic.
        return _Fold(fold.state, fold.changes, entry.index)
    state = fold.state
    refusal = _refusal(state, _Wish(entry.claim, policy, expected), name, proof)
    change = Change(
        entry.index, entry.time, entry.claim, policy, entry.by, why, evidence, refusal.what if refusal else ""
    )
    if refusal is None:
        previous = _previous(state, entry.claim, policy)
        state = EndpointState(name, entry.index, entry.time, policy, previous)
    return _Fold(state, (*fold.changes, change), entry.index)


def _refusal(state: EndpointState | None, change: _Wish, name: str, proof: Proof) -> _Refusal | None:
    """Why this change may not take effect on this state with this evidence; `None` when it may."""
    generation = 0 if state is None else state.generation
    if change.expected != generation:
        return _moved(generation)
    if change.claim == ROLLBACK:
        target = None if state is None else _rollback_target(state)
        right = isinstance(change.policy, Single) and change.policy.release == target
        return None if right else _Refusal("that is not what served before", "roll back again")
    unknown = next((digest for digest in change.policy.releases if not proof(digest, ADDED)), None)
    if unknown is not None:
        return _Refusal(f"{short(unknown)} is no release of this store", "list them with: modelyard releases")
    if state is None:
        return _first_refusal(change, proof)
    return _next_refusal(state, change, name, proof)


def _first_refusal(change: _Wish, proof: Proof) -> _Refusal | None:
    if change.claim == SET and isinstance(change.policy, Single):
        return _gate_missing(change.policy.release, proof)
    return _Refusal("it has no champion yet", "let a single release serve first")


def _next_refusal(state: EndpointState, change: _Wish, name: str, proof: Proof) -> _Refusal | None:
    policy = change.policy
    if isinstance(policy, Single):
        # Ending a trial in the champion's favour is always allowed.
        if change.claim == SET and policy.release == state.champion:
            return None
        return _gate_missing(policy.release, proof) or _canary_missing(state, policy.release, name, proof)
    if change.claim != SET or policy.champion != state.champion:
        return _Refusal(f"its champion is {short(state.champion)}", "name that release as the champion")
    # A shadow is never heard, so degraded copies may run there; a canary answers real clients.
    return _gate_missing(policy.candidate, proof) if isinstance(policy, Canary) else None


def _gate_missing(release: Digest, proof: Proof) -> _Refusal | None:
    verdicts = _gate_verdicts(release, proof)
    if verdicts and verdicts[-1].passed is True:
        return None
    found = f"failed the gate: {verdicts[-1].body.get('why')}" if verdicts else "has no gate verdict"
    return _Refusal(f"{short(release)} {found} ({GATE})", "validate it with: modelyard validate", lacks=True)


def _gate_verdicts(release: Digest, proof: Proof) -> list[Entry]:
    """Gate verdicts about the release or about the model in it, which is judged before it is packed."""
    subjects = {release}
    for entry in proof(release, ADDED):
        files = entry.body.get("files")
        subjects |= {str(files.get("model.onnx"))} if isinstance(files, dict) else set()
    found = [entry for subject in subjects for entry in proof(subject, GATE)]
    return sorted(found, key=lambda entry: entry.index)


def _canary_missing(state: EndpointState, release: Digest, name: str, proof: Proof) -> _Refusal | None:
    fix = "let the canary run on, judged by: modelyard monitor --watch"
    if not isinstance(state.policy, Canary) or state.policy.candidate != release:
        return _Refusal(
            f"{short(release)} is not the candidate of a running canary",
            "start one with: modelyard endpoint set",
            lacks=True,
        )
    about = [_details(entry) for entry in proof(release, CANARY) if entry.index > state.generation]
    verdicts = [
        item for item in about if (item.get("endpoint"), item.get("champion")) == (name, state.champion)
    ]
    if not verdicts:
        return _Refusal(
            f"{short(release)} has no canary verdict since the canary began ({CANARY})", fix, lacks=True
        )
    if any(item.get("action") == "rollback" for item in verdicts):
        return _Refusal(
            f"this canary of {short(release)} asked for a rollback",
            "roll back with: modelyard endpoint rollback",
            lacks=True,
        )
    if not (verdicts[-1]["passed"] is True and verdicts[-1].get("action") == "promote"):
        return _Refusal(
            f"the canary of {short(release)} has not passed: {verdicts[-1]['why']}", fix, lacks=True
        )
    return None


def _details(entry: Entry) -> dict[str, Any]:
    details = entry.body.get("details")
    known = details if isinstance(details, dict) else {}
    return {**known, "passed": entry.passed, "why": entry.body.get("why")}


def _relied_on(claim: str, policy: Policy, generation: int, proof: Proof) -> list[int]:
    if claim == ROLLBACK:
        return []
    gates = [found[-1].index for digest in policy.releases if (found := _gate_verdicts(digest, proof))]
    canaries = [entry.index for entry in proof(policy.champion, CANARY) if entry.index > generation]
    return gates + (canaries[-1:] if isinstance(policy, Single) else [])


def _rollback_target(state: EndpointState) -> Digest | None:
    if not isinstance(state.policy, Single):
        return state.policy.champion
    return state.previous[-1] if state.previous else None


def _previous(state: EndpointState | None, claim: str, policy: Policy) -> tuple[Digest, ...]:
    if state is None:
        return ()
    if claim == ROLLBACK:
        return state.previous[:-1] if isinstance(state.policy, Single) else state.previous
    return state.previous if policy.champion == state.champion else (*state.previous, state.champion)


def _moved(generation: int) -> _Refusal:
    return _Refusal(
        f"it was changed meanwhile and is at generation {generation}",
        "look with: modelyard endpoint show; then decide again",
    )
