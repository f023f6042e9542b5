from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.data.columnprofile import CategoricalProfile, NumericProfile
from modelyard.monitor.budget import holm, share
from modelyard.monitor.detectors.catalogue import DETECTORS
from modelyard.monitor.options import MonitorOptions


def test_the_shares_of_all_looks_never_exceed_the_budget() -> None:
    looks = np.arange(1, 1_000_000, dtype=np.float64)
    total = sum(share(0.05, look) for look in range(1, 2000))
    assert total < 0.05
    assert 0.05 * float(np.sum(1 / (looks * (looks + 1)))) < 0.05


def test_a_look_counts_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        share(0.05, 0)


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0.001, 0.5))
def test_holm_is_the_textbook_step_down(values: list[float], alpha: float) -> None:
    fallen = holm(np.array(values), alpha)
    expected = [False] * len(values)
    for place, index in enumerate(np.argsort(values, kind="stable")):
        if values[index] > alpha / (len(values) - place):
            break
        expected[index] = True
    assert fallen.tolist() == expected


def _clean(rng: np.random.Generator, rows: int, columns: int) -> list[NumericProfile | CategoricalProfile]:
    made: list[NumericProfile | CategoricalProfile] = []
    for index in range(columns):
        if index % 3 == 2:
            counts = rng.multinomial(rows, [0.5, 0.3, 0.15, 0.04, 0.01])
            made.append(CategoricalProfile(rows, 0, dict(zip("abcde", counts.tolist(), strict=True))))
        elif index % 3 == 1:
            made.append(NumericProfile.of(rng.poisson(3.0, rows).astype(np.float64)))
        else:
            made.append(NumericProfile.of(rng.normal(size=rows)))
    return made


def _fires(rng: np.random.Generator, *, windows: int, columns: int, budget: float) -> bool:
    """Whether any look at clean windows makes any hypothesis fall, with no floor to help."""
    options = MonitorOptions(drift_floor=0.0, detectors=("ks", "fisher"))
    detectors = [DETECTORS.get(name) for name in options.detectors]
    reference = _clean(rng, 1000, columns)
    for look in range(1, windows + 1):
        window = _clean(rng, 100, columns)
        found = [
            detector.compare(one, other, options)
            for one, other in zip(reference, window, strict=True)
            for detector in detectors
        ]
        values = np.array([shift.p_value for shift in found if shift is not None])
        if holm(values, share(budget, look)).any():
            return True
    return False


def test_clean_traffic_fires_at_most_at_the_budget_over_many_watches() -> None:
    # The first looks hold nearly all of the budget: 6 of them spend 86 %.
    rng = np.random.default_rng(11)
    watches, budget = 40, 0.5
    fired = sum(_fires(rng, windows=6, columns=6, budget=budget) for _ in range(watches))
    assert fired <= watches * budget + 2 * np.sqrt(watches * budget * (1 - budget))
    assert fired > 0, "a budget of one half that is never spent would be no test"


def test_two_hundred_clean_windows_of_thirty_features_stay_quiet() -> None:
    assert not _fires(np.random.default_rng(12), windows=200, columns=30, budget=0.05)


def test_testing_each_feature_at_five_per_cent_would_have_fired() -> None:
    """The plain alternative that people complain of: the same clean traffic, no correction."""
    rng = np.random.default_rng(12)
    options = MonitorOptions(drift_floor=0.0)
    reference = _clean(rng, 1000, 30)
    ks = DETECTORS.get("ks")
    false = 0
    for _ in range(20):
        window = _clean(rng, 200, 30)
        shifts = [ks.compare(one, other, options) for one, other in zip(reference, window, strict=True)]
        false += any(shift is not None and shift.p_value < 0.05 for shift in shifts)
    assert false >= 5, "a quarter of clean windows and more"


def test_half_a_spread_in_five_hundred_rows_is_seen_at_the_hundredth_look() -> None:
    """The power that the budget leaves: one moved feature among thirty, two hypotheses each."""
    rng = np.random.default_rng(5)
    ks, options = DETECTORS.get("ks"), MonitorOptions()
    reference = NumericProfile.of(rng.normal(size=3500))
    alpha = share(0.05, 100) / 60
    shifts = [ks.compare(reference, NumericProfile.of(rng.normal(0.5, 1.0, 500)), options) for _ in range(40)]
    seen = [shift is not None and shift.relevant and shift.p_value < alpha for shift in shifts]
    assert sum(seen) >= 38
