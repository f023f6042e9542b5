"""Facts of two small releases: one that deserves its points, and what it takes to lose them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelyard.data.contract import Column, Contract
from modelyard.data.profile import profile
from modelyard.measure.requirement import Requirement
from modelyard.monitor.options import MonitorOptions
from modelyard.score.context import CheckContext, GitFacts

LABELS = ("no", "yes")
CONTRACT = Contract(
    "loans",
    (
        Column("income", "number", minimum=0.0, maximum=1000.0),
        Column("region", "category", categories=("north", "south", "west")),
        Column("noise", "number"),
        Column("repaid", "category", role="label", categories=LABELS),
    ),
    owner="risk team",
    source="warehouse",
)


def rows(count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "income": rng.uniform(0, 100, count),
        "region": rng.choice(["north", "south", "west"], count, p=[0.5, 0.3, 0.2]).astype(object),
        "noise": rng.normal(size=count),
    }


def tensors_of(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        name: np.asarray(values, dtype=object if values.dtype == object else np.float32).reshape(-1, 1)
        for name, values in facts.items()
    }


def predict(tensors: dict[str, Any]) -> Any:
    bonus = np.where(tensors["region"][:, 0] == "north", 20.0, 0.0)
    chance = 1 / (1 + np.exp(-(tensors["income"][:, 0].astype(float) + bonus - 60) / 4))
    return np.stack([1 - chance, chance], axis=1)


def truth_of(facts: dict[str, Any], seed: int) -> Any:
    chance = predict(tensors_of(facts))[:, 1]
    return (np.random.default_rng(seed).random(len(chance)) < chance).astype(np.int64)


def log(count: int, seed: int) -> pa.Table:
    facts = rows(count, seed)
    answers = predict(tensors_of(facts))
    return pa.table({
        "id": [f"r{index}" for index in range(count)],
        "time": pa.array(np.arange(count) * 100_000, pa.timestamp("us", tz="UTC")),
        "arm": ["primary"] * count,
        "outcome": ["ok"] * count,
        "latency": np.random.default_rng(seed).uniform(0.001, 0.002, count),
        "breaches": pa.array([[]] * count, pa.list_(pa.string())),
        "in_income": facts["income"],
        "in_region": [str(value) for value in facts["region"]],
        "in_noise": facts["noise"],
        "label": [LABELS[index] for index in answers.argmax(axis=1)],
        "confidence": answers.max(axis=1),
        "probabilities": pa.array(list(answers), pa.list_(pa.float64())),
    })  # fmt: skip


@pytest.fixture(scope="session")
def context() -> CheckContext:
    held = rows(600, 1)
    truth = truth_of(held, 2)
    past = rows(3000, 3)
    answers = predict(tensors_of(past))
    live = log(650, 4)
    feedback = pa.table({
        "id": live["id"],
        "time": live["time"],
        "label": [LABELS[index] for index in truth_of(rows(650, 4), 5)],
    })  # fmt: skip
    reference = profile(
        pa.table({name: [str(v) for v in values] if values.dtype == object else values
                  for name, values in past.items()}),
        CONTRACT,
        extra={
            "prediction": np.array([LABELS[index] for index in answers.argmax(axis=1)], dtype=object),
            "confidence": answers.max(axis=1),
        },
    )  # fmt: skip
    majority = np.tile([0.4, 0.6] if truth.mean() > 0.5 else [0.6, 0.4], (600, 1))
    offline = pa.table(
        {"id": live["id"], **{name: live[f"in_{name}"] for name in ("income", "region", "noise")}}
    )
    return CheckContext(
        contract=CONTRACT, labels=LABELS, tensors=tensors_of(held), targets=truth, predict=predict,
        metric="accuracy", requirements=(
            Requirement("accuracy", 0.8, "at_least"),
            Requirement("latency_p99", 0.02, "at_most", where="release"),
        ),
        slices={"poor": held["income"] < 30, "south": held["region"] == "south"},
        groups={"region": held["region"].astype(str)}, baselines={"majority": majority},
        git=GitFacts("c" * 40, (), frozenset({"modelyard.toml", "contract.toml", "recipe.py"}), "Ada"),
        log=live, feedback=feedback, reference=reference, offline=offline, endpoint="loans",
        options=MonitorOptions(stale_after=86400.0 * 30), released=1_000_000.0, now=1_000_000.0 + 86400.0,
    )  # fmt: skip
