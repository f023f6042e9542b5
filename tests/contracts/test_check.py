"""What every check and drill must keep, those that plugins bring included."""

from __future__ import annotations

import pytest

from modelyard.core.digest import canonical
from modelyard.measure.measurement import Verdict
from modelyard.score.check import Check
from modelyard.score.checks.catalogue import CHECKS
from modelyard.score.context import CheckContext
from modelyard.score.drills.catalogue import DRILLS
from modelyard.score.tests import score_test

ALL = [pytest.param(CHECKS, name, id=name) for name in CHECKS.names()] + [
    pytest.param(DRILLS, name, id=f"drill.{name}") for name in DRILLS.names()
]


@pytest.mark.parametrize(("catalogue", "name"), ALL)
def test_a_check_names_its_test_and_claims_it(catalogue: object, name: str) -> None:
    check = catalogue.get(name)  # type: ignore[attr-defined]
    assert isinstance(check, Check)
    assert check.id == name
    assert check.run(CheckContext()).claim == score_test(name).claim


@pytest.mark.parametrize(("catalogue", "name"), ALL)
def test_missing_facts_are_a_failed_verdict_and_no_exception(catalogue: object, name: str) -> None:
    verdict = catalogue.get(name).run(CheckContext())  # type: ignore[attr-defined]
    assert isinstance(verdict, Verdict)
    assert verdict.passed is False
    assert verdict.why.startswith("not ") and verdict.details["lacking"]
    canonical(verdict.to_json())
    assert Verdict.from_json(verdict.to_json()).why == verdict.why


@pytest.mark.parametrize(("catalogue", "name"), ALL)
def test_equal_contexts_give_equal_verdicts(catalogue: object, name: str) -> None:
    check = catalogue.get(name)  # type: ignore[attr-defined]
    assert check.run(CheckContext()).to_json() == check.run(CheckContext()).to_json()
