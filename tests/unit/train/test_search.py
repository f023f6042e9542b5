from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from modelyard.core.errors import StoreError, TrainError
from modelyard.store.store import open_store
from modelyard.train.dataset import Dataset
from modelyard.train.fit import fit
from modelyard.train.recipe import Recipe
from modelyard.train.search import search
from modelyard.train.study import Study, tuning_verdict

Make = Callable[..., Recipe]


def _plain(study: Study) -> list[tuple[Any, ...]]:
    """The trials that count, without what the clock says."""
    return [(row.state, row.value, dict(row.params)) for row in study.trials if row.state != "interrupted"]


def test_it_finds_the_better_parameters(
    ridge: Recipe, prices: Dataset, records: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[float, str]] = []
    study = search(ridge, prices, records, name="prices", progress=lambda *step: seen.append(step))
    assert len(study.trials) == 6
    assert study.better == "lower"
    assert study.best_value == min(row.value for row in study.trials if row.value is not None)
    assert study.covered == {"alpha": 6}
    assert study.importance == {"alpha": 1.0}
    assert seen[-1][0] == 1.0
    assert "mae" in seen[-1][1]
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    answers = fit(ridge, study.best, prices).predict(prices.validation)[:, 0]
    assert np.abs(answers - prices.validation_targets).mean() == pytest.approx(study.best_value, rel=1e-6)
    assert tuning_verdict(study).passed
    assert Study.from_json(study.to_json()) == study
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_it_is_the_same_in_another_store(
    ridge: Recipe, prices: Dataset, records: Any, tmp_path: Path
) -> None:
    one = search(ridge, prices, records, name="prices")
    records.url = f"sqlite:///{tmp_path}/other.db"
    assert _plain(search(ridge, prices, records, name="prices")) == _plain(one)


def test_a_finished_study_is_read_and_a_larger_one_continued(
    ridge: Recipe, prices: Dataset, records: Any, tmp_path: Path
) -> None:
    first = search(replace(ridge, trials=3), prices, records, name="prices")
    assert search(replace(ridge, trials=3), prices, records, name="prices") == first
    more = search(replace(ridge, trials=5), prices, records, name="prices")
    assert _plain(more)[:3] == _plain(first)
    assert len(more.trials) == 5


def test_a_changed_recipe_or_data_begins_anew(ridge: Recipe, prices: Dataset, records: Any) -> None:
    few = replace(ridge, trials=2)
    search(few, prices, records, name="prices")
    ridge.path.write_text(ridge.path.read_text().replace("1e3", "1e4"))
    assert [row.number for row in search(few, prices, records, name="prices").trials] == [0, 1]
    moved = replace(prices, train_targets=prices.train_targets + 1)
    assert [row.number for row in search(few, moved, records, name="prices").trials] == [0, 1]


def test_bad_trials_of_a_module_are_pruned(recipe_of: Make, points: Dataset, records: Any) -> None:
    recipe = recipe_of(
        "import torch\nfrom modelyard.train.training import Training\n"
        "def build(trial):\n"
        "    good = trial.number < 4\n"
        "    trial.suggest_float('x', 0, 1)\n"
        "    return Training(torch.nn.Linear(2, 3), learning_rate=0.1 if good else 1e-6, epochs=4)\n",
        trials=6,
    )
    study = search(recipe, points, records, name="points")
    assert study.count("complete") >= 4
    assert study.count("pruned") >= 1
    assert all(row.state == "complete" for row in study.trials[:4])


def test_the_same_parameters_are_not_trained_twice(
    recipe_of: Make, prices: Dataset, records: Any, tmp_path: Path
) -> None:
    recipe = recipe_of(
        "from pathlib import Path\nfrom sklearn.dummy import DummyRegressor\n"
        "class Counted(DummyRegressor):\n"
        "    def fit(self, X, y):\n"
        f"        with Path({str(tmp_path / 'count')!r}).open('a') as file:\n"
        "            file.write('x')\n"
        "        return super().fit(X, y)\n"
        "def build(trial):\n"
        "    return Counted(strategy=trial.suggest_categorical('strategy', ['mean', 'median']))\n",
        task="regression",
        metric="mae",
        trials=6,
    )
    study = search(recipe, prices, records, name="prices")
    assert len((tmp_path / "count").read_text()) == 2
    assert len(study.trials) == 6
    repeated = [row for row in study.trials if row.same_as is not None]
    assert len(repeated) == 4
    assert all(row.value == study.trials[row.same_as or 0].value for row in repeated)


def test_a_recipe_without_hyper_parameters_runs_once(recipe_of: Make, points: Dataset, records: Any) -> None:
    recipe = recipe_of(
        "from sklearn.dummy import DummyClassifier\ndef build(trial):\n    return DummyClassifier()\n"
    )
    study = search(recipe, points, records, name="points")
    assert len(study.trials) == 1
    assert study.stopped == "nothing to tune"
    assert study.best == {}
    verdict = tuning_verdict(study)
    assert not verdict.passed
    assert "asks its trial for no hyper-parameter" in verdict.why


FRAGILE = """
    from sklearn.dummy import DummyRegressor

    def build(trial):
        x = trial.suggest_float("x", 0, 1)
        if {condition}:
            raise RuntimeError(f"no luck with trial {{trial.number}}")
        return DummyRegressor(strategy="quantile", quantile=x)
"""


