from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from modelyard.core.digest import canonical
from modelyard.monitor.options import MonitorOptions
from modelyard.score.context import CheckContext
from modelyard.score.drills.catalogue import DRILLS
from modelyard.score.tests import score_test


@pytest.mark.parametrize("name", DRILLS.names())
def test_the_planted_fault_fires_in_time_and_clean_traffic_is_quiet(context: CheckContext, name: str) -> None:
    verdict = DRILLS.get(name).run(context)
    assert verdict.passed, verdict.why
    assert verdict.claim == score_test(name).claim == f"drill.{name}"
    assert verdict.details["drill"] is True
    assert verdict.details["clean"]["false_alarms"] == []
    faults = verdict.details["faults"]
    assert faults and all(item["fired"] for item in faults.values())
    assert all(item["delay_rows"] <= verdict.details["stated_delay_rows"] for item in faults.values())
    canonical(verdict.to_json())


def test_the_drill_of_invariants_plants_a_breach_and_a_drift(context: CheckContext) -> None:
    faults = DRILLS.get("monitoring.2").run(context).details["faults"]
    assert list(faults) == ["a breach of income", "a drift of income"]
    assert "income: maximum" in faults["a breach of income"]["alarm"]["cause"]
    assert faults["a breach of income"]["delay_rows"] == 200


@pytest.mark.parametrize("name", DRILLS.names())
def test_the_drill_leaves_its_traffic_as_it_was(context: CheckContext, name: str) -> None:
    assert context.log is not None
    before = context.log.to_pydict()
    DRILLS.get(name).run(context)
    assert context.log.to_pydict() == before


def test_a_monitor_that_sleeps_fails_its_drill(context: CheckContext) -> None:
    deaf = replace(context, options=MonitorOptions(drift_floor=1.0, breach_max=1.0, stale_after=1.0))
    verdict = DRILLS.get("monitoring.2").run(deaf)
    assert not verdict.passed and "did not fire" in verdict.why


def test_a_monitor_that_always_fires_fails_its_drill(context: CheckContext) -> None:
    assert context.log is not None
    place = context.log.column_names.index("in_income")
    moved = context.log.set_column(place, "in_income", pa.array(np.full(context.log.num_rows, 999.0)))
    verdict = DRILLS.get("monitoring.2").run(replace(context, log=moved))
    assert not verdict.passed and "fired on clean traffic" in verdict.why


def test_a_release_that_is_really_stale_fails_its_drill(context: CheckContext) -> None:
    assert context.now is not None
    verdict = DRILLS.get("monitoring.4").run(replace(context, released=context.now - 90 * 86400.0))
    assert not verdict.passed and "fired" in verdict.why


@pytest.mark.parametrize("name", [item for item in DRILLS.names() if item != "monitoring.4"])
def test_too_little_traffic_is_no_drill(context: CheckContext, name: str) -> None:
    assert context.log is not None
    verdict = DRILLS.get(name).run(replace(context, log=context.log.slice(0, 300)))
    assert not verdict.passed and "400 rows of live traffic are needed" in verdict.why


@pytest.mark.parametrize("name", DRILLS.names())
def test_without_facts_a_drill_names_what_it_lacks(name: str) -> None:
    verdict = DRILLS.get(name).run(CheckContext())
    assert not verdict.passed and "contract" in verdict.details["lacking"]
