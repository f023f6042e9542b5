"""Build the immutable bundle of model, contract, profile, requirements and evidence; sign and register it."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.core.clock import iso
from modelyard.core.digest import digest_file, short
from modelyard.core.progress import Progress
from modelyard.core.unit import show_size
from modelyard.data.profile import Profile, profile
from modelyard.data.tensors import take
from modelyard.lifecycle.lineage import subjects_of
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import contract_of, model_of, part_of, profile_of, runtime_of
from modelyard.lifecycle.project import FILE
from modelyard.lifecycle.step import Outcome
from modelyard.measure.measurement import Verdict
from modelyard.model.answer import answer
from modelyard.model.model import Model
from modelyard.release.answers import Answers
from modelyard.release.bundle import Bundle
from modelyard.release.info import ReleaseInfo
from modelyard.release.key import signing_key, trusted_keys
from modelyard.release.load import build_bundle
from modelyard.release.registry import Registry

_ANSWERS = 32


def run(context: Context, progress: Progress) -> Outcome:
    project, store, model = context.project, context.store, model_of(context, "compress")
    key = signing_key(project.keys)
    lineage = {
        "snapshot": context.values("data")["snapshot"],
        "contract": context.values("data")["contract"],
        "code": context.values("train")["code"],
        "trained": context.values("train")["model"],
        "model": model.digest,
        "project": digest_file(project.root / FILE),
    }
    evidence = [entry.to_json() for entry in store.ledger.entries() if entry.subject in subjects_of(lineage)]
    answers, created = _answers(context, model), iso(context.clock.now())
    reference = _reference(context, model)

    def build(version: int) -> Bundle:
        return build_bundle(
            ReleaseInfo(
                project.name,
                version,
                created,
                project.task,
                model.labels,
                lineage,
                runtime=runtime_of(context),
            ),
            model=model,
            contract=contract_of(context),
            profile=reference,
            requirements=project.requirements,
            evidence=evidence,
            answers=answers,
            key=key,
        )

    progress(0.5, "signing")
    registry = Registry(store, trusted_keys(project.keys))
    release = registry.publish(project.name, build, by=context.command)
    gate = Verdict.from_json(context.values("validate")["gate"])
    values: dict[str, Any] = {
        "release": release.digest,
        "name": release.name,
        "version": release.version,
        "lineage": lineage,
    }
    total = sum(len(data) for data in registry.fetch(release).files.values())
    headline = f"{release.name} {release.version} · {short(release.digest)} · {show_size(total)}, signed"
    # The gate judged the model; its verdict is said of the release too, which is what may be served.
    return Outcome(values, headline, ((release.digest, gate),))


def _reference(context: Context, model: Model) -> Profile:
    """The training part's distribution, with that of the answers on rows that training did not see."""
    unseen = part_of(context, "validation")
    answers = answer(model, unseen.tensors, runtime_of(context))
    if model.labels:
        labels = np.array(model.labels, dtype=object)[answers.argmax(axis=1)]
        extra = {"prediction": labels, "confidence": answers.max(axis=1)}
    else:
        extra = {"prediction": answers.reshape(-1)}
    seen = profile(unseen.table, contract_of(context), extra=extra).columns
    reference = profile_of(context)
    return Profile(reference.rows, {**reference.columns, **{name: seen[name] for name in extra}})


def _answers(context: Context, model: Model) -> Answers:
    rows = take(part_of(context, "test").tensors, slice(0, _ANSWERS))
    return Answers(rows, answer(model, rows, runtime_of(context)))
