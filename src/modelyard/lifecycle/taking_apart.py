"""Finds a logged prediction, its release and its training data, and takes the prediction apart."""

from __future__ import annotations

import json
from typing import Any

from modelyard.core.errors import MonitorError
from modelyard.data.snapshot import Snapshot, load_part
from modelyard.lifecycle.debugging import Debugged, debug_row
from modelyard.lifecycle.loop import stored_record
from modelyard.lifecycle.project import Project
from modelyard.lifecycle.traffic import read_traffic
from modelyard.store.store import Store


def take_apart(project: Project, store: Store, prediction: str) -> Debugged:
    """The prediction of that id by the serving release, step by step."""
    traffic = read_traffic(project, store)
    record = stored_record(project, store, "data")
    if record is None:
        raise MonitorError("the training data is not in the store", fix="run the loop: modelyard run")
    snapshot = Snapshot.from_json(json.loads(store.objects.get(record.values["snapshot_object"])))
    training = load_part(snapshot, "train", store.objects)
    return debug_row(traffic.log, prediction, traffic.release, training, traffic.release.contract)


def newest_predictions(project: Project, store: Store, count: int) -> list[dict[str, Any]]:
    """The newest logged predictions: id, time, and the answer as text; newest first."""
    log = read_traffic(project, store).log
    names = [name for name in ("id", "time", "label", "prediction") if name in log.column_names]
    rows = log.select(names).slice(max(log.num_rows - count, 0)).to_pylist()
    return [
        {
            "id": row["id"],
            "time": str(row["time"]),
            "answer": str(row.get("label") or row.get("prediction") or ""),
        }
        for row in reversed(rows)
    ]
