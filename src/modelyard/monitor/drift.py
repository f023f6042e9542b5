"""Drift of every feature and of the answers, against the release's own reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.data.columnprofile import TensorProfile
from modelyard.data.profile import ColumnProfile, Profile, profile
from modelyard.monitor.actions import Actions
from modelyard.monitor.detector import Detector, Shift
from modelyard.monitor.detectors.catalogue import DETECTORS
from modelyard.monitor.options import MonitorOptions
from modelyard.monitor.suspicion import Suspicion
from modelyard.monitor.window_report import Unjudged

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.data.contract import Contract

ANSWERS = ("prediction", "confidence")
"""The profile's names for what the model answered."""


def window_profile(answered: pa.Table, features: pa.Table, contract: Contract) -> Profile:
    """The profile of a window: its features, and the answers as `prediction` and `confidence`."""
    extra: dict[str, Any] = {}
    if contract.labels and "label" in answered.column_names:
        extra["prediction"] = np.array(answered["label"].to_pylist(), dtype=object)
    elif not contract.labels and "prediction" in answered.column_names:
        extra["prediction"] = answered["prediction"].to_numpy()
    if "confidence" in answered.column_names and contract.labels:
        extra["confidence"] = answered["confidence"].to_numpy()
    return profile(features, contract, extra=extra)


def drift(
    window: Profile, reference: Profile, options: MonitorOptions, actions: Actions
) -> tuple[list[Suspicion], list[Unjudged]]:
    """Every chosen detector on every column of the window; columns without a reference are left unjudged."""
    detectors = [DETECTORS.get(name) for name in options.detectors]
    suspicions: list[Suspicion] = []
    unjudged: list[Unjudged] = []
    for name, column in window.columns.items():
        before = reference.columns.get(name)
        if before is None:
            unjudged.append(Unjudged(f"monitor.drift[{name}]", "the reference profile does not have it"))
            continue
        found = list(_compared(name, before, column, detectors, options))
        suspicions += [_suspicion(name, *shifted, actions) for shifted in found]
        if not found:
            unjudged.append(Unjudged(f"monitor.drift[{name}]", "no value to compare on one of the sides"))
    return suspicions, unjudged


def _compared(
    name: str,
    reference: ColumnProfile,
    window: ColumnProfile,
    detectors: list[Detector],
    options: MonitorOptions,
) -> Iterator[tuple[str, str, Shift]]:
    for title, before, after in _parts(name, reference, window):
        for detector in detectors:
            shift = detector.compare(before, after, options)
            if shift is not None:
                yield title, detector.name, shift


def _parts(
    name: str, reference: ColumnProfile, window: ColumnProfile
) -> Iterator[tuple[str, ColumnProfile, ColumnProfile]]:
    """A column itself and, of a tensor, each of its statistics."""
    yield name, reference, window
    if isinstance(reference, TensorProfile) and isinstance(window, TensorProfile):
        for statistic, before in reference.statistics.items():
            if statistic in window.statistics:
                yield f"{name} {statistic}", before, window.statistics[statistic]


def _suspicion(name: str, title: str, detector: str, shift: Shift, actions: Actions) -> Suspicion:
    answer = name in ANSWERS
    statistic = title.removeprefix(name).strip()
    # "pixel mean moved", not "pixel mean mean moved".
    text = shift.text.removeprefix("mean ") if statistic == "mean" else shift.text
    return Suspicion(
        claim=f"monitor.drift[{name}{'.' + statistic if statistic else ''}].{detector}",
        kind="prediction-drift" if answer else "drift",
        subject=name,
        p_value=shift.p_value,
        relevant=shift.relevant,
        finding=f"{title} {text}",
        action=actions.inspect if answer else actions.retrain,
        effect=shift.effect,
        details={"detector": detector, "rows": shift.rows, **shift.details},
    )
