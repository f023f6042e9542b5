"""The search over compression plans for a project: its data, its bar, its store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.compress.gate import Held
from modelyard.compress.inspect.roofline import kept_folder
from modelyard.compress.machine import this_machine
from modelyard.compress.search.bench import require_engines
from modelyard.compress.search.default_space import default_space
from modelyard.compress.search.found import Found
from modelyard.compress.search.limits import hard_limits
from modelyard.compress.search.page import search_page
from modelyard.compress.search.search import BUDGET, search_plans
from modelyard.compress.search.space import HOME
from modelyard.core.clock import SYSTEM_CLOCK
from modelyard.core.digest import Digest
from modelyard.core.errors import MissingExtra, ProjectError
from modelyard.core.files import file_lock, write_atomic
from modelyard.core.names import did_you_mean
from modelyard.core.progress import Progress, quiet
from modelyard.lifecycle.loop import Context, Observer, run_loop
from modelyard.lifecycle.parts import contract_of, dataset_of, model_of, part_of, recipe_of
from modelyard.lifecycle.project import Project
from modelyard.lifecycle.searched_plan import SearchedPlan, keep_plan
from modelyard.lifecycle.slices import slice_masks
from modelyard.measure.measurement import Measurement, Verdict
from modelyard.model.chosen_runtime import ChosenRuntime
from modelyard.model.runtimes import RUNTIMES
from modelyard.store.store import Store

if TYPE_CHECKING:
    from modelyard.compress.plan_trainable import Trainable

CALIBRATION = 256
_HELD = ("latency_p50", "latency_p99", "throughput", "model_size", "peak_memory")


@dataclass(frozen=True, slots=True)
class Searched:
    """A search's end and where it was drawn (`None` without matplotlib)."""

    found: Found
    picture: Path | None


def search_project(
    project: Project,
    store: Store,
    observer: Observer,
    *,
    targets: Sequence[str] | None = None,
    budget: float = BUDGET,
    trials: int | None = None,
    sampler: str = "tpe",
    passes: Sequence[str] | None = None,
    train_too: bool = False,
    progress: Progress = quiet,
    command: str = "modelyard compress --search",
) -> Searched:
    """Searches plans for the project's trained model; earlier steps run first where they have to.

    `passes` are plans as text; without any, every known kind of plan is tried, those that train with
    `train_too`. `targets` are engines ("cpu" is onnxruntime); the project file's without any. The validation
    part decides; the requirements on size are hard limits, those on what the search measures are goals. The
    verdict goes to the ledger, the choice to the store, where the loop finds it, the picture and the whole
    result beside the store. Killed at any moment, the same call goes on; interrupted, nothing is chosen.
    Raises `MissingExtra` for a target that is not installed, `StoreBusy` while another command works on the
    store.
    """
    runtimes = engines_of(project.compress.targets if targets is None else targets)
    require_engines(runtimes)
    done = run_loop(project, store, observer, until="train", command=command)
    if "train" not in done or any(record.stops for record in done.values()):
        raise ProjectError(
            "the loop stopped before there was a model to search with", fix="run: modelyard run"
        )
    context = Context(project, store, done, command, SYSTEM_CLOCK)
    found = search_model(
        context, runtimes, budget=budget, trials=trials, sampler=sampler, passes=passes, train_too=train_too,
        progress=progress,
    )  # fmt: skip
    return Searched(found, _drawn(project, found))


def search_model(
    context: Context, runtimes: Sequence[str], *, budget: float = BUDGET, trials: int | None = None,
    sampler: str = "tpe", passes: Sequence[str] | None = None, train_too: bool = False,
    progress: Progress = quiet,
) -> Found:  # fmt: skip
    """The search itself, for the model that the train step left; keeps what it ends with."""
    project, store = context.project, context.store
    options, original = project.compress, model_of(context, "train")
    train, held = part_of(context, "train"), part_of(context, "validation")
    measured = Measurement.from_json(context.values("train")["quality"])
    known = {*_HELD, project.train.metric}
    # Requirements are held on the service by its own clock; here they only say what is worth keeping.
    goals = [item for item in project.requirements if item.metric in known and not item.slice]
    with file_lock(project.store_root / "search.lock", wait=1.0, what="this project's search"):
        found = search_plans(
            original, default_space(passes, runtimes, trainable_of(context) if train_too else None),
            {name: values[:CALIBRATION] for name, values in train.tensors.items()},
            Held(held.tensors, held.targets), records=store.records, objects=store.objects,
            metric=project.train.metric, margin=project.margin(options.margin).of(measured.value),
            name=project.name, goal="size" if options.goal == "size" else "speed",
            slices=slice_masks(project, held.table), limits=hard_limits(project.requirements), goals=goals,
            budget=budget, trials=trials, seed=project.train.seed, sampler=sampler,
            tuning=kept_folder() / "tuning", progress=progress,
        )  # fmt: skip
    store.records.put_document("compress.found", project.name, found.to_json())
    if not found.interrupted:
        keep_plan(context, _plan(context, found, original.digest))
        store.ledger.append_verdict(original.digest, _verdict(found), by=context.command)
    return found


def engines_of(targets: Sequence[str]) -> tuple[str, ...]:
    """The runtimes that targets stand for, each once."""
    return tuple(dict.fromkeys(_runtime(name) for name in targets))


def _plan(context: Context, found: Found, model: Digest) -> SearchedPlan:
    here = this_machine()
    return SearchedPlan(
        found.plan, ChosenRuntime(found.runtime, found.settings), context.values("train")["code"],
        contract_of(context).digest, model, here.fingerprint, str(here), found.name, found.why,
    )  # fmt: skip


def trainable_of(context: Context) -> Trainable:
    """What plans that train learn from: the project's recipe with the parameters that were found."""
    from modelyard.compress.plan_trainable import Trainable

    project = context.project
    return Trainable(
        recipe_of(project), context.values("train")["params"], dataset_of(context), seed=project.train.seed
    )


def _runtime(target: str) -> str:
    if target == "cpu":
        return HOME
    if target not in RUNTIMES.names():
        raise ProjectError(
            "there is no such target to search on",
            value=target,
            fix=did_you_mean(target, ["cpu", *RUNTIMES.names()]),
        )
    return target


def _verdict(found: Found) -> Verdict:
    """What goes to the ledger: the choice, why, and the front with its measurements."""
    best = found.baseline if found.chosen is None else found.chosen
    ahead = [{"plan": point.name, "model": point.model, "why": point.why} for point in found.front]
    details = {"search": found.name, "runtime": found.runtime, "stopped": found.stopped, "front": ahead}
    return Verdict(
        "compress.search", found.chosen is not None, found.why, tuple(best.measured.values()), None, details
    )


def _drawn(project: Project, found: Found) -> Path | None:
    path = project.store_root / "search.html"
    try:
        write_atomic(path, search_page(found).encode())
    except MissingExtra:
        return None
    return path
