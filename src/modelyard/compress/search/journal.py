"""The search's memory: every trial in the store's database, found again after any kind of end."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from modelyard.compress.search.point import Point
from modelyard.compress.search.space import Choice, Space
from modelyard.core.errors import StoreError
from modelyard.core.require import require
from modelyard.store.records import Records

_POINT = "point"
_STEP = 1_000_003


class Journal:
    """An Optuna study whose trials carry their points.

    A point is written before its trial is closed, so a process that dies in between loses nothing: the next
    one closes the trial from its point. A trial without a point was interrupted and its choice is made
    again, before any new one.
    """

    def __init__(self, study: Any, space: Space, seed: int, sampler: str) -> None:
        self._study, self._space, self._seed, self._sampler = study, space, seed, sampler
        self._mend()

    def points(self) -> list[Point]:
        """Every point that is known, in the order of the trials."""
        return [
            Point.from_json(json.loads(trial.user_attrs[_POINT])["point"])
            for trial in self._study.get_trials(deepcopy=False)
            if _POINT in trial.user_attrs
        ]

    def ask(self, done: int, untried: Choice | None = None) -> tuple[Any, Choice]:
        """The next trial and its choice: what was interrupted, else `untried`, else the sampler's."""
        if untried is not None:
            self._study.enqueue_trial(self._space.parameters(untried))
        # Not the library's own trial number: interrupted trials must not shift the ones after them.
        self._study.sampler = _sampler(self._sampler, self._seed * _STEP + done, len(self._space.families))
        trial = self._study.ask()
        return trial, self._space.suggest(trial)

    def keep(self, trial: Any, point: Point, values: tuple[float, ...] | None) -> None:
        """Writes a point down and closes its trial; `values` are the objectives of a measured one."""
        trial.set_user_attr(_POINT, json.dumps({"point": point.to_json(), "values": values}))
        self._close(trial.number, values)

    def drop(self, trial: Any) -> None:
        """Closes a trial whose choice was made before; it leaves no point."""
        self._close(trial.number, None)

    def _close(self, number: int, values: Sequence[float] | None) -> None:
        import optuna

        if values is None:
            self._study.tell(number, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(number, list(values))

    def _mend(self) -> None:
        import optuna

        state = optuna.trial.TrialState
        for trial in self._study.get_trials(deepcopy=True, states=(state.RUNNING,)):
            if _POINT in trial.user_attrs:
                self._close(trial.number, json.loads(trial.user_attrs[_POINT])["values"])
                continue
            self._study.tell(trial.number, state=state.FAIL)
            if "plan" in trial.params:
                self._study.enqueue_trial(dict(trial.params))


@contextmanager
def journal(
    records: Records, name: str, space: Space, ways: tuple[str, ...], *, seed: int, sampler: str
) -> Iterator[Journal]:
    """The journal of that name, begun or continued; `ways` are "maximize" or "minimize", one an objective.

    Raises `StoreError` when the database is lost, `MissingExtra` without Optuna.
    """
    optuna = require("optuna", extra="train")
    wait = {"connect_args": {"timeout": 60}} if records.url.startswith("sqlite") else {}
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = None
    try:
        with warnings.catch_warnings():
            # Optuna remarks on its experimental parts and on values that it finds unusual.
            warnings.filterwarnings("ignore", module=r"optuna\.")
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            storage = optuna.storages.RDBStorage(records.url, engine_kwargs=wait)
            study = optuna.create_study(
                study_name=name, storage=storage, load_if_exists=True, directions=list(ways)
            )
            yield Journal(study, space, seed, sampler)
    except Exception as error:
        if isinstance(error, optuna.exceptions.StorageInternalError) or _of_database(error):
            # The driver's own words may hold the address and the user, so only their kind is told.
            raise StoreError(
                "the search cannot be read or written", value=type(error.__cause__ or error).__name__,
                rule="the records' database holds the search",
                fix="check the database and run again: finished trials are kept",
            ) from error  # fmt: skip
        raise
    finally:
        optuna.logging.set_verbosity(before)
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()


def _of_database(error: Exception) -> bool:
    return type(error).__module__.startswith("sqlalchemy")


def _sampler(name: str, seed: int, families: int) -> Any:
    import optuna

    number = seed % (2**31 - 1)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=max(8, 2 * families), seed=number)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=number)
    return optuna.samplers.TPESampler(seed=number, n_startup_trials=max(8, 2 * families))
