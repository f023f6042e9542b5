"""Endpoints: the names that clients call and the traffic policy behind each, folded from the ledger alone.

A change is one ledger entry that carries the generation it was made against. Whether it takes effect is
decided where it is read, by the entries before it: see `endpoint_law`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from modelyard.core.digest import Digest, short
from modelyard.core.errors import PromotionRefused, ReleaseError
from modelyard.core.names import NAME_RULE, did_you_mean, is_name
from modelyard.release.canary import CANARY
from modelyard.release.endpoint_law import (
    FORMAT,
    PROMOTE,
    ROLLBACK,
    SET,
    Change,
    EndpointState,
    Fold,
    Proof,
    Wish,
    moved,
    objection,
    relied_on,
    rollback_target,
    step,
)
from modelyard.release.gate import GATE
from modelyard.release.policy import Canary, Policy, Single
from modelyard.release.registry import ADDED

if TYPE_CHECKING:
    from modelyard.store.ledger import Entry
    from modelyard.store.store import Store

_SUBJECT = "endpoint:"
_MANY = 4
"""Beyond so many endpoints at once, all evidence is read in three queries instead of some for each."""


class Endpoints:
    """The endpoints of one store. Holds what it has folded so far, all of it derived from the ledger."""

    def __init__(self, store: Store) -> None:
        self._ledger = store.ledger
        self._folds: dict[str, Fold] = {}
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
            fold = self._folds.get(name, Fold())
            known: dict[tuple[Digest, str], list[Entry]] = {}
            for entry in its:
                if entry.index > fold.after:
                    proof = self._proof(entry.index, known) if evidence is None else evidence(entry.index)
                    fold = step(fold, name, entry, proof)
            self._folds[name] = fold
        if entries:
            self._read = entries[-1].index
        return frozenset(by_name)

    def known(self, name: str) -> EndpointState | None:
        """What the endpoint served when it was last folded; nothing is asked of the ledger."""
        return self._folds.get(name, Fold()).state

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
        target = rollback_target(state)
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
            raise moved(generation).error(name, expected)
        proof = self._proof()
        refusal = objection(state, Wish(claim, policy, generation), name, proof)
        if refusal is not None:
            raise refusal.error(name, short(policy.releases[-1]))
        body = {
            "format": FORMAT,
            "expected": generation,
            "policy": policy.to_json(),
            "why": why,
            "evidence": sorted({*evidence, *relied_on(claim, policy, generation, proof)}),
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

    def _fold(self, name: str) -> Fold:
        fold = self._folds.get(name, Fold())
        known: dict[tuple[Digest, str], list[Entry]] = {}
        for entry in self._ledger.entries(subject=_SUBJECT + name, prefix="endpoint.", after=fold.after):
            fold = step(fold, name, entry, self._proof(entry.index, known))
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
