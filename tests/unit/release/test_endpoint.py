from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.digest import Digest, digest_bytes
from modelyard.core.errors import PromotionRefused, ReleaseError
from modelyard.measure.measurement import Verdict
from modelyard.release.bundle import Bundle
from modelyard.release.canary import Action, Arm, CanaryOptions, Trial, judge_canary
from modelyard.release.endpoint import Endpoints
from modelyard.release.endpoint_law import PROMOTE, ROLLBACK, SET
from modelyard.release.gate import GATE
from modelyard.release.key import SigningKey
from modelyard.release.policy import Canary, Shadow, Single
from modelyard.release.registry import Registry
from modelyard.store.store import Store, open_store


class Yard:
    """A store with releases in it, and the verdicts that a test wants."""

    def __init__(self, store: Store, key: SigningKey, make: Callable[..., Bundle]) -> None:
        self.store = store
        self.endpoints = Endpoints(store)
        self._registry = Registry(store, [key.public])
        self._make = make

    def release(self, *, gated: bool | None = True) -> Digest:
        number = len(self._registry.list()) + 1
        digest = self._registry.publish(
            "digits", lambda version: self._make(version, weight=float(number))
        ).digest
        if gated is not None:
            self.gate(digest, gated)
        return digest

    def gate(self, subject: Digest, passed: bool) -> None:
        self.store.ledger.append_verdict(subject, Verdict(GATE, passed, "as the test wants"), by="tester")

    def canary(self, action: Action, **changes: Any) -> int:
        """Appends the judge's own verdict of that action on the running trial."""
        policy = self.endpoints.show("digits").policy
        assert isinstance(policy, Canary)
        facts: dict[str, Any] = {
            "endpoint": "digits",
            "champion": policy.champion,
            "candidate": policy.candidate,
        }
        trial = Trial(**{**facts, **changes}, elapsed=1)
        good = Arm(requests=900, timed=900, labelled=900)
        arms = {"promote": good, "continue": Arm(requests=5), "rollback": Arm(requests=900, errors=300)}
        decision = judge_canary(trial, good, arms[action], CanaryOptions())
        assert decision.action == action
        return self.store.ledger.append_verdict(trial.candidate, decision.verdict, by="judge").index

    def set(self, policy: Single | Canary | Shadow, **options: Any) -> int:
        return self.endpoints.set("digits", policy, why="test", by="tester", **options).generation

    def shows(self, policy: Single | Canary | Shadow) -> bool:
        """Whether this and a reader that begins afresh see this policy."""
        states = {self.endpoints.show("digits"), Endpoints(self.store).show("digits")}
        assert len(states) == 1
        return states.pop().policy == policy


@pytest.fixture
def yard(store: Store, key: SigningKey, make: Callable[..., Bundle]) -> Yard:
    return Yard(store, key, make)


def promoted(yard: Yard) -> Digest:
    """One release more becomes champion in the regular way."""
    candidate = yard.release()
    yard.set(Canary(yard.endpoints.show("digits").champion, candidate, 0.1))
    yard.canary("promote")
    yard.endpoints.promote("digits", by="tester")
    return candidate


def test_the_life_of_an_endpoint(yard: Yard) -> None:
    a, b = yard.release(), yard.release()
    first = yard.set(Single(a))
    assert yard.endpoints.names() == ["digits"]
    assert first == yard.store.ledger.head().index  # type: ignore[union-attr]
    yard.set(Shadow(a, b))
    yard.set(Canary(a, b, 0.1))
    verdict = yard.canary("promote")
    state = yard.endpoints.promote("digits", by="tester")
    assert yard.shows(Single(b))
    assert state.previous == (a,)
    yard.endpoints.rollback("digits", why="alarm", by="tester")
    assert yard.shows(Single(a))
    history = yard.endpoints.history("digits")
    assert [item.claim for item in history] == [SET, SET, SET, PROMOTE, ROLLBACK]
    assert [item.refused for item in history] == [""] * 5
    assert verdict in history[3].evidence
    assert history[4].why == "alarm"


def test_each_change_is_one_entry(yard: Yard) -> None:
    yard.set(Single(yard.release()))
    promoted(yard)
    before = yard.store.ledger.head().index  # type: ignore[union-attr]
    state = yard.endpoints.rollback("digits", why="x", by="tester")
    assert state.generation == before + 1
    assert yard.store.ledger.head().index == state.generation  # type: ignore[union-attr]


def test_setting_what_is_set_changes_nothing(yard: Yard) -> None:
    a = yard.release()
    assert yard.set(Single(a)) == yard.set(Single(a))
    assert len(yard.endpoints.history("digits")) == 1


def test_the_gate_may_speak_about_the_model_in_the_release(yard: Yard, bundle: Bundle) -> None:
    a = yard.release(gated=None)
    with pytest.raises(PromotionRefused, match="no gate verdict"):
        yard.set(Single(a))
    yard.gate(bundle.digests["model.onnx"], True)
    yard.set(Single(a))
    assert yard.shows(Single(a))


