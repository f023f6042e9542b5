from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modelyard.data.contract import Column, Contract
from modelyard.measure.measurement import Verdict
from modelyard.measure.requirement import Requirement
from modelyard.score.checks.catalogue import CHECKS
from modelyard.score.context import CheckContext, FeatureCost, GitFacts
from modelyard.score.slices import automatic_slices


def run(name: str, context: CheckContext, **more: Any) -> Verdict:
    return CHECKS.get(name).run(replace(context, **more))


def test_data_1_needs_every_split_to_hold_and_lists_what_was_not_checked(context: CheckContext) -> None:
    good = Verdict("data.contract", True, "holds", details={"unchecked": ["free text of note"], "rows": 9})
    bad = Verdict("data.contract", False, "income is negative in 3 rows")
    passed = run("data.1", context, findings={"train": good, "test": good})
    assert passed.passed and "free text of note" in passed.why
    failed = run("data.1", context, findings={"train": good, "test": bad})
    assert not failed.passed and "test: income is negative in 3 rows" in failed.why


def test_data_2_names_the_feature_without_benefit(context: CheckContext) -> None:
    verdict = run("data.2", context)
    assert verdict.passed
    assert verdict.details["without_benefit"] == ["noise"]
    assert [item.of for item in verdict.measurements] == ["income", "region", "noise"]
    income = verdict.measurements[0]
    assert income.low is not None and income.low > 0.2
    assert not run("data.2", context, useless_share=0.2).passed


def test_data_2_counts_a_lower_error_as_a_benefit(context: CheckContext) -> None:
    verdict = run("data.2", context, metric="log_loss")
    assert verdict.measurements[0].of == "income" and verdict.measurements[0].value > 0


def test_data_3_holds_each_cost_against_the_budget(context: CheckContext) -> None:
    costs = {name: FeatureCost(1e-4, 8.0, 0.0) for name in ("income", "region", "noise")}
    assert run("data.3", context, costs=costs, cost_budget=1e-3).passed
    assert not run("data.3", context, costs=costs, cost_budget=1e-5).passed
    del costs["noise"]
    assert "no cost was measured for noise" in run("data.3", context, costs=costs, cost_budget=1e-3).why


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (Column("x", "number", owner="a", source="b", deprecated=True), "x is deprecated"),
        (Column("x", "number", source="b"), "x has no owner"),
        (Column("x", "number", owner="a"), "x has no source"),
        (Column("x", "number", owner="a", source="b", privacy="personal", retention="30d"), "without leave"),
        (Column("x", "number", owner="a", source="b", privacy="sensitive"), "has no retention"),
    ],
)
def test_data_4_names_the_rule_and_the_column(context: CheckContext, column: Column, words: str) -> None:
    label = Column("y", "number", role="label", owner="a", source="b")
    verdict = run("data.4", context, contract=Contract("c", (column, label)))
    assert not verdict.passed and words in verdict.why


def test_data_4_allows_what_the_project_declares(context: CheckContext) -> None:
    assert run("data.4", context).passed
    assert not run("data.4", context, allowed_sources=("lake",)).passed
    age = Column("age", "number", privacy="personal", retention="365d")
    label = Column("y", "number", role="label")
    contract = Contract("c", (age, label), source="warehouse")
    assert run("data.4", context, contract=contract, allowed_personal=("age",), owner="risk team").passed


def test_model_1_needs_committed_specs_and_a_clean_tree(context: CheckContext) -> None:
    passed = run("model.1", context)
    assert passed.passed and "Ada" in passed.why and passed.details["commit"] == "c" * 40
    git = context.git or GitFacts()
    assert "not in git: recipe.py" in run("model.1", context, git=replace(git, tracked=frozenset(
        {"modelyard.toml", "contract.toml"}))).why  # fmt: skip
    assert (
        "differs from the commit: recipe.py"
        in run("model.1", context, git=replace(git, changed=("recipe.py",))).why
    )
    assert run("model.1", context, git=replace(git, review="")).passed
    assert not run("model.1", context, git=replace(git, review=""), review_required=True).passed
    assert not run("model.1", context, git=GitFacts()).passed


