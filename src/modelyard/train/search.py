"""The search over a recipe's hyper-parameters: seeded, pruned, resumable, kept in the store's database."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from modelyard.core.digest import digest_json, short
from modelyard.core.errors import ModelyardError, StoreError, TrainError
from modelyard.core.progress import Progress, part, quiet
from modelyard.measure.metric import Metric
from modelyard.store.records import Records
from modelyard.train.dataset import Dataset
from modelyard.train.estimator import again
from modelyard.train.fit import build, fit_built, judge, score
from modelyard.train.recipe import Loaded, Recipe, load
from modelyard.train.seeding import derive
from modelyard.train.study import Study, TrialRow, convergence
from modelyard.train.training import Training

_LARGE = 20_000
"""From so many rows on, estimators are first fitted on a part, so that bad trials can be pruned."""


def search(
    recipe: Recipe, dataset: Dataset, records: Records, *, name: str, progress: Progress = quiet
) -> Study:
    """Runs, or continues, the study of that name until the recipe's trials or budget are used up.

    A study belongs to one recipe, data set, metric and seed: it is stored under `name@<their digest>`, so
    that a changed recipe begins anew under the same name. Trials that a dead process left running are
    marked failed and made up for; each trial's suggestions depend on the seed, its place and the trials
    before it alone, so a continued study ends as an uninterrupted one. One process searches a study at a
    time (the caller holds a lock). A trial that raises is recorded with its error and the search goes on;
    `TrainError` with the first error when none succeeds, `StoreError` when the database is lost.
    """
    loaded = load(recipe)
    judged = judge(recipe)
    with _silent(), _study(recipe, dataset, records, judged, name) as study:
        _give_up_running(study)
        stopped = _Search(loaded, dataset, judged, study, progress).run()
        return _summary(study, judged, stopped, name)


@dataclass(frozen=True, slots=True)
class _Search:
    loaded: Loaded
    dataset: Dataset
    judged: Metric
    study: optuna.Study
    progress: Progress

    def run(self) -> str:
        """Trials until a limit; says which limit it was."""
        recipe, begin = self.loaded.recipe, time.perf_counter()
        spent = sum(_seconds(trial) for trial in _counted(self.study))
        while (done := len(_counted(self.study))) < recipe.trials:
            seconds = spent + time.perf_counter() - begin
            if recipe.budget is not None and done and seconds >= recipe.budget:
                return "budget"
            # Not the library's trial number: interrupted trials must not shift the ones after them.
            self.study.sampler = _sampler(recipe, done)
            trial = self.study.ask()
            self._trial(trial, part(self.progress, done / recipe.trials, (done + 1) / recipe.trials))
            finished = _frozen(self.study, trial)
            if not finished.params and finished.state == TrialState.COMPLETE:
                return "nothing to tune"
        return "trials"

    def _trial(self, trial: optuna.Trial, progress: Progress) -> None:
        try:
            built = build(self.loaded, trial)
            earlier = self._earlier(trial)
            if earlier is None:
                self.study.tell(trial, self._value(built, trial, progress))
            else:
                self._repeat(trial, earlier)
        except optuna.TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        except StoreError:
            raise
        except ModelyardError as error:
            trial.set_user_attr("error", str(error))
            self.study.tell(trial, state=TrialState.FAIL)
        state = _frozen(self.study, trial)
        shown = "" if state.value is None else f" · {self.judged.name} {state.value:.4g}"
        progress(1.0, f"trial {trial.number + 1} {state.state.name.lower()}{shown}")

    def _value(self, built: Any, trial: optuna.Trial, progress: Progress) -> float:
        """The metric of what was built, fitted; an estimator on much data is tried on parts of it first."""
        if not isinstance(built, Training) and self.dataset.rows >= _LARGE:
            for step, share in enumerate((9, 3)):
                small = self.dataset.sample(self.dataset.rows // share, seed=self.loaded.recipe.seed)
                self._report(trial, step, self._score(again(built), trial, small, quiet))
        return self._score(built, trial, self.dataset, progress)

    def _score(self, built: Any, trial: optuna.Trial, dataset: Dataset, progress: Progress) -> float:
        fitted = fit_built(
            self.loaded,
            built,
            trial.params,
            dataset,
            progress=progress,
            on_epoch=lambda epoch, value: self._report(trial, epoch, value),
        )
        with self.loaded.guard("predicting raised"):
            value = score(fitted, dataset, self.judged)
        if math.isnan(value):
            raise TrainError(f"the metric {self.judged.name!r} does not exist for this trial's answers")
        return value

    def _earlier(self, trial: optuna.Trial) -> FrozenTrial | None:
        return next(
            (
                other
                for other in _counted(self.study)
                if other.params == trial.params and "same_as" not in other.user_attrs
            ),
            None,
        )

    def _repeat(self, trial: optuna.Trial, earlier: FrozenTrial) -> None:
        trial.set_user_attr("same_as", earlier.number)
        if earlier.state == TrialState.COMPLETE:
            self.study.tell(trial, earlier.value)
            return
        for step, value in sorted(earlier.intermediate_values.items()):
            trial.report(value, step)
        if "error" in earlier.user_attrs:
            trial.set_user_attr("error", earlier.user_attrs["error"])
        self.study.tell(trial, state=earlier.state)

    def _report(self, trial: optuna.Trial, epoch: int, value: float) -> None:
        trial.report(value, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned


@contextmanager
def _study(
    recipe: Recipe, dataset: Dataset, records: Records, judged: Metric, name: str
) -> Iterator[optuna.Study]:
    identity = digest_json(
        {
            "code": recipe.code(),
            "data": dataset.digest(),
            "metric": recipe.metric,
            "seed": recipe.seed,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
        }
    )
    wait = {"connect_args": {"timeout": 60}} if records.url.startswith("sqlite") else {}
    try:
        storage = optuna.storages.RDBStorage(records.url, engine_kwargs=wait)
        with closing(_Engine(storage)):
            yield optuna.create_study(
                study_name=f"{name}@{short(identity)}",
                storage=storage,
                load_if_exists=True,
                direction="maximize" if judged.better == "higher" else "minimize",
                sampler=_sampler(recipe, 0),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
            )
    except optuna.exceptions.StorageInternalError as error:
        raise _lost(error) from error
    except Exception as error:
        if type(error).__module__.startswith("sqlalchemy"):
            raise _lost(error) from error
        raise


@dataclass(frozen=True, slots=True)
class _Engine:
    storage: Any

    def close(self) -> None:
        self.storage.remove_session()
        self.storage.engine.dispose()


def _lost(error: BaseException) -> StoreError:
    # The driver's own words may hold the address and the user, so only their kind is told.
    cause = error.__cause__ or error
    return StoreError(
        "the study cannot be read or written",
        value=type(cause).__name__,
        rule="the records' database holds the study",
        fix="check the database and run again: finished trials are kept",
    )


def _sampler(recipe: Recipe, place: int) -> optuna.samplers.BaseSampler:
    startup = min(10, max(4, recipe.trials // 3))
    return optuna.samplers.TPESampler(seed=derive(recipe.seed, place), n_startup_trials=startup)


def _give_up_running(study: optuna.Study) -> None:
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def _counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ended by themselves: a failed one has an error, an interrupted one has none."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "error" in trial.user_attrs
    ]


def _frozen(study: optuna.Study, trial: optuna.Trial) -> FrozenTrial:
    return study.get_trials(deepcopy=False)[trial.number]


def _seconds(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration is not None else 0.0


def _summary(study: optuna.Study, judged: Metric, stopped: str, name: str) -> Study:
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        failed = [trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs]
        raise TrainError(
            f"no trial of {len(_counted(study))} could be trained; the first error: "
            + (failed[0] if failed else "all were pruned"),
            fix="correct the recipe and run again",
        )
    converged, gain = convergence(
        [trial.value for trial in complete if trial.value is not None], judged.better
    )
    best = study.best_trial
    return Study(
        name=name,
        metric=judged.name,
        better=judged.better,
        best=dict(best.params),
        best_value=float(best.value if best.value is not None else math.nan),
        trials=tuple(_row(trial) for trial in trials),
        importance=_importance(study),
        covered=_covered(trials),
        converged=converged,
        gain=gain,
        seconds=sum(_seconds(trial) for trial in trials),
        stopped=stopped,
    )


def _row(trial: FrozenTrial) -> TrialRow:
    error = str(trial.user_attrs.get("error", ""))
    states: dict[TrialState, Any] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
    other = "failed" if error else "interrupted"
    return TrialRow(
        number=trial.number,
        state=states.get(trial.state, other),
        value=trial.value,
        params=dict(trial.params),
        seconds=_seconds(trial),
        error=error,
        same_as=trial.user_attrs.get("same_as"),
    )


def _covered(trials: list[FrozenTrial]) -> dict[str, int]:
    tried: dict[str, set[str]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            if not distribution.single():
                values = tried.setdefault(name, set())
                if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                    values.add(repr(trial.params[name]))
    return {name: len(values) for name, values in sorted(tried.items())}


def _importance(study: optuna.Study) -> dict[str, float]:
    """By PED-ANOVA (Watanabe, Bansal and Hutter 2023); empty where the trials are too few or all equal."""
    try:
        found = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


@contextmanager
def _silent() -> Iterator[None]:
    """Optuna without its log lines and its remarks on experimental parts."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"optuna\.")
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
