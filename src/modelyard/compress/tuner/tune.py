"""Tuning by measured trials, led by a cost model: of anything that can be timed against its default.

It knows nothing of what it tunes: session options today, the schedules of generated kernels as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from modelyard.compress.tuner.cost_model import CostModel, model_for
from modelyard.compress.tuner.space import Floats, Setting, TuningSpace, setting_key
from modelyard.compress.tuner.tuning_journal import Trial, TuningJournal
from modelyard.core.clock import SYSTEM_CLOCK, Clock
from modelyard.core.errors import ModelyardError
from modelyard.core.progress import Progress, quiet
from modelyard.measure.measurement import Measurement

Measure: TypeAlias = Callable[[Setting], Measurement]
"""The paired speed-up of a setting over the default, with its interval. May raise when it fails."""

_DRAWN = 4
_STRAY = 0.2


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best setting (the default, unless another is surely faster), its speed-up, and what was done.

    `measured` were timed now, `known` came from the journal; `space` is how many settings there are.
    """

    best: Setting
    speedup: Measurement
    measured: tuple[Trial, ...]
    known: int
    learned: int
    space: int
    why: str


_LOOKS = 3
"""At the best setting before it is chosen: the best of many trials was also the luckiest."""


def tune(
    space: TuningSpace, measure: Measure, journal: TuningJournal, *, task: str, workload: Mapping[str, float],
    trials: int = 12, budget: float = 60.0, seed: int = 0, progress: Progress = quiet,
    clock: Clock = SYSTEM_CLOCK,
) -> Tuned:  # fmt: skip
    """Measures up to `trials` settings within `budget` seconds, and picks the fastest that is surely faster.

    Settings that the journal knows for this task are not measured again; what it knows of other tasks on
    this kind of machine teaches the cost model from the start. Where nothing is known the first few are
    drawn; afterwards the model's favourite is measured, now and then another one. The best is timed three
    times more, and the default is kept unless each look is surely above 1. What a measurement raises is noted
    and never chosen. Killed at any moment, the next call goes on.
    """
    every = list(space.every())
    if not every:
        raise ValueError("the space allows no setting at all")
    default = every[0]
    past = [trial for trial in journal.trials() if space.holds(trial.setting)]
    known = {setting_key(trial.setting): trial for trial in past if trial.task == task}
    rng, began = np.random.default_rng(seed), clock.monotonic()
    made: list[Trial] = []
    while len(made) < trials and (not made or clock.monotonic() - began < budget):
        left = [item for item in every[1:] if setting_key(item) not in known]
        if not left:
            break
        setting = _next(space, left, [*past, *made], workload, rng, seed)
        progress(len(made) / trials, f"trial {len(made) + 1}: {_told(setting, default)}")
        trial = _measured(measure, task, workload, setting)
        journal.add(trial)
        made.append(trial)
        known[setting_key(setting)] = trial
    progress(0.95, "the best once more")
    best = max((item for item in known.values() if not item.error), key=lambda item: item.low, default=None)
    why, chosen, faster = _confirmed(measure, best, default)
    progress(1.0, "tuned")
    others = sum(trial.task != task for trial in past)
    return Tuned(chosen, faster, tuple(made), len(known) - len(made), others, len(every), why)


def _confirmed(measure: Measure, best: Trial | None, default: Setting) -> tuple[str, Setting, Measurement]:
    same = Measurement("speedup", 1.0, 1.0, 1.0, "x", 0, 0.95, "the default itself")
    if best is None or best.low <= 1:
        return "no setting is surely faster than the default", default, same
    told = _told(best.setting, default)
    again = same
    for _ in range(_LOOKS):
        try:
            again = measure(best.setting)
        except Exception as error:  # A setting that fails is not chosen, whatever it raises.
            failed = type(error).__name__
            return f"the best setting failed at another look ({failed}): the default stays", default, same
        if again.low is None or not again.low > 1:
            return f"{told} did not stand another look ({again.value:.2f}x): the default stays", default, same
    return (
        f"{told}: {again.value:.2f}x the default's speed [{again.low:.2f}, {again.high:.2f}]",
        best.setting,
        again,
    )


def _next(
    space: TuningSpace, left: list[dict[str, bool | int | float | str]], past: list[Trial],
    workload: Mapping[str, float], rng: np.random.Generator, seed: int,
) -> Setting:  # fmt: skip
    usable = [trial for trial in past if not trial.error]
    if len(usable) < _DRAWN or rng.random() < _STRAY:
        return left[int(rng.integers(len(left)))]
    names = sorted({name for trial in usable for name in trial.workload} | set(workload))
    rows = np.array([_row(space, trial.setting, trial.workload, names) for trial in usable])
    model: CostModel = model_for(len(usable), seed)
    model.fit(rows, np.array([trial.cost for trial in usable]))
    guesses = model.predict(np.array([_row(space, setting, workload, names) for setting in left]))
    return left[int(np.argmin(guesses))]


def _row(space: TuningSpace, setting: Setting, workload: Mapping[str, float], names: list[str]) -> Floats:
    described = [math.log1p(max(0.0, workload.get(name, 0.0))) / 30 for name in names]
    return np.concatenate([space.features(setting), described])


def _measured(measure: Measure, task: str, workload: Mapping[str, float], setting: Setting) -> Trial:
    try:
        found = measure(setting)
    except Exception as error:  # What a setting raises is a fact about it.
        told = str(error) if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"
        return Trial(task, workload, setting, math.nan, math.nan, math.nan, told[:300])
    low, high = found.low or found.value, found.high or found.value
    if not (math.isfinite(found.value) and min(found.value, low, high) > 0):
        return Trial(task, workload, setting, math.nan, math.nan, math.nan, f"no value: {found.method}")
    return Trial(task, workload, setting, found.value, low, high)


def _told(setting: Setting, default: Setting) -> str:
    """What a setting changes, in words."""
    changed = [f"{name} {value}" for name, value in setting.items() if value != default[name]]
    return ", ".join(changed) or "the default"
