"""Search the hyper-parameters, fit with the best, convert to ONNX and prove that it answers alike."""

from __future__ import annotations

from typing import Any

from modelyard.core.digest import finite, short
from modelyard.core.progress import Progress, part
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import contract_of, dataset_of, recipe_of
from modelyard.lifecycle.reach import code_digest, project_code
from modelyard.lifecycle.show import show_measurement
from modelyard.lifecycle.step import Outcome
from modelyard.measure.quality import quality
from modelyard.model.convert.conversion import convert
from modelyard.train.fit import fit
from modelyard.train.search import search
from modelyard.train.study import tuning_verdict

_SAMPLE = 256


def parts(context: Context) -> dict[str, str]:
    """Each of the user's files that the recipe reaches."""
    return project_code(context.project.recipe_path)


def run(context: Context, progress: Progress) -> Outcome:
    project, records = context.project, context.store.records
    recipe, dataset, labels = recipe_of(project), dataset_of(context), contract_of(context).labels
    code = code_digest(project_code(project.recipe_path))
    # One study for one piece of code and data: a change of either starts anew, an interrupt goes on.
    name = f"{project.name}/{short(code)}/{short(dataset.digest())}/{recipe.metric}/{recipe.seed}"
    study = search(recipe, dataset, records, name=name, progress=part(progress, 0.0, 0.85))
    progress(0.85, "final fit")
    fitted = fit(
        recipe,
        study.best,
        dataset,
        checkpoints=context.work("train") / short(code),
        progress=part(progress, 0.85, 0.95),
    )
    progress(0.95, "converting to ONNX")
    sample = {key: values[:_SAMPLE] for key, values in dataset.validation.items()}
    converted = convert(fitted.trained, sample, task=project.task, labels=labels)
    measured = quality(
        recipe.metric, dataset.validation_targets, fitted.predict(dataset.validation), of="validation"
    )
    _record(context, study.best, {recipe.metric: measured.value, "seconds": fitted.seconds})
    model = converted.model
    values: dict[str, Any] = {
        "model": context.store.objects.put(model.onnx),
        "signature": model.signature.to_json(),
        "producer": model.producer,
        "code": code,
        "params": finite(dict(study.best)),
        "study": study.to_json(),
        "quality": measured.to_json(),
        "history": finite([dict(row) for row in fitted.history]),
    }
    tried = sum(trial.state != "failed" for trial in study.trials)
    headline = f"{what_was_trained(fitted.trained)} · {tried} trials · {show_measurement(measured)}"
    verdicts = ((model.digest, converted.parity), (code, tuning_verdict(study)))
    return Outcome(values, headline, verdicts)


def what_was_trained(trained: Any) -> str:
    """The name that people know a trained object by: its last step's class, or the network's.

    >>> from sklearn.linear_model import Ridge
    >>> what_was_trained(Ridge())
    'Ridge'
    """
    steps = getattr(trained, "steps", None)
    if isinstance(steps, list) and steps:
        return what_was_trained(steps[-1][1])
    if type(trained).__module__.startswith("modelyard.train."):
        name = type(trained.module).__name__
        return "torch network" if name == "Sequential" else name
    return type(trained).__name__


def _record(context: Context, params: Any, metrics: dict[str, float]) -> None:
    records = context.store.records
    run = records.start_run(context.project.name, "train", finite(dict(params)))  # type: ignore[arg-type]
    records.log_metrics(run, metrics)
    records.finish_run(run)
