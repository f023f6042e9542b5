"""The whole loop on a small sample, from raw rows to an answered request (ML Test Score, infra.3)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelyard.core.clock import iso
from modelyard.core.errors import ModelyardError
from modelyard.core.progress import Progress
from modelyard.data.profile import profile
from modelyard.data.tensors import take
from modelyard.data.validate import validate
from modelyard.lifecycle.arms import main_answer
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import contract_of, dataset_of, part_of, recipe_of
from modelyard.lifecycle.rows import plain_rows
from modelyard.lifecycle.stage import ENDPOINT, stage
from modelyard.measure.measurement import Verdict
from modelyard.model.answer import answer
from modelyard.model.convert.conversion import convert
from modelyard.release.answers import Answers
from modelyard.release.bundle import Bundle
from modelyard.release.info import ReleaseInfo
from modelyard.release.key import signing_key
from modelyard.release.load import build_bundle
from modelyard.train.fit import fit

_ROWS = 400
_ASKED = 5


def rehearse(context: Context, progress: Progress) -> Verdict:
    """Validates, trains, converts, signs, serves and asks, all on a few hundred rows; the verdict infra.3.

    A failure of any link is the verdict, with the link's own words, never an exception.
    """
    began = time.perf_counter()
    link = "sample"
    done: list[str] = []
    try:
        for link, act in _links(context):
            progress(len(done) / 5, f"rehearsal: {link}")
            act()
            done.append(link)
    except ModelyardError as error:
        return Verdict(
            "infra.3", False, f"the loop on a sample broke at {link}: {error}", details={"done": done}
        )
    seconds = time.perf_counter() - began
    why = f"{' → '.join(done)}: {_ASKED} requests answered as in training, in {seconds:.1f} s"
    return Verdict("infra.3", True, why, details={"done": done, "seconds": seconds})


def _links(context: Context) -> list[tuple[str, Any]]:
    state: dict[str, Any] = {}

    def check() -> None:
        found = validate(part_of(context, "train").table.slice(0, _ROWS), contract_of(context))
        if not found.holds:
            raise ModelyardError(found.findings[0].message)

    def train() -> None:
        state["dataset"] = dataset_of(context).sample(_ROWS)
        recipe = recipe_of(context.project, epochs=1)
        state["fitted"] = fit(recipe, context.values("train")["params"], state["dataset"])

    def turn() -> None:
        sample = take(state["dataset"].train, slice(0, 32))
        labels = contract_of(context).labels
        state["sample"] = sample
        state["model"] = convert(
            state["fitted"].trained, sample, task=context.project.task, labels=labels
        ).model

    def sign() -> None:
        state["bundle"] = _bundle(context, state["model"], state["sample"])

    def serve() -> None:
        _ask(context, state["bundle"], state["model"])

    return [("data", check), ("train", train), ("convert", turn), ("release", sign), ("serve", serve)]


def _bundle(context: Context, model: Any, sample: Mapping[str, Any]) -> Bundle:
    rows = take(dict(sample), slice(0, 8))
    answers = Answers(rows, answer(model, rows))
    contract = contract_of(context)
    info = ReleaseInfo(
        ENDPOINT, 1, iso(context.clock.now()), context.project.task, model.labels, {"model": model.digest}
    )
    return build_bundle(
        info,
        model=model,
        contract=contract,
        profile=profile(part_of(context, "train").table.slice(0, _ROWS), contract),
        requirements=(),
        evidence=(),
        answers=answers,
        key=signing_key(context.project.keys),
    )


def _ask(context: Context, bundle: Bundle, model: Any) -> None:
    test = part_of(context, "test")
    expected = answer(model, take(test.tensors, slice(0, _ASKED)))
    rows = plain_rows(test.tensors, contract_of(context), range(min(_ASKED, len(test.targets))))
    with stage((bundle,), context.project.keys, work=context.work("stages"), by=context.command) as running:
        for number, row in enumerate(rows):
            answered = running.client.predict(ENDPOINT, number, row, f"rehearsal-{number}")
            if not answered.ok:
                raise ModelyardError(
                    "a request was not answered", value=dict(answered.body) or answered.status
                )
            got = main_answer(answered.body["predictions"][0], model.labels)
            if not np.allclose(got, expected[number], atol=1e-4):
                raise ModelyardError("an answer differs from training's", value=got)
