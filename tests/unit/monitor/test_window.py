from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelyard.core.digest import canonical
from modelyard.core.errors import MonitorError
from modelyard.data.profile import Profile
from modelyard.measure.requirement import Requirement
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.window import judge_window
from modelyard.monitor.window_report import WindowReport

ACCURACY = Requirement("accuracy", 0.9, "at_least")
LATENCY = Requirement("latency_p99", 0.02, "at_most", where="release")


def judge(
    world: Any, reference: Profile, log: pa.Table, feedback: pa.Table | None = None, **more: Any
) -> WindowReport:
    return judge_window(
        log, feedback, reference, world.contract, [ACCURACY, LATENCY], endpoint="pets", **more
    )


def test_clean_traffic_is_quiet_and_every_check_is_listed(world: Any, reference: Profile) -> None:
    log = world.log(1000, 3)
    report = judge(world, reference, log, world.feedback(log, 0.97), released=0.0, now=9.0,
                   options=MonitorOptions(stale_after=10.0))  # fmt: skip
    assert report.quiet
    assert report.alarms == () and report.unjudged == ()
    claims = {verdict.claim for verdict in report.verdicts}
    assert {"monitor.breaches", "monitor.error_rate", "monitor.latency_p99", "monitor.staleness",
            "monitor.drift[weight].ks", "monitor.drift[colour].fisher", "monitor.drift[photo.mean].ks",
            "monitor.drift[prediction].fisher", "monitor.drift[confidence].ks",
            "monitor.numerics[outputs]", "monitor.quality[accuracy]"} <= claims  # fmt: skip
    assert report.rows == 1000
    assert report.until - report.since == pytest.approx(99.9)


@pytest.mark.parametrize(
    ("moves", "about", "words"),
    [
        ({"weight": 3.0}, ("drift", "weight"), "mean moved from 6.07 to"),
        ({"bright": 0.3}, ("drift", "photo"), "photo mean moved from 0.5 to 0.15 (KS 1.00)"),
        ({"colour": [0.2, 0.3, 0.5]}, ("drift", "colour"), "share of 'blue' moved from 20.7% to"),
        ({"missing": 0.3}, ("drift", "weight"), "missing rate moved from 2.9% to"),
        ({"slow": 20.0}, ("latency", "latency_p99"), "required at most 20.0 ms"),
    ],
)
def test_a_planted_fault_fires_with_its_cause_and_a_command(
    world: Any, reference: Profile, moves: dict[str, Any], about: tuple[str, str], words: str
) -> None:
    report = judge(world, reference, world.log(400, 4, **moves), look=50)
    promised = [("breaches", "weight")] if "missing" in moves else []
    assert [(alarm.kind, alarm.subject) for alarm in report.alarms] == [*promised, about]
    assert words in report.alarms[-1].cause
    assert report.alarms[-1].action.startswith("modelyard ")
    assert not report.alarms[-1].verdict.passed


def test_a_shift_of_the_answers_alone_is_prediction_drift(world: Any, reference: Profile) -> None:
    unsure = world.answers(600, 8, sharp=0.3)
    report = judge(world, reference, world.log(600, 8, answers=unsure))
    assert [(alarm.kind, alarm.subject) for alarm in report.alarms] == [("prediction-drift", "confidence")]


def test_a_large_window_does_not_fire_on_what_does_not_matter(world: Any, reference: Profile) -> None:
    big = world.reference(200_000, 1)
    report = judge(world, big, world.log(100_000, 2, weight=0.1))
    verdict = next(item for item in report.verdicts if item.claim == "monitor.drift[weight].ks")
    assert verdict.details["p_value"] < 1e-6
    assert verdict.passed and "too small to matter" in verdict.why
    assert report.quiet


def test_a_small_window_says_so_instead_of_passing(world: Any, reference: Profile) -> None:
    report = judge(world, reference, world.log(40, 3, weight=50.0))
    assert not report.judged and not report.quiet
    assert report.alpha == 0.0
    assert report.unjudged[0].why == "too few rows to judge: 40 answered of 200"
    assert not report.to_verdict().passed
    assert "too few rows" in report.to_verdict().why


def test_one_nan_in_an_answer_is_enough_even_in_a_small_window(world: Any, reference: Profile) -> None:
    answers = world.answers(30, 3)
    answers[7] = np.nan
    report = judge(world, reference, world.log(30, 3, answers=answers))
    assert [alarm.kind for alarm in report.alarms] == ["numerics"]
    assert "NaN in 1 rows" in report.alarms[0].cause
    assert report.alarms[0].action == "modelyard endpoint rollback pets"


def test_an_infinity_in_an_input_is_named_by_its_feature(world: Any, reference: Profile, put: Any) -> None:
    log = world.log(300, 3)
    weight = log["in_weight"].to_numpy().copy()
    weight[5] = np.inf
    report = judge(world, reference, put(log, "in_weight", pa.array(weight, from_pandas=True)))
    assert ("numerics", "weight") in [(alarm.kind, alarm.subject) for alarm in report.alarms]


def test_breaches_name_the_promise_that_broke(world: Any, reference: Profile, put: Any) -> None:
    log = world.log(500, 3)
    lists = [["legs: maximum 8"] if index % 10 == 0 else [] for index in range(500)]
    report = judge(world, reference, put(log, "breaches", lists))
    (alarm,) = report.alarms
    assert (alarm.kind, alarm.subject) == ("breaches", "legs")
    assert "legs: maximum 8 (50 rows)" in alarm.cause


