from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest

from modelyard.core.digest import digest_bytes
from modelyard.core.errors import ReleaseError
from modelyard.release.policy import Canary, Policy, Route, Shadow, Single, place, policy_from_json, route

A, B = digest_bytes(b"a"), digest_bytes(b"b")
KEYS = [f"client-{number}" for number in range(20_000)]
fractions = st.floats(0, 1)


def test_single_and_shadow() -> None:
    assert route(Single(A), "k") == Route(A)
    assert route(Shadow(A, B), "k") == Route(A, (B,))


@given(st.text(), st.text(), fractions)
def test_a_key_keeps_its_side(key: str, salt: str, fraction: float) -> None:
    policy = Canary(A, B, fraction, salt)
    assert route(policy, key) == route(policy_from_json(policy.to_json()), key)
    assert route(policy, key).answer in (A, B)


@given(st.text(), st.text(), fractions, fractions)
def test_raising_the_fraction_never_takes_a_key_back(key: str, salt: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if route(Canary(A, B, low, salt), key).answer == B:
        assert route(Canary(A, B, high, salt), key).answer == B


@given(st.text(), st.text())
def test_the_ends_are_exact(key: str, salt: str) -> None:
    assert route(Canary(A, B, 0.0, salt), key).answer == A
    assert route(Canary(A, B, 1.0, salt), key).answer == B


@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.5, 0.9])
def test_proportions_are_those_that_were_asked_for(fraction: float) -> None:
    hits = sum(route(Canary(A, B, fraction, "s"), key).answer == B for key in KEYS)
    assert binomtest(hits, len(KEYS), fraction).pvalue > 1e-3


def test_places_are_uniform_and_independent_between_salts() -> None:
    assert kstest([place("s", key) for key in KEYS], "uniform").pvalue > 1e-3
    both = sum(place("s", key) < 0.5 and place("t", key) < 0.5 for key in KEYS)
    assert binomtest(both, len(KEYS), 0.25).pvalue > 1e-3


def test_salt_and_key_do_not_run_together() -> None:
    assert place("ab", "c") != place("a", "bc")


def test_another_process_agrees() -> None:
    code = "from modelyard.release.policy import place; print(repr(place('s', 'ключ')))"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert float(said.stdout) == place("s", "ключ")


def test_the_hash_is_fixed_for_all_time() -> None:
    """A change here would move clients between releases on an upgrade."""
    assert [round(place("salt", key), 12) for key in ("", "a", "key")] == [
        0.247753669184,
        0.958711770267,
        0.208021297692,
    ]


def test_broken_text_from_a_header_still_routes() -> None:
    assert 0 <= place("", "\udcff") < 1


@given(
    st.one_of(
        st.just(Single(A)),
        st.just(Shadow(A, B)),
        st.builds(Canary, st.just(A), st.just(B), fractions, st.text()),
    )
)
def test_round_trip(policy: Policy) -> None:
    assert policy_from_json(policy.to_json()) == policy


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_wrong_fraction(fraction: float) -> None:
    with pytest.raises(ReleaseError, match="0 to 1"):
        Canary(A, B, fraction)


def test_wrong_releases() -> None:
    with pytest.raises(ReleaseError, match="not a release digest"):
        Single("digits")
    with pytest.raises(ReleaseError, match="same release"):
        Canary(A, A, 0.5)
    with pytest.raises(ReleaseError, match="same release"):
        Shadow(A, A)


@pytest.mark.parametrize(
    "value",
    [
        {},
        7,
        None,
        {"format": 2, "kind": "single", "release": A},
        {"format": 1},
        {"format": 1, "kind": "bandit"},
        {"format": 1, "kind": "single"},
        {"format": 1, "kind": "single", "release": "x"},
        {"format": 1, "kind": "canary", "champion": A, "candidate": B, "fraction": "x", "salt": ""},
    ],
)
def test_other_json_is_refused(value: Any) -> None:
    with pytest.raises(ReleaseError):
        policy_from_json(value)