@pytest.mark.parametrize("gated", [None, False])
def test_nothing_serves_without_a_passed_gate(yard: Yard, gated: bool | None) -> None:
    a = yard.release(gated=gated)
    with pytest.raises(PromotionRefused, match=r"infra\.4.*modelyard validate"):
        yard.set(Single(a))
    assert yard.endpoints.names() == []
    good = yard.release()
    yard.set(Single(good))
    with pytest.raises(PromotionRefused, match=r"infra\.4"):
        yard.set(Canary(good, a, 0.1))
    yard.set(Shadow(good, a))
    assert yard.shows(Shadow(good, a))


def test_the_newest_gate_verdict_counts(yard: Yard) -> None:
    a = yard.release()
    yard.gate(a, False)
    with pytest.raises(PromotionRefused, match="failed the gate"):
        yard.set(Single(a))


def test_promotion_needs_a_canary_that_runs(yard: Yard) -> None:
    a, b = yard.release(), yard.release()
    yard.set(Single(a))
    with pytest.raises(PromotionRefused, match="runs no canary"):
        yard.endpoints.promote("digits", by="tester")
    yard.set(Shadow(a, b))
    with pytest.raises(PromotionRefused, match="runs no canary"):
        yard.endpoints.promote("digits", by="tester")


def test_set_is_no_way_around_the_canary(yard: Yard) -> None:
    a, b = yard.release(), yard.release()
    yard.set(Single(a))
    with pytest.raises(PromotionRefused, match="not the candidate"):
        yard.set(Single(b))
    yard.set(Canary(a, b, 1.0))
    with pytest.raises(PromotionRefused, match="no canary verdict"):
        yard.set(Single(b))
    assert yard.shows(Canary(a, b, 1.0))


def test_promotion_needs_the_passed_verdict_of_this_trial(yard: Yard) -> None:
    a, b = yard.release(), yard.release()
    yard.set(Single(a))
    yard.set(Canary(a, b, 0.1))

    def refused(why: str) -> None:
        with pytest.raises(PromotionRefused, match=why):
            yard.endpoints.promote("digits", by="tester")
        assert yard.shows(Canary(a, b, yard.endpoints.show("digits").policy.fraction))  # type: ignore[union-attr]

    refused(r"no canary verdict.*release\.canary.*modelyard monitor")
    yard.canary("continue")
    refused("has not passed: not decided yet")
    yard.canary("promote", endpoint="another")
    refused("has not passed")
    yard.canary("promote", champion=digest_bytes(b"another"))
    refused("has not passed")
    yard.canary("promote")
    yard.set(Canary(a, b, 0.5))
    refused("no canary verdict since")
    yard.canary("promote")
    yard.canary("continue")
    refused("has not passed")
    yard.canary("promote")
    yard.endpoints.promote("digits", by="tester")
    assert yard.shows(Single(b))


def test_a_verdict_for_rollback_ends_the_trial_for_good(yard: Yard) -> None:
    a, b = yard.release(), yard.release()
    yard.set(Single(a))
    yard.set(Canary(a, b, 0.1))
    yard.canary("rollback")
    yard.canary("promote")
    with pytest.raises(PromotionRefused, match="asked for a rollback"):
        yard.endpoints.promote("digits", by="tester")
    yard.endpoints.rollback("digits", why="as asked", by="tester")
    yard.set(Canary(a, b, 0.1))
    yard.canary("promote")
    yard.endpoints.promote("digits", by="tester")
    assert yard.shows(Single(b))