def test_failed_requests_are_held_against_the_requirement(world: Any, reference: Profile, put: Any) -> None:
    log = world.log(600, 3)
    failing = put(log, "outcome", ["failed" if index % 20 == 0 else "ok" for index in range(600)])
    assert [alarm.kind for alarm in judge(world, reference, failing).alarms] == ["errors"]
    loose = [Requirement("error_rate", 0.2, "at_most", where="release")]
    assert judge_window(failing, None, reference, world.contract, loose).quiet


def test_quality_fires_only_when_its_interval_excludes_the_bound(world: Any, reference: Profile) -> None:
    log = world.log(1000, 3)
    bad = judge(world, reference, log, world.feedback(log, 0.7))
    assert [(alarm.kind, alarm.subject) for alarm in bad.alarms] == [("quality", "accuracy")]
    near = judge(world, reference, log, world.feedback(log, 0.885, seed=9))
    verdict = next(item for item in near.verdicts if item.claim == "monitor.quality[accuracy]")
    assert verdict.measurements[0].value < 0.9 < verdict.measurements[0].high
    assert near.quiet and "may be chance" in verdict.why


def test_feedback_is_joined_by_id_and_the_last_word_counts(world: Any, reference: Profile) -> None:
    log = world.log(400, 3)
    wrong, right = world.feedback(log, 0.0), world.feedback(log, 1.0)
    stray = pa.table({"id": ["nobody"], "time": right["time"][:1], "label": ["cat"]})
    strange = pa.table({"id": log["id"][:2], "time": right["time"][:2], "label": ["<b>", "wolf"]})
    report = judge(world, reference, log, pa.concat_tables([wrong, right, stray, strange]))
    verdict = next(item for item in report.verdicts if item.claim == "monitor.quality[accuracy]")
    assert verdict.measurements[0].value == 1.0
    assert verdict.measurements[0].n == 398
    assert (verdict.details["unknown_ids"], verdict.details["unusable"]) == (1, 2)


def test_few_labels_leave_quality_unjudged(world: Any, reference: Profile) -> None:
    log = world.log(400, 3)
    report = judge(world, reference, log, world.feedback(log.slice(0, 20), 0.1))
    assert ("monitor.quality[accuracy]", "too few labelled rows to judge: 20 of 50") in [
        (item.claim, item.why) for item in report.unjudged
    ]


def test_a_stale_release_fires_whatever_the_traffic(world: Any, reference: Profile) -> None:
    report = judge(world, reference, world.log(0, 3), released=0.0, now=100.0,
                   options=MonitorOptions(stale_after=50.0))  # fmt: skip
    assert [alarm.kind for alarm in report.alarms] == ["staleness"]
    assert report.rows == 0 and not report.judged


def test_shadow_rows_and_unlogged_features_are_left_out_openly(
    world: Any, reference: Profile, put: Any
) -> None:
    log = world.log(500, 3)
    shadow = put(world.log(500, 4, weight=30.0), "arm", ["shadow"] * 500)
    both = pa.concat_tables([log, shadow]).drop_columns(["in_colour"])
    report = judge(world, reference, both)
    assert report.quiet and report.rows == 500
    assert ("monitor.drift[colour]", "not logged: personal or absent") in [
        (item.claim, item.why) for item in report.unjudged
    ]


def test_a_regression_is_judged_on_its_values() -> None:
    from modelyard.data.contract import Column, Contract
    from modelyard.data.profile import profile

    contract = Contract("r", (Column("x", "number"), Column("y", "number", role="label")))
    rng = np.random.default_rng(0)
    x = rng.normal(size=2000)
    reference = profile(pa.table({"x": x}), contract, extra={"prediction": 2 * x})

    def log(offset: float) -> pa.Table:
        return pa.table({
            "id": [str(index) for index in range(500)],
            "time": pa.array(range(500), pa.timestamp("us", tz="UTC")),
            "outcome": ["ok"] * 500,
            "latency": [0.001] * 500,
            "breaches": pa.array([[]] * 500, pa.list_(pa.string())),
            "in_x": x[:500],
            "prediction": 2 * x[:500] + offset,
        })  # fmt: skip

    feedback = pa.table(
        {"id": log(0)["id"], "time": log(0)["time"], "value": 2 * x[:500] + rng.normal(size=500)}
    )
    wanted = [Requirement("rmse", 1.3, "at_most")]
    assert judge_window(log(0.0), feedback, reference, contract, wanted).quiet
    kinds = {alarm.kind for alarm in judge_window(log(4.0), feedback, reference, contract, wanted).alarms}
    assert kinds == {"prediction-drift", "quality"}


def test_a_table_that_is_no_log_is_refused(world: Any, reference: Profile) -> None:
    with pytest.raises(MonitorError, match="not a prediction log"):
        judge(world, reference, pa.table({"a": [1]}))


def test_a_report_survives_json(world: Any, reference: Profile) -> None:
    log = world.log(400, 4, weight=3.0)
    report = judge(world, reference, log, world.feedback(log, 0.5))
    text = canonical(report.to_json())
    import json

    assert WindowReport.from_json(json.loads(text)).to_json() == report.to_json()
    assert judge(world, reference, log, world.feedback(log, 0.5)) == report


def test_shuffled_rows_give_the_same_verdicts(world: Any, reference: Profile) -> None:
    log = world.log(400, 4, weight=1.0)
    order = np.random.default_rng(1).permutation(400)
    one, other = judge(world, reference, log.take(order)), judge(world, reference, log)
    assert [(item.claim, item.passed, item.why) for item in one.verdicts] == [
        (item.claim, item.passed, item.why) for item in other.verdicts
    ]
