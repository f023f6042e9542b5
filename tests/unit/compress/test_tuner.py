"""The tuner finds what is faster, remembers it, learns from other tasks, believes no one lucky look."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from modelyard.compress.machine import Machine
from modelyard.compress.tuner.cost_model import Ridge, Trees, model_for, rank_agreement
from modelyard.compress.tuner.onnx_session import (
    as_runtime_options,
    open_tuned,
    session_space,
    tune_session,
)
from modelyard.compress.tuner.space import Setting, TuningSpace, setting_key
from modelyard.compress.tuner.tune import Tuned, tune
from modelyard.compress.tuner.tuning_journal import Trial, TuningJournal
from modelyard.measure.measurement import Measurement
from modelyard.model.runtime import RuntimeOptions

Case: TypeAlias = Any
"""A model with rows, from conftest.py."""

SPACE = TuningSpace({"tile": (1, 2, 4, 8, 16, 32), "unroll": (1, 2, 4, 8), "order": ("ijk", "ikj", "kij")})


class Kernel:
    """A made-up kernel whose best schedule is known; counts how often it is run."""

    def __init__(self, best_tile: int = 8, noise: float = 0.02) -> None:
        self.calls: list[Setting] = []
        self._best, self._noise = best_tile, noise
        self._rng = np.random.default_rng(0)

    def speed(self, setting: Setting) -> float:
        far = abs(math.log2(float(setting["tile"]) / self._best))
        order = 1.4 if setting["order"] == "ikj" else 1.0
        return math.exp(-0.3 * far) * order * (1 + 0.1 * math.log2(float(setting["unroll"])))

    def __call__(self, setting: Setting) -> Measurement:
        self.calls.append(setting)
        value = self.speed(setting) / self.speed(SPACE.default) * math.exp(self._rng.normal() * self._noise)
        return Measurement("speedup", value, value * 0.95, value * 1.05, "x", 30)


def run(kernel: Any, folder: Path, task: str = "a", **options: Any) -> Tuned:
    journal = TuningJournal(folder, "machine", SPACE.key)
    given = {"task": task, "workload": {"macs": 1e6}, "trials": 14, "seed": 1} | options
    return tune(SPACE, kernel, journal, **given)


def best(kernel: Kernel) -> float:
    return max(kernel.speed(setting) for setting in SPACE.every())


def test_it_finds_a_good_schedule_with_a_fifth_of_the_trials(tmp_path: Path) -> None:
    kernel = Kernel()
    found = run(kernel, tmp_path)
    assert found.space == 72
    assert len(found.measured) == 14
    assert kernel.speed(found.best) > 0.85 * best(kernel)
    assert found.speedup.low is not None and found.speedup.low > 1


def test_a_second_tuning_measures_nothing_twice_and_starts_from_the_first(tmp_path: Path) -> None:
    first = Kernel()
    run(first, tmp_path)
    second = Kernel()
    found = run(second, tmp_path, trials=6)
    assert found.known == 14
    old = {setting_key(setting) for setting in first.calls}
    # The last calls are the other looks at the best, whichever run it is from.
    assert not old & {setting_key(setting) for setting in second.calls[:6]}
    assert second.calls[6:] == [found.best] * 3


def test_what_was_learned_of_one_task_leads_the_next(tmp_path: Path) -> None:
    run(Kernel(), tmp_path, task="a", trials=30)
    led = Kernel()
    found = run(led, tmp_path, task="b", trials=3, seed=5)
    assert found.learned == 30
    assert led.speed(found.best) > 0.9 * best(led)


def test_the_default_stays_when_nothing_is_surely_faster(tmp_path: Path) -> None:
    def same(setting: Setting) -> Measurement:
        return Measurement("speedup", 1.02, 0.98, 1.06, "x", 30)

    found = run(same, tmp_path)
    assert found.best == SPACE.default
    assert "no setting is surely faster" in found.why


def test_a_lucky_look_does_not_choose(tmp_path: Path) -> None:
    seen: set[str] = set()

    def lucky(setting: Setting) -> Measurement:
        value = 1.0 if setting_key(setting) in seen else 1.5
        seen.add(setting_key(setting))
        return Measurement("speedup", value, value - 0.1, value + 0.1, "x", 30)

    found = run(lucky, tmp_path)
    assert found.best == SPACE.default
    assert "did not stand another look" in found.why


def test_a_setting_that_fails_is_noted_and_never_chosen(tmp_path: Path) -> None:
    def broken(setting: Setting) -> Measurement:
        if setting["order"] == "ikj":
            raise RuntimeError("no such schedule")
        return Measurement("speedup", 1.2, 1.1, 1.3, "x", 30)

    found = run(broken, tmp_path)
    assert any("no such schedule" in trial.error for trial in found.measured)
    assert found.best["order"] != "ikj"
    lost = Measurement("speedup", math.nan, method="no value: the clock did not move")
    still = run(lambda setting: lost, tmp_path / "other")
    assert still.best == SPACE.default
    assert all("the clock did not move" in trial.error for trial in still.measured)


def test_the_journal_survives_torn_and_foreign_lines(tmp_path: Path) -> None:
    run(Kernel(), tmp_path, trials=5)
    journal = TuningJournal(tmp_path, "machine", SPACE.key)
    whole = journal.trials()
    with journal.path.open("ab") as file:
        file.write(b'{"version": 99}\nnot json\n[]\n{"version": 1, "task": "a"}\n{"version": 1, "ta')
    assert journal.trials() == whole
    journal.add(whole[0])
    assert journal.trials() == [*whole, whole[0]]
    assert TuningJournal(tmp_path, "another machine", SPACE.key).trials() == []
    assert json.loads(journal.path.read_text().splitlines()[0])["setting"]


def test_a_failed_trial_is_kept_too() -> None:
    trial = Trial("a", {"macs": 2.0}, {"tile": 1}, math.nan, math.nan, math.nan, "it failed")
    again = Trial.from_json(json.loads(json.dumps(trial.to_json())))
    assert again.error == "it failed" and math.isnan(again.speedup)


@pytest.mark.parametrize("measured", [12, 40])
def test_the_cost_model_ranks_what_it_has_not_seen(measured: int) -> None:
    kernel, rng = Kernel(), np.random.default_rng(3)
    every = list(SPACE.every())
    order = rng.permutation(len(every))
    rows = np.array([SPACE.features(every[index]) for index in order])
    costs = np.array([-math.log(kernel.speed(every[index])) for index in order])
    model = model_for(measured)
    assert isinstance(model, Trees if measured == 40 else Ridge)
    model.fit(rows[:measured], costs[:measured])
    assert rank_agreement(model.predict(rows[measured:]), costs[measured:]) > 0.75
    assert rank_agreement(np.zeros(3), np.ones(3)) == 0.5


def test_spaces_refuse_what_is_none() -> None:
    with pytest.raises(ValueError, match="knobs"):
        TuningSpace({})
    with pytest.raises(ValueError, match="values"):
        TuningSpace({"a": ()})
    nothing = TuningSpace({"a": (1,)}, allowed=lambda setting: False)
    with pytest.raises(ValueError, match="no setting"):
        tune(nothing, Kernel(), TuningJournal(Path("/nowhere"), "m", "s"), task="a", workload={})
    assert not SPACE.holds({"tile": 3, "unroll": 1, "order": "ijk"})


def test_the_core_knows_nothing_of_onnxruntime() -> None:
    folder = Path(__file__).parents[3] / "src" / "modelyard" / "compress" / "tuner"
    for name in ("space.py", "cost_model.py", "tuning_journal.py", "tune.py"):
        text = (folder / name).read_text()
        assert "import onnx" not in text and "modelyard.model" not in text


def test_session_options_keep_the_answers(tiny: Case) -> None:
    space = session_space(Machine("cpu", (), 2, "Linux"))
    rows = {"x": tiny.held.tensors["x"][:3]}
    truth = open_tuned(tiny.model.onnx, space.default).run(None, rows)[0]
    for setting in space.every():
        np.testing.assert_allclose(open_tuned(tiny.model.onnx, setting).run(None, rows)[0], truth, atol=1e-5)
    assert not any(setting["spin"] and setting["threads"] == 1 for setting in space.every())
    assert as_runtime_options(space.default) == RuntimeOptions()


@pytest.mark.serial
def test_session_options_are_tuned_and_remembered(tiny: Case, tmp_path: Path) -> None:
    rows = {"x": tiny.held.tensors["x"][:1]}
    first = tune_session(tiny.model, rows, folder=tmp_path, trials=3, seconds=0.05)
    second = tune_session(tiny.model, rows, folder=tmp_path, trials=2, seconds=0.05)
    assert len(first.measured) == 3
    assert second.known == 3
    assert not any(trial.error for trial in first.measured)