def test_a_trial_that_raises_is_recorded_and_the_search_goes_on(
    recipe_of: Make, prices: Dataset, records: Any
) -> None:
    recipe = recipe_of(
        FRAGILE.format(condition="trial.number in (0, 3)"), task="regression", metric="mae", trials=5
    )
    study = search(recipe, prices, records, name="prices")
    assert [row.state for row in study.trials] == ["failed", "complete", "complete", "failed", "complete"]
    assert "recipe.py:7" in study.trials[0].error
    assert "no luck with trial 0" in study.trials[0].error
    assert search(recipe, prices, records, name="prices") == study


def test_when_all_trials_fail_the_first_error_is_told(recipe_of: Make, prices: Dataset, records: Any) -> None:
    recipe = recipe_of(FRAGILE.format(condition="True"), task="regression", metric="mae", trials=3)
    with pytest.raises(TrainError, match=r"no trial of 3 .*recipe\.py:7: .*no luck with trial 0"):
        search(recipe, prices, records, name="prices")


def test_the_budget_ends_it_but_never_before_one_trial(ridge: Recipe, prices: Dataset, records: Any) -> None:
    study = search(replace(ridge, budget=0.0), prices, records, name="prices")
    assert len(study.trials) == 1
    assert study.stopped == "budget"


def test_much_data_lets_estimators_be_pruned_too(
    recipe_of: Make, prices: Dataset, records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.train.search._LARGE", 40)
    recipe = recipe_of(
        "from sklearn.dummy import DummyRegressor\n"
        "def build(trial):\n"
        "    x = trial.suggest_float('x', 0, 1)\n"
        "    level = 0.5 + x / 100 if trial.number < 4 else 0.99\n"
        "    return DummyRegressor(strategy='quantile', quantile=level)\n",
        task="regression",
        metric="mae",
        trials=6,
    )
    study = search(recipe, prices, records, name="prices")
    assert [row.state for row in study.trials] == ["complete"] * 4 + ["pruned"] * 2


def test_a_lost_database_is_a_store_error_without_its_address(
    ridge: Recipe, prices: Dataset, records: Any
) -> None:
    records.url = "sqlite:////nowhere/secret-place.db"
    with pytest.raises(StoreError) as caught:
        search(ridge, prices, records, name="prices")
    assert "secret-place" not in str(caught.value)


def test_an_interrupted_trial_is_made_up_for(
    ridge: Recipe, prices: Dataset, records: Any, tmp_path: Path
) -> None:
    whole = search(ridge, prices, records, name="prices")
    records.url = f"sqlite:///{tmp_path}/interrupted.db"
    calls = []

    def stop(fraction: float, text: str) -> None:
        calls.append(text)
        if text == "fitted" and len(calls) > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(ridge, prices, records, name="prices", progress=stop)
    resumed = search(ridge, prices, records, name="prices")
    assert resumed.count("interrupted") == 1
    assert _plain(resumed) == _plain(whole)
    assert resumed.best == whole.best


KILLED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from modelyard.train.dataset import Dataset
from modelyard.train.recipe import Recipe
from modelyard.train.search import search

values = np.linspace(0, 1, 40, dtype=np.float32).reshape(-1, 1)
data = Dataset("regression", (), {"a": values}, values[:, 0].astype(float), {"a": values},
               values[:, 0].astype(float))
def progress(fraction, text):
    if text == "fitted" and fraction > float(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
recipe = Recipe(Path(sys.argv[1]), task="regression", metric="mae", trials=5)
study = search(recipe, data, SimpleNamespace(url=sys.argv[2]), name="killed", progress=progress)
print([row.state for row in study.trials])
"""


def test_a_killed_search_is_continued_to_the_same_count(
    recipe_of: Make, records: Any, tmp_path: Path
) -> None:
    recipe = recipe_of(FRAGILE.format(condition="False"))
    script = tmp_path / "killed.py"
    script.write_text(KILLED)

    def run(limit: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(script), str(recipe.path), records.url, str(limit)],
            capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    assert run(0.5).returncode == -signal.SIGKILL
    with sqlite3.connect(tmp_path / "records.db") as database:
        states = [row[0] for row in database.execute("select state from trials order by number")]
    database.close()
    assert states == ["COMPLETE", "COMPLETE", "RUNNING"]
    last = run(2.0)
    assert last.returncode == 0, last.stderr
    assert last.stdout.strip() == str(["complete"] * 2 + ["interrupted"] + ["complete"] * 3)


def test_a_study_shares_the_stores_own_database(ridge: Recipe, prices: Dataset, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    try:
        run = store.records.start_run("prices", "search", {})
        study = search(replace(ridge, trials=2), prices, store.records, name="prices")
        store.records.log_metrics(run, {"mae": study.best_value})
        assert store.records.run(run).metrics == {"mae": study.best_value}
        assert search(replace(ridge, trials=2), prices, store.records, name="prices") == study
    finally:
        store.close()


def test_optuna_is_left_as_talkative_as_it_was(ridge: Recipe, prices: Dataset, records: Any) -> None:
    before = optuna.logging.get_verbosity()
    search(replace(ridge, trials=1), prices, records, name="prices")
    assert optuna.logging.get_verbosity() == before