def test_a_promotion_written_by_hand_has_no_effect(yard: Yard) -> None:
    """Whoever can append to the ledger still cannot promote without the evidence."""
    a, b = yard.release(), yard.release()
    yard.set(Single(a))
    generation = yard.set(Canary(a, b, 0.1))
    yard.canary("rollback")
    body = {"format": 1, "expected": generation, "policy": Single(b).to_json(), "why": "!", "evidence": []}
    for claim in (PROMOTE, SET, ROLLBACK):
        yard.store.ledger.append("endpoint:digits", claim, body=body, by="intruder")
    assert yard.shows(Canary(a, b, 0.1))
    assert [bool(item.refused) for item in yard.endpoints.history("digits")] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_a_failed_verdict_that_comes_first_wins_the_race(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary fails between the check of the evidence and the entry: the promotion has no effect."""
    a, b = yard.release(), yard.release()
    yard.set(Single(a))
    yard.set(Canary(a, b, 0.1))
    yard.canary("promote")
    ledger, append = yard.store.ledger, yard.store.ledger.append

    class Late:
        entries = ledger.entries

        def append(self, *args: Any, **options: Any) -> Any:
            yard.canary("rollback")
            return append(*args, **options)

    endpoints = Endpoints(yard.store)
    monkeypatch.setattr(endpoints, "_ledger", Late())
    with pytest.raises(ReleaseError, match="asked for a rollback"):
        endpoints.promote("digits", by="tester")
    assert yard.shows(Canary(a, b, 0.1))


def test_foreign_entries_do_not_stop_a_reader(yard: Yard) -> None:
    a = yard.release()
    yard.set(Single(a))
    for body in ({}, {"format": 9}, {"format": 1, "policy": 7, "expected": "x", "evidence": [], "why": ""}):
        yard.store.ledger.append("endpoint:digits", SET, body=body, by="future")
    yard.store.ledger.append("endpoint:digits", "endpoint.future", body={}, by="future")
    assert yard.shows(Single(a))


def test_rollback_goes_further_back_each_time(yard: Yard) -> None:
    a = yard.release()
    yard.set(Single(a))
    b = promoted(yard)
    c = promoted(yard)
    assert yard.shows(Single(c))
    for target in (b, a):
        yard.endpoints.rollback("digits", why="x", by="tester")
        assert yard.shows(Single(target))
    with pytest.raises(ReleaseError, match="nothing to roll back to"):
        yard.endpoints.rollback("digits", why="x", by="tester")
    d = promoted(yard)
    yard.endpoints.rollback("digits", why="x", by="tester")
    assert yard.shows(Single(a)), "never to a release that was rolled back from"
    assert d != a


def test_rollback_of_a_trial_keeps_the_champion(yard: Yard) -> None:
    a = yard.release()
    yard.set(Single(a))
    b = promoted(yard)
    c = yard.release()
    for trial in (Canary(b, c, 0.5), Shadow(b, c)):
        yard.set(trial)
        yard.endpoints.rollback("digits", why="x", by="tester")
        assert yard.shows(Single(b))
    yard.endpoints.rollback("digits", why="x", by="tester")
    assert yard.shows(Single(a))


def test_rollback_needs_no_evidence(yard: Yard) -> None:
    a = yard.release()
    yard.set(Single(a))
    promoted(yard)
    yard.gate(a, False)
    yard.endpoints.rollback("digits", why="x", by="tester")
    assert yard.shows(Single(a))


def test_a_trial_must_fit_the_champion(yard: Yard) -> None:
    a, b, c = yard.release(), yard.release(), yard.release()
    with pytest.raises(ReleaseError, match="no champion yet"):
        yard.set(Canary(a, b, 0.1))
    yard.set(Single(a))
    with pytest.raises(ReleaseError, match="its champion is"):
        yard.set(Canary(b, c, 0.1))
    with pytest.raises(ReleaseError, match="no release of this store"):
        yard.set(Canary(a, digest_bytes(b"?"), 0.1))
    with pytest.raises(ReleaseError, match="no release of this store"):
        yard.endpoints.set("new", Single(digest_bytes(b"?")), why="", by="tester")


def test_what_is_not_there(yard: Yard) -> None:
    with pytest.raises(ReleaseError, match="no endpoint 'digits'"):
        yard.endpoints.show("digits")
    yard.set(Single(yard.release()))
    with pytest.raises(ReleaseError, match="did you mean 'digits'"):
        yard.endpoints.rollback("digit", why="", by="tester")
    with pytest.raises(ReleaseError, match="name is wrong"):
        yard.endpoints.set("../x", Single(digest_bytes(b"")), why="", by="tester")


def test_a_change_against_an_old_generation_is_refused(yard: Yard) -> None:
    a, b = yard.release(), yard.release()
    seen = yard.set(Single(a))
    yard.set(Shadow(a, b))
    with pytest.raises(ReleaseError, match="changed meanwhile"):
        yard.set(Canary(a, b, 0.2), expected=seen)
    with pytest.raises(ReleaseError, match="changed meanwhile"):
        yard.endpoints.rollback("digits", why="", by="tester", expected=seen)
    assert yard.shows(Shadow(a, b))


def test_of_two_rollbacks_at_once_one_counts(yard: Yard, tmp_path: Path) -> None:
    """Two people press the button in the same moment: the endpoint goes one release back, not two."""
    a = yard.release()
    yard.set(Single(a))
    b = promoted(yard)
    promoted(yard)
    root, seen = yard.store.root, yard.endpoints.show("digits").generation
    context = multiprocessing.get_context("fork")
    barrier, said = context.Barrier(4), context.Queue()

    def press() -> None:
        store = open_store(root)
        endpoints = Endpoints(store)
        endpoints.show("digits")
        barrier.wait(30)
        try:
            said.put(endpoints.rollback("digits", why="x", by="tester", expected=seen).generation)
        except ReleaseError:
            said.put(None)
        store.close()

    workers = [context.Process(target=press) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = [said.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert sum(item is not None for item in found) == 1
    assert yard.shows(Single(b))
