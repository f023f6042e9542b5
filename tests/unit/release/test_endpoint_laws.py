"""Whatever is written into the ledger, in whatever order, the laws of promotion hold for every reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.digest import Digest, digest_bytes
from modelyard.release import endpoint
from modelyard.release.canary import CANARY
from modelyard.release.endpoint import Endpoints
from modelyard.release.endpoint_law import PROMOTE, ROLLBACK, SET, EndpointState
from modelyard.release.gate import GATE
from modelyard.release.policy import Canary, Policy, Shadow, Single
from modelyard.release.registry import ADDED

RELEASES = tuple(digest_bytes(name) for name in (b"a", b"b", b"c"))


@dataclass
class Line:
    index: int
    subject: str
    claim: str
    passed: bool | None
    body: dict[str, Any]
    time: str = "2026-01-01T00:00:00Z"
    by: str = "anyone"


@dataclass
class Lines:
    """The ledger's two methods over a list; the real one is used in `test_endpoint`."""

    lines: list[Line] = field(default_factory=list)

    def append(
        self, subject: str, claim: str, *, passed: bool | None = None, body: Any = None, by: str = ""
    ) -> Line:
        self.lines.append(Line(len(self.lines) + 1, subject, claim, passed, body or {}))
        return self.lines[-1]

    def entries(
        self,
        *,
        subject: str | None = None,
        claim: str | None = None,
        prefix: str | None = None,
        after: int = 0,
    ) -> Sequence[Line]:
        return [
            line
            for line in self.lines
            if line.index > after
            and subject in (None, line.subject)
            and claim in (None, line.claim)
            and line.claim.startswith(prefix or "")
        ]


releases = st.sampled_from(RELEASES)
pairs = st.permutations(RELEASES).map(lambda found: (found[0], found[1]))
policies = st.one_of(
    releases.map(Single),
    pairs.map(lambda pair: Canary(*pair, 0.5)),
    pairs.map(lambda pair: Shadow(*pair)),
)
steps = st.one_of(
    st.tuples(st.sampled_from([SET, PROMOTE, ROLLBACK]), policies),
    st.tuples(st.just("follow"), st.sampled_from([PROMOTE, PROMOTE, ROLLBACK])),
    st.tuples(st.just("try"), releases),
    st.tuples(st.just("judge"), st.sampled_from(["promote", "promote", "rollback", "continue"])),
    st.tuples(st.just(GATE), releases, st.booleans()),
    st.tuples(st.just(CANARY), releases, releases, st.sampled_from(["promote", "rollback", "continue"])),
)


def write(ledger: Lines, step: tuple[Any, ...], state: EndpointState | None) -> None:
    """Appends what the step says, always against the generation in force, with no check of any kind."""
    if step[0] == GATE:
        ledger.append(step[1], GATE, passed=step[2], body={"why": ""})
    elif step[0] == CANARY:
        details = {"endpoint": "e", "champion": step[1], "action": step[3]}
        ledger.append(step[2], CANARY, passed=step[3] == "promote", body={"why": "", "details": details})
    elif step[0] == "judge":
        if state is not None and isinstance(state.policy, Canary):
            write(ledger, (CANARY, state.champion, state.policy.candidate, step[1]), state)
    else:
        claim, policy = step
        if claim == "follow":
            claim, policy = step[1], follow(step[1], state)
        elif claim == "try":
            usual = state is not None and state.champion != step[1]
            claim, policy = SET, Canary(state.champion, step[1], 0.5) if usual and state else Single(step[1])
        body = {
            "format": 1,
            "expected": state.generation if state else 0,
            "policy": policy.to_json(),
            "why": "",
            "evidence": [],
        }
        ledger.append("endpoint:e", claim, body=body)


def follow(claim: str, state: EndpointState | None) -> Policy:
    """What a promotion or a rollback would do now, so that many sequences get somewhere."""
    if state is None:
        return Single(RELEASES[0])
    if claim == PROMOTE and isinstance(state.policy, Canary):
        return Single(state.policy.candidate)
    return Single(
        state.previous[-1] if state.previous and isinstance(state.policy, Single) else state.champion
    )


def newest(ledger: Lines, subject: Digest, claim: str, before: int) -> Line | None:
    found = [line for line in ledger.entries(subject=subject, claim=claim) if line.index < before]
    return found[-1] if found else None


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=25))
def test_no_sequence_of_entries_promotes_without_evidence(sequence: list[tuple[Any, ...]]) -> None:
    ledger = Lines()
    for release in RELEASES:
        ledger.append(release, ADDED, body={"files": {}})
    for release in RELEASES[:2]:
        ledger.append(release, GATE, passed=True, body={"why": ""})
    follower = Endpoints(SimpleNamespace(ledger=ledger))  # type: ignore[arg-type]
    state: EndpointState | None = None
    champions: list[Digest] = []
    for step in sequence:
        write(ledger, step, state)
        now = follower.show("e") if follower.names() else None
        if now != state:
            assert now is not None
            index = now.generation
            assert index == len(ledger.lines), "only the newest entry can change what is served"
            if state is None or now.champion != state.champion:
                if ledger.lines[-1].claim == ROLLBACK:
                    assert now.champion in champions
                else:
                    gate = newest(ledger, now.champion, GATE, index)
                    assert gate is not None and gate.passed
                    if state is not None:
                        assert isinstance(state.policy, Canary)
                        assert state.policy.candidate == now.champion
                        verdict = newest(ledger, now.champion, CANARY, index)
                        assert verdict is not None
                        assert verdict.passed or verdict.body["details"]["champion"] != state.champion
                        assert verdict.index > state.generation
            champions.append(now.champion)
        state = now
    fresh = Endpoints(SimpleNamespace(ledger=ledger))  # type: ignore[arg-type]
    assert (fresh.show("e") if fresh.names() else None) == state
    assert fresh.names() == ([] if state is None else ["e"])


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=20), st.integers(0, 20), st.sampled_from([0, 4]))
def test_who_catches_up_sees_what_a_reader_of_one_endpoint_sees(
    sequence: list[tuple[Any, ...]], pause: int, many: int
) -> None:
    ledger = Lines()
    for release in RELEASES:
        ledger.append(release, ADDED, body={"files": {}})
        ledger.append(release, GATE, passed=True, body={"why": ""})
    reader, follower = (Endpoints(SimpleNamespace(ledger=ledger)) for _ in range(2))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        # With 0 all evidence is read at once, as for a thousand endpoints.
        patch.setattr(endpoint, "_MANY", many)
        for number, step in enumerate(sequence):
            write(ledger, step, reader.show("e") if reader.names() else None)
            if number == pause:
                follower.catch_up()
        before = follower.known("e")
        news = follower.catch_up()
        after = follower.known("e")
        assert news == frozenset({"e"}) or before == after
        assert after == (reader.show("e") if reader.names() else None)
        assert follower.catch_up() == frozenset()
