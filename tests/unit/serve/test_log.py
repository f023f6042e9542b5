"""The prediction log and the feedback: complete, redacted, bounded, and whole after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelyard.core.clock import ManualClock
from modelyard.core.errors import RequestError
from modelyard.data.contract import Column, Contract
from modelyard.serve import log as module
from modelyard.serve.feedback import Feedback, append_feedback, feedback_path, parse_feedback
from modelyard.serve.log import PredictionLog
from modelyard.serve.metrics import Metrics
from modelyard.serve.options import LogOptions
from modelyard.serve.reading import read_feedback, read_predictions
from modelyard.serve.record import PredictionRecord
from modelyard.serve.segment import finish_segment

CONTRACT = Contract(
    "people",
    (
        Column("age", "integer", minimum=0, maximum=120, privacy="quasi"),
        Column("name", "text", privacy="personal"),
        Column("group", "category", categories=("a", "b"), privacy="sensitive"),
        Column("pixels", "tensor", shape=(2,), datatype="FP32"),
        Column("y", "category", role="label", categories=("no", "yes")),
    ),
)
RELEASE = SimpleNamespace(digest="sha256:" + "a" * 64, version="3", labels=("no", "yes"), contract=CONTRACT)


def record(identity: str, *ages: float, outcome: Any = "ok", time: float = 50.0) -> PredictionRecord:
    rows = len(ages)
    inputs = {
        "age": np.array(ages, np.float32).reshape(-1, 1),
        "name": np.array([["Ada"]] * rows, dtype=object),
        "group": np.array([["a"]] * rows, dtype=object),
        "pixels": np.zeros((rows, 2), np.float32),
    }
    outputs = {"probabilities": np.array([[0.25, 0.75]] * rows, np.float32)}
    return PredictionRecord(
        RELEASE, "e", "primary", outcome, [identity], [rows or 1], [0.0], 0.0, time, rows or 1,
        {} if outcome == "rejected" else inputs, outputs if outcome == "ok" else {},
    )  # fmt: skip


@pytest.fixture
def log(state: Path) -> Callable[..., PredictionLog]:
    return lambda **options: PredictionLog(state, LogOptions(**options), Metrics(), ManualClock(100.0))


def test_rows_as_documented(log: Callable[..., PredictionLog], state: Path) -> None:
    writer = log()
    for item in (record("r1", 30, 999), record("r2", 40, outcome="failed"), record("r3", outcome="rejected")):
        writer.append(item)
    writer.flush()
    table = read_predictions(state, "e")
    rows = {row["id"]: row for row in table.to_pylist()}
    assert set(rows) == {"r1.0", "r1.1", "r2", "r3"}
    first = rows["r1.0"]
    assert first["time"].timestamp() == 50.0
    assert (first["release"], first["version"], first["arm"]) == (RELEASE.digest, "3", "primary")
    assert (first["in_age"], first["label"], first["confidence"]) == (30, "yes", 0.75)
    assert first["probabilities"] == [0.25, 0.75]
    assert (first["breaches"], rows["r1.1"]["breaches"]) == ([], ["age: maximum"])
    assert rows["r2"]["label"] is None and rows["r2"]["in_age"] == 40
    assert rows["r3"]["in_age"] is None and rows["r3"]["outcome"] == "rejected"
    # Personal and sensitive columns are not there at all.
    assert {name for name in table.column_names if name.startswith("in_")} == {"in_age", "in_pixels"}


def test_in_a_hurry_the_same_is_written(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PredictionLog, "_finish", lambda log, most: None)
    given = [record("r1", 30, 999), record("r2", -1, outcome="failed"), record("r3", outcome="rejected")]
    texts = []
    for folder, rows in (("calm", 1_000), ("busy", 2)):
        writer = PredictionLog(state / folder, LogOptions(rows=rows), Metrics(), ManualClock(100.0))
        for item in given:
            writer.append(item)
        writer.flush()
        (path,) = (state / folder / "predictions" / "e").iterdir()
        assert path.suffix == {"calm": ".parquet", "busy": ".journal"}[folder]
        assert b"Ada" not in path.read_bytes()
        texts.append([line for line in writer._metrics.text().decode().splitlines() if "breaches" in line])
    calm, busy = (read_predictions(state / folder, "e") for folder in ("calm", "busy"))
    assert calm.num_rows == 4 and calm.equals(busy)
    assert texts[0] == texts[1] and any("age" in line for line in texts[0])


def test_private_columns_when_asked_for(log: Callable[..., PredictionLog], state: Path) -> None:
    writer = log(keep_private=True)
    writer.append(record("r", 30))
    writer.flush()
    assert read_predictions(state, "e").to_pylist()[0]["in_name"] == "Ada"


def test_a_growing_segment_is_one_file_until_it_is_full(
    log: Callable[..., PredictionLog], state: Path
) -> None:
    writer = log(rows=5)
    for number in range(8):
        writer.append(record(f"r{number}", 1))
        writer.flush()
    files = list((state / "predictions" / "e").iterdir())
    assert len(files) == 2
    assert [row["id"] for row in read_predictions(state, "e").to_pylist()] == [f"r{n}" for n in range(8)]


def test_the_thread_works_in_short_pieces_and_rests_between_them(
    log: Callable[..., PredictionLog], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    writer = log()
    monkeypatch.setattr(writer, "_pause", rests.append)

    def work(**how: Any) -> tuple[int, int]:
        for number in range(3_000):
            writer.append(record(f"r{number}", 1))
        rests.clear()
        writer.flush(**how)
        return len(rests), read_predictions(state, "e").num_rows

    # Six pieces in one journal.
    assert work(gently=True) == (6, 3_000)
    assert all(0 < rest <= 0.05 for rest in rests)
    assert work() == (0, 6_000)
    assert len(list((state / "predictions" / "e").glob("*.journal"))) == 2
    writer.close()
    assert read_predictions(state, "e").num_rows == 6_000


def test_of_a_bad_batch_its_own_rows_are_lost_and_counted(
    log: Callable[..., PredictionLog], state: Path
) -> None:
    writer = log()
    for number in range(600):
        writer.append(record(f"r{number}", 1))
    bad = record("bad", 1, 2)
    bad.ids = ["bad", "one too many", "two too many"]
    for number in range(600):
        writer.append(bad if number == 500 else record(f"s{number}", 1))
    writer.flush()
    # A piece of 512 rows, the one with the bad record lost, and the rest.
    lost = writer._metrics.dropped.at("e").value
    assert 0 < lost <= 513 and read_predictions(state, "e").num_rows == 1_201 - lost
    assert writer._metrics.logged.at("e").value == 1_201 - lost and writer._bytes == 0


def test_of_a_batch_of_which_nothing_is_right_nothing_is_left(
    log: Callable[..., PredictionLog], state: Path
) -> None:
    writer = log(rows=2)
    bad = record("bad", 1, 2)
    bad.ids = ["bad", "one too many"]
    writer.append(bad)
    writer.flush()
    assert writer._metrics.dropped.at("e").value == 2 and writer._bytes == 0
    assert list((state / "predictions").rglob("*.*")) == []


def test_a_torn_segment_is_not_read(log: Callable[..., PredictionLog], state: Path) -> None:
    writer = log()
    writer.append(record("r", 1))
    writer.flush()
    (whole,) = (state / "predictions" / "e").iterdir()
    torn = whole.read_bytes()[:-10]
    whole.with_name("0-torn.parquet").write_bytes(torn)
    whole.with_name("0-empty.parquet").write_bytes(b"")
    whole.with_name(".1.parquet.9.part").write_bytes(torn)
    assert read_predictions(state, "e").num_rows == 1


def test_under_load_segments_are_finished_later(log: Callable[..., PredictionLog], state: Path) -> None:
    """A busy flush is a journal at once; a quiet one, the end, or the next process makes it Parquet."""
    folder = state / "predictions" / "e"

    def suffixes() -> list[str]:
        return sorted(path.suffix for path in folder.iterdir())

    writer = log()
    for burst in range(3):
        writer.append(record(f"b{burst}", *[1.0] * 3_000))
        writer.flush()
    assert suffixes() == [".journal"] * 3 and read_predictions(state, "e").num_rows == 9_000
    writer.append(record("quiet", 1))
    writer.flush()
    assert suffixes() == [".parquet"] * 4 and read_predictions(state, "e").num_rows == 9_001
    for burst in ("after the quiet one", "last"):
        writer.append(record(burst, *[1.0] * 3_000))
        writer.flush()
    left = max(folder.glob("*.journal"))
    # As a kill leaves it: both formats of one segment, and one that is damaged.
    finish_segment(left.with_name(shutil.copy(left, left.with_name("0-copy.journal")).name))
    shutil.copy(left, folder / "1-both.journal")
    shutil.copy(folder / "0-copy.parquet", folder / "1-both.parquet")
    (folder / "2-torn.journal").write_bytes(left.read_bytes()[:-100])
    assert read_predictions(state, "e").num_rows == 12_001 + 3 * 3_000
    heir = log(seconds=0.001)
    heir.start()
    heir.close()
    assert suffixes() == [".journal"] + [".parquet"] * 8
    assert read_predictions(state, "e").num_rows == 12_001 + 3 * 3_000
    finish_segment(left)


def test_journals_wait_until_the_process_has_little_to_do(
    log: Callable[..., PredictionLog], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, load = log(), 0.9
    monkeypatch.setattr(writer, "_pause", lambda seconds: None)
    monkeypatch.setattr(writer, "_load", lambda: load)
    writer.append(record("burst", *[1.0] * 3_000))
    writer.flush(gently=True)
    journals = list((state / "predictions" / "e").glob("*.journal"))
    writer.flush(gently=True)
    assert len(journals) == 1 and journals[0].exists()
    monkeypatch.setattr(module, "_HURRY_BYTES", 1)  # more must not pile up, however much there is to do.
    writer.flush(gently=True)
    assert not journals[0].exists()
    writer.append(record("burst", *[1.0] * 3_000))
    writer.flush(gently=True)
    monkeypatch.undo()
    monkeypatch.setattr(writer, "_load", lambda: 0.1)
    writer.flush(gently=True)
    assert list((state / "predictions" / "e").glob("*.journal")) == []
    assert read_predictions(state, "e").num_rows == 6_000


def test_the_end_does_not_wait_for_all_journals(
    log: Callable[..., PredictionLog], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.0)
    writer = log()
    monkeypatch.setattr(writer, "_load", lambda: 0.9)
    monkeypatch.setattr(writer, "_pause", lambda seconds: None)
    for burst in range(6):
        writer.append(record(f"b{burst}", *[1.0] * 3_000))
        writer.flush(gently=True)
    writer.close()
    # Four with the last flush; the next process has the others.
    assert len(list((state / "predictions" / "e").glob("*.journal"))) == 2
    assert read_predictions(state, "e").num_rows == 18_000


def test_the_queue_is_bounded_and_what_is_dropped_is_counted(state: Path) -> None:
    metrics = Metrics()
    writer = PredictionLog(state, LogOptions(pending_bytes=2_000), metrics, ManualClock())
    for number in range(10):
        writer.append(record(f"r{number}", 1))
    writer.flush()
    kept = read_predictions(state, "e").num_rows
    assert 0 < kept < 10
    text = metrics.text().decode()
    assert f'modelyard_log_dropped_rows_total{{endpoint="e"}} {10 - kept}' in text
    writer.append(record("after", 1))
    writer.flush()
    assert read_predictions(state, "e").num_rows == kept + 1


@pytest.mark.parametrize("rows", [1, 1_000], ids=["in a hurry", "calm"])
def test_a_disk_that_refuses_costs_rows_not_the_service(state: Path, rows: int) -> None:
    metrics = Metrics()
    state.mkdir()
    (state / "predictions").write_text("a file where a folder should be")
    writer = PredictionLog(state, LogOptions(rows=rows), metrics, ManualClock())
    for number in range(600):
        writer.append(record(f"r{number}", 1))
    writer.flush()
    assert 'modelyard_log_dropped_rows_total{endpoint="e"} 600' in metrics.text().decode()
    assert writer._bytes == 0
    (state / "predictions").unlink()
    writer.append(record("s", 1))
    writer.flush()
    assert [row["id"] for row in read_predictions(state, "e").to_pylist()] == ["s"]


def test_the_thread_writes_and_close_writes_the_rest(log: Callable[..., PredictionLog], state: Path) -> None:
    writer = log(seconds=0.01)
    writer.start()
    for number in range(100):
        writer.append(record(f"r{number}", 1, 2))
    writer.close()
    assert read_predictions(state, "e").num_rows == 200


def test_windows_of_time(log: Callable[..., PredictionLog], state: Path) -> None:
    writer = log()
    for time in (3.0, 1.0, 2.0):
        writer.append(record(f"t{time:g}", 1, time=time))
    writer.flush()
    ids = [row["id"] for row in read_predictions(state, "e", since=1.0, until=3.0).to_pylist()]
    assert ids == ["t1", "t2"]
    assert (
        read_predictions(state, "e", since=datetime.fromisoformat("1970-01-01T00:00:02+00:00")).num_rows == 2
    )
    with pytest.raises(ValueError, match="zone"):
        read_predictions(state, "e", since=datetime(1970, 1, 1))
    assert read_predictions(state, "none").num_rows == 0


def test_feedback_is_kept_and_a_torn_line_spoils_nothing(state: Path) -> None:
    clock = ManualClock(7.0)
    append_feedback(state, "e", [Feedback("a", "yes", None)], clock)
    with feedback_path(state, "e").open("ab") as file:
        file.write(b'{"format":1,"id":"torn","ti')
    append_feedback(state, "e", [Feedback("b", None, 1.5), Feedback("a", "no", None)], clock)
    rows = [(row["id"], row["label"], row["value"]) for row in read_feedback(state, "e").to_pylist()]
    assert rows == [("a", "yes", None), ("b", None, 1.5), ("a", "no", None)]
    assert read_feedback(state, "e")["time"][0].as_py().timestamp() == 7.0
    assert read_feedback(state, "none").num_rows == 0


def test_feedback_that_cannot_be_stored_says_so(state: Path) -> None:
    state.mkdir()
    (state / "feedback").write_text("in the way")
    with pytest.raises(RequestError, match="cannot be stored") as caught:
        append_feedback(state, "e", [Feedback("a", "yes", None)], ManualClock())
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("labels", "body", "word"),
    [
        (("no", "yes"), b'{"feedback": [{"id": "a", "label": "yess"}]}', "did you mean 'yes'"),
        (("no", "yes"), b'{"feedback": [{"id": "a", "label": null}]}', "label"),
        (("no", "yes"), b'{"feedback": [{"id": "a", "value": 1}]}', "did you mean|known"),
        (("no", "yes"), b'{"feedback": [{"id": 3, "label": "yes"}]}', "id"),
        (("no", "yes"), b'{"feedback": [{"label": "yes"}]}', "id"),
        (("no", "yes"), b'{"feedback": ["a"]}', "object"),
        (("no", "yes"), b'{"feedback": []}', "list"),
        (("no", "yes"), b'{"feedbak": []}', "list"),
        ((), b'{"feedback": [{"id": "a", "value": "1"}]}', "number"),
        ((), b'{"feedback": [{"id": "a", "value": true}]}', "number"),
        ((), b'{"feedback": [{"id": "a", "value": NaN}]}', "number"),
        ((), b"nothing", "JSON"),
    ],
)
def test_bad_feedback_names_the_field(labels: tuple[str, ...], body: bytes, word: str) -> None:
    with pytest.raises(RequestError, match=word) as caught:
        parse_feedback(body, labels)
    assert caught.value.status == 400


def test_large_inputs_are_kept_as_far_as_the_limit_goes_and_counted(state: Path) -> None:
    image = Contract("image", (Column("x", "tensor", shape=(4_096,), datatype="FP32"),
                               Column("y", "category", role="label", categories=("no", "yes"))))  # fmt: skip
    release = SimpleNamespace(digest=RELEASE.digest, version="1", labels=("no", "yes"), contract=image)
    metrics, clock = Metrics(), ManualClock(100.0)
    writer = PredictionLog(state, LogOptions(input_bytes=40_000), metrics, clock)
    outputs = {"probabilities": np.array([[0.25, 0.75]], np.float32)}

    def ask(identity: str) -> None:
        inputs = {"x": np.ones((1, 4_096), np.float32)}
        writer.append(
            PredictionRecord(
                release, "e", "primary", "ok", [identity], [1], [0.0], 0.0, 1.0, 1, inputs, outputs
            )
        )

    for number in range(5):
        ask(f"r{number}")
    clock.advance(1.0)
    ask("later")
    writer.flush()
    rows = {row["id"]: row for row in read_predictions(state, "e").to_pylist()}
    assert [name for name, row in rows.items() if row["in_x"] is not None] == ["r0", "r1", "later"]
    assert all(row["label"] == "yes" for row in rows.values()) and len(rows) == 6
    assert 'modelyard_log_inputs_left_out_rows_total{endpoint="e"} 3' in metrics.text().decode()


def test_a_share_of_the_records_when_asked_for(state: Path) -> None:
    writer = PredictionLog(state, LogOptions(sample=0.25), Metrics(), ManualClock())
    for number in range(100):
        writer.append(record(f"r{number}", 1))
    writer.flush()
    assert read_predictions(state, "e").num_rows == 25