def test_model_3_is_trainings_own_verdict(context: CheckContext) -> None:
    assert run("model.3", context, study=Verdict("study", True, "12 trials")).claim == "model.3"
    assert not run("model.3", context).passed


def test_model_5_beats_the_majority_but_not_itself(context: CheckContext) -> None:
    verdict = run("model.5", context)
    assert verdict.passed and verdict.measurements[0].value > 0.2
    assert context.predict is not None
    itself = {"the same": context.predict(context.tensors)}
    tied = run("model.5", context, baselines=itself)
    assert not tied.passed and tied.details["not_beaten"] == ["the same"]
    assert run("model.5", context, baselines=itself, margin=-0.05).passed


def test_model_6_finds_a_weak_slice_that_nobody_declared(context: CheckContext) -> None:
    assert run("model.6", context).passed, run("model.6", context).why
    assert context.predict is not None and context.targets is not None
    usual = context.predict

    def broken_in_the_west(tensors: Any) -> Any:
        answers = usual(tensors)
        west = tensors["region"][:, 0] == "west"
        answers[west] = answers[west][:, ::-1]
        return answers

    verdict = run("model.6", context, predict=broken_in_the_west, requirements=(
        Requirement("accuracy", 0.6, "at_least"),))  # fmt: skip
    assert not verdict.passed and verdict.details["weak"] == ["region = west"]


def test_model_6_fails_a_declared_slice_by_its_own_requirement_or_too_few_rows(context: CheckContext) -> None:
    own = (*context.requirements, Requirement("accuracy", 0.999, "at_least", slice="south"))
    assert run("model.6", context, requirements=own).details["weak"] == ["south"]
    tiny = {"tiny": np.arange(600) < 5}
    assert "too few rows" in run("model.6", context, slices=tiny).why
    assert "gives a bound" in run("model.6", context, requirements=()).why


def test_found_slices_do_not_fire_by_chance(context: CheckContext) -> None:
    """Fifty random features, a bound at the model's own mean: no slice is really weaker."""
    rng = np.random.default_rng(3)
    noise = {f"n{index}": rng.normal(size=(600, 1)) for index in range(24)}
    truth = np.zeros(600, dtype=np.int64)
    answers = np.where(rng.random((600, 1)) < 0.9, [[0.9, 0.1]], [[0.1, 0.9]])
    verdict = run(
        "model.6", context, tensors=noise, targets=truth, predict=lambda _: answers, labels=(), slices={},
        requirements=(Requirement("accuracy", 0.9, "at_least"),),
    )  # fmt: skip
    assert verdict.passed and len(verdict.measurements) == 72


def test_automatic_slices_cover_text_numbers_and_missing_values() -> None:
    tensors = {
        "t": np.array([["a"], [""], ["a"], ["b"]], dtype=object),
        "x": np.array([[0.0], [1.0], [np.nan], [1.0]]),
        "image": np.zeros((4, 2, 2)),
    }
    names = set(automatic_slices(tensors, np.zeros(4), ()))
    assert names == {"t = a", "t = b", "t = (missing)", "x = 0", "x = 1", "x is missing"}


def test_model_7_reports_rates_and_gaps_of_groups(context: CheckContext) -> None:
    verdict = run("model.7", context)
    assert verdict.passed, verdict.why
    assert set(verdict.details["rates"]) == {"region = north", "region = south", "region = west"}
    rates = verdict.details["rates"]["region = north"]
    assert rates["yes"] + rates["no"] == pytest.approx(1.0)
    assert not run("model.7", context, group_gap=1e-6).passed
    assert "nothing to compare" in run("model.7", context, groups={"one": np.array(["x"] * 600)}).why
    assert not run("model.7", context, groups={}).passed


def test_model_7_fails_a_model_that_is_wrong_for_one_group(context: CheckContext) -> None:
    assert context.predict is not None
    usual = context.predict

    def unfair(tensors: Any) -> Any:
        answers = usual(tensors)
        north = tensors["region"][:, 0] == "north"
        answers[north] = answers[north][:, ::-1]
        return answers

    verdict = run("model.7", context, predict=unfair)
    assert not verdict.passed and "region = north" in verdict.why
