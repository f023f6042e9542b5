"""What every detector must keep, those that plugins bring included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from modelyard.data.columnprofile import CategoricalProfile, NumericProfile
from modelyard.data.profile import ColumnProfile
from modelyard.monitor.detector import Detector
from modelyard.monitor.detectors.catalogue import DETECTORS
from modelyard.monitor.options import MonitorOptions

OPTIONS = MonitorOptions()
Maker = Callable[[np.random.Generator, int, float], ColumnProfile]


def numbers(rng: np.random.Generator, rows: int, move: float) -> ColumnProfile:
    return NumericProfile.of(rng.normal(5.0 + 3.0 * move, 1.0, rows))


def ties(rng: np.random.Generator, rows: int, move: float) -> ColumnProfile:
    return NumericProfile.of(rng.poisson(2.0 + 6.0 * move, rows).astype(np.float64))


def gaps(rng: np.random.Generator, rows: int, move: float) -> ColumnProfile:
    values = rng.normal(size=rows)
    lacking = rng.random(rows) < 0.1 + 0.5 * move
    values[lacking] = np.nan
    return NumericProfile.of(values, int(lacking.sum()))


def categories(rng: np.random.Generator, rows: int, move: float) -> ColumnProfile:
    shares = np.array([0.5, 0.3, 0.15, 0.04, 0.01])
    shares = shares * (1 - move) + shares[::-1] * move
    counts = rng.multinomial(rows, shares / shares.sum())
    return CategoricalProfile(rows, 0, dict(zip("abcde", counts.tolist(), strict=True)))


WORLDS: dict[str, Maker] = {"numbers": numbers, "ties": ties, "gaps": gaps, "categories": categories}
ALL = [pytest.param(DETECTORS.get(name), id=name) for name in DETECTORS.names()]


@pytest.mark.parametrize("detector", ALL)
def test_it_is_a_detector_of_its_name(detector: Detector) -> None:
    assert isinstance(detector, Detector)
    assert DETECTORS.get(detector.name) is detector


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("detector", ALL)
def test_on_itself_nothing_moved(detector: Detector, world: str) -> None:
    side = WORLDS[world](np.random.default_rng(1), 500, 0.0)
    shift = detector.compare(side, side, OPTIONS)
    if shift is not None:
        assert shift.effect == pytest.approx(0.0, abs=1e-9)
        assert shift.p_value > 0.9
        assert not shift.relevant


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("detector", ALL)
def test_its_p_value_is_valid_on_clean_data(detector: Detector, world: str) -> None:
    rng = np.random.default_rng(2)
    make, trials = WORLDS[world], 200
    shifts = [detector.compare(make(rng, 800, 0.0), make(rng, 150, 0.0), OPTIONS) for _ in range(trials)]
    values = np.array([shift.p_value for shift in shifts if shift is not None])
    for level in (0.2, 0.05, 0.01):
        most = level * len(values) + 3 * np.sqrt(level * len(values)) + 1
        assert np.count_nonzero(values <= level) <= most


@pytest.mark.parametrize("detector", ALL)
def test_it_sees_some_planted_shift_even_at_a_late_look(detector: Detector) -> None:
    rng = np.random.default_rng(3)
    found = []
    for make in WORLDS.values():
        shift = detector.compare(make(rng, 2000, 0.0), make(rng, 300, 1.0), OPTIONS)
        found.append(shift is not None and shift.relevant and shift.p_value < 1e-9)
    assert any(found)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("detector", ALL)
def test_its_effect_is_a_share_that_rows_do_not_grow(detector: Detector, world: str) -> None:
    rng = np.random.default_rng(4)
    make = WORLDS[world]
    small = detector.compare(make(rng, 20_000, 0.0), make(rng, 2_000, 0.3), OPTIONS)
    large = detector.compare(make(rng, 20_000, 0.0), make(rng, 20_000, 0.3), OPTIONS)
    if small is not None and large is not None:
        assert 0.0 <= small.effect <= 1.0 and 0.0 <= large.effect <= 1.0
        assert large.effect == pytest.approx(small.effect, abs=0.06)
        if small.relevant:
            assert 0.0 <= large.p_value <= small.p_value


@pytest.mark.parametrize("detector", ALL)
def test_nothing_to_compare_is_no_shift_and_no_exception(detector: Detector) -> None:
    empty_numbers, empty_words = NumericProfile.of(np.empty(0)), CategoricalProfile(0, 0, {"a": 0})
    full = numbers(np.random.default_rng(5), 100, 0.0)
    all_missing = NumericProfile.of(np.full(100, np.nan), 100)
    sides = [
        (empty_numbers, full),
        (full, empty_numbers),
        (empty_words, empty_words),
        (all_missing, all_missing),
    ]
    for one, other in sides:
        shift = detector.compare(one, other, OPTIONS)
        assert shift is None or shift.p_value == 1.0


@pytest.mark.parametrize("detector", ALL)
def test_it_is_pure(detector: Detector) -> None:
    rng = np.random.default_rng(6)
    one, other = numbers(rng, 400, 0.0), numbers(rng, 400, 0.5)
    before = (one.to_json(), other.to_json())
    assert detector.compare(one, other, OPTIONS) == detector.compare(one, other, OPTIONS)
    assert (one.to_json(), other.to_json()) == before
