"""`modelyard init` on tables as people have them: what it writes passes `check` and runs as it is."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.timeout(600)  # whole runs of the loop, on a machine that others use too

Rows = list[list[Any]]
WORDS = ["bad", "good", "service", "price", "slow", "never", "again", "ok"]


def text(head: list[str], rows: Rows, *, separator: str = ",") -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()


def churn(number: int = 240) -> str:
    """Ids, free text, missing values, booleans, categories, quotes and unicode, in names and in values."""
    chance = random.Random(1)  # noqa: S311 - data, no secret
    rows: Rows = []
    for index in range(number):
        months, monthly = chance.randint(1, 72), chance.uniform(20, 110)
        contract = chance.choice(["Month-to-month", "One year", "Two year"])
        leaves = chance.random() < (0.8 if contract == "Month-to-month" else 0.1)
        words = " ".join(chance.choice(WORDS) for _ in range(9))
        rows.append(
            [
                f"CUST-{index:05d}",
                chance.choice(["True", "False"]),
                months if index % 17 else "",
                round(monthly, 2),
                contract,
                chance.choice(["it's fine", 'a "gold" card', "Überweisung", "a, b"]),
                words,
                "Yes" if leaves else "No",
            ]
        )
    head = [
        "customerID",
        "Senior Citizen",
        "tenure (months)",
        'monthly "Charges"',
        "Contract",
        "Zahlungsart ä",
        "comment",
        "Churn",
    ]
    return text(head, rows)


def houses(number: int = 200, separator: str = ";") -> str:
    chance = random.Random(2)  # noqa: S311 - data, no secret
    rows: Rows = []
    for _ in range(number):
        size, rooms = chance.randint(20, 200), chance.randint(1, 6)
        price = 100 + 3 * size + 20 * rooms + chance.gauss(0, 10)
        rows.append([chance.choice(["Zürich", "Genève", "Köln"]), size, rooms, f"{price:.2f}"])
    return text(["Ort", "Fläche", "Zimmer", "Preis"], rows, separator=separator)


def plain(number: int, *, seed: int = 3, labels: tuple[Any, ...] = ("no", "yes")) -> Rows:
    chance = random.Random(seed)  # noqa: S311 - data, no secret
    rows: Rows = []
    for _ in range(number):
        a, b = chance.gauss(0, 1), chance.gauss(0, 1)
        rows.append([round(a, 3), round(b, 3), labels[int(a + b > 0)]])
    return rows


def days(number: int = 220) -> str:
    """A time, a constant and a column without any value beside two that count."""
    chance = random.Random(4)  # noqa: S311 - data, no secret
    rows: Rows = []
    for index in range(number):
        warm, free = round(chance.gauss(20, 5), 1), chance.randint(0, 1)
        day = (date(2023, 1, 1) + timedelta(days=index)).isoformat()
        rows.append([day, "EUR", "", warm, free, round(50 + 2 * warm + 10 * free + chance.gauss(0, 3), 2)])
    return text(["date", "currency", "nothing", "temperature", "holiday", "sales"], rows)


@pytest.fixture
def make(tmp_path: Path, quick: Any) -> Callable[..., Any]:
    """Runs `modelyard init mine` in an empty folder on the given content; gives the command's end."""

    def run(content: str | bytes | pa.Table | None, *arguments: str, file: str = "table.csv") -> Any:
        source = tmp_path / file
        if isinstance(content, pa.Table):
            pq.write_table(content, source)
        elif content is not None:
            source.write_bytes(content.encode() if isinstance(content, str) else content)
        return quick("-C", str(tmp_path), "init", "mine", "--from", str(source), *arguments)

    return run


GOOD: list[tuple[str, Any, tuple[str, ...], str, tuple[str, ...], tuple[str, ...]]] = [
    # what, content, arguments, task, said, features that the recipe must not name
    (
        "everything at once",
        churn(),
        (),
        "classification",
        ("customerID: taken for the key", "comment: ignored"),
        ("customerID", "comment"),
    ),
    (
        "label first",
        text(["y", "a", "b"], [[c, a, b] for a, b, c in plain(60)]),
        ("--label", "y"),
        "classification",
        (),
        (),
    ),
    (
        "label in the middle",
        text(["a", "y", "b"], [[a, c, b] for a, b, c in plain(60)]),
        ("--label", "y"),
        "classification",
        (),
        (),
    ),
    ("integer classes", text(["a", "b", "y"], plain(60, labels=(0, 1))), (), "classification", (), ()),
    (
        "whole numbers as floats",
        text(["a", "b", "y"], plain(60, labels=(1.0, 2.0))),
        (),
        "classification",
        (),
        (),
    ),
    (
        "true and false",
        text(["a", "b", "y"], plain(60, labels=("false", "true"))),
        (),
        "classification",
        (),
        (),
    ),
    (
        "classes with quotes",
        text(["a", "b", "y"], plain(60, labels=("d'Or", 'rosé "brut"'))),
        (),
        "classification",
        (),
        (),
    ),
    (
        "integers as a regression",
        text(["a", "b", "y"], [[a, b, round(a * 9)] for a, b, _ in plain(60)]),
        ("--task", "regression"),
        "regression",
        (),
        (),
    ),
    ("semicolons and latin-1", houses().encode("latin-1"), (), "regression", (), ()),
    ("a byte-order mark", ("\ufeff" + houses(separator=",")).encode(), (), "regression", (), ()),
    (
        "a time, a constant, a column of nothing",
        days(),
        (),
        "regression",
        (
            "date: taken for the order",
            "currency: ignored, every row has the same value",
            "nothing: ignored, every value is missing",
        ),
        ("date", "currency", "nothing"),
    ),
    ("thirty rows", text(["a", "b", "y"], plain(30)), (), "classification", (), ()),
    (
        "rows without a label",
        text(["a", "b", "y"], [[a, b, "" if n % 6 == 0 else c] for n, (a, b, c) in enumerate(plain(90))]),
        (),
        "classification",
        ("y: 15 rows without a label were left out",),
        (),
    ),
    (
        "rows without a number to predict",
        text(
            ["a", "b", "y"],
            [[a, b, "" if n % 6 == 0 else round(a + b, 3)] for n, (a, b, _) in enumerate(plain(90))],
        ),
        (),
        "regression",
        ("y: 15 rows without a label were left out",),
        (),
    ),
    (
        "braces, backslashes and brackets in names",
        text(["{a}", "b\\n[x]", "y # z"], plain(60)),
        (),
        "classification",
        (),
        (),
    ),
]


@pytest.mark.parametrize(
    ("content", "arguments", "task", "said", "absent"),
    [case[1:] for case in GOOD],
    ids=[case[0] for case in GOOD],
)
def test_what_is_written_passes_its_own_check_and_its_data_step(
    make: Any,
    quick: Any,
    tmp_path: Path,
    content: Any,
    arguments: tuple[str, ...],
    task: str,
    said: tuple[str, ...],
    absent: tuple[str, ...],
) -> None:
    done = make(content, *arguments, "--json")
    assert done.code == 0, done.out + done.err
    found = done.json
    assert found["task"] == task
    for words in said:
        assert any(words in note for note in found["notes"]), found["notes"]
    recipe = (tmp_path / "mine" / "recipe.py").read_text()
    compile(recipe, "recipe.py", "exec")
    for column in absent:
        assert repr(column) not in recipe
    assert quick("-C", str(tmp_path / "mine"), "check").code == 0
    data = quick("-C", str(tmp_path / "mine"), "data", "--json")
    assert data.code == 0, data.out + data.err
    parts = data.json["steps"][0]["values"]["rows"]
    assert all(count > 0 for count in parts.values())


def test_a_tab_separated_file_and_an_upper_case_suffix(make: Any, quick: Any, tmp_path: Path) -> None:
    assert make(houses(separator="\t"), file="T.TSV").code == 0
    assert quick("-C", str(tmp_path / "mine"), "data").code == 0


BAD: list[tuple[str, Any, tuple[str, ...], str]] = [
    ("an empty file", "", (), "empty"),
    ("a header only", "a,b,y\n", (), "empty"),
    ("one column", "y\n" + "1\n2\n" * 20, (), "feature"),
    ("one class", text(["a", "b", "y"], plain(40, labels=("x", "x"))), (), "1 class"),
    ("no label at all", text(["a", "b", "y"], plain(40, labels=("", ""))), (), "no class"),
    ("free text for a label", churn(), ("--label", "comment"), "does not look like classes"),
    ("an id for a label", churn(), ("--label", "customerID"), "does not look like classes"),
    ("text for a regression", churn(), ("--task", "regression"), "is not a number"),
    ("an unknown label", churn(), ("--label", "Chrun"), "did you mean 'Churn'?"),
    ("two columns of a name", "a,a,y\n1,2,x\n2,3,z\n", (), "share a name"),
    ("a ragged line", "a,b,y\n1,2,x\n1,2\n", (), "line 3"),
    ("no table at all", bytes(range(256)) * 20, (), ""),
]


@pytest.mark.parametrize(
    ("content", "arguments", "part"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(
    make: Any, tmp_path: Path, content: Any, arguments: tuple[str, ...], part: str
) -> None:
    done = make(content, *arguments)
    assert part in done.error()
    assert done.code == 4, done.err
    assert not (tmp_path / "mine").exists()


def test_names_folders_and_files_that_are_wrong(make: Any, quick: Any, tmp_path: Path) -> None:
    good = text(["a", "b", "y"], plain(40))
    (tmp_path / "table.csv").write_text(good)
    done = make(None, file="tabel.csv")
    assert "did you mean 'table.csv'?" in done.error()
    assert done.code == 4
    assert "no reader" in make(good, file="table.xlsx").error()
    assert make(b"PAR1 this is no Parquet", file="table.parquet").code == 4
    for wrong in ("My Project", "../out", ".", "x" * 65, "ümlaut"):
        done = quick("-C", str(tmp_path), "init", wrong, "--from", str(tmp_path / "table.csv"))
        assert "name is wrong" in done.error()
        assert done.code == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = make(good)
    assert "is not empty" in done.error()
    assert done.code == 3
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    (tmp_path / "mine" / "notes.txt").unlink()
    assert make(good).code == 0, "an empty folder is fine"


def test_a_mixed_csv_runs_to_the_end(make: Any, command: Any, tmp_path: Path) -> None:
    """As a user in a hurry: init, run. Fewer trials than written, to be quick."""
    assert make(churn(400)).code == 0
    root = tmp_path / "mine"
    path = root / "modelyard.toml"
    path.write_text(path.read_text().replace("trials = 20", "trials = 2").replace("port = 8080", "port = 0"))
    done = command("-C", str(root), "run", "--no-serve", "--json")
    assert done.code == 0, done.out + done.err
    assert done.json["stopped"] == ""
    assert [row["name"] for row in done.json["steps"]][-1] == "monitor"
    assert all(item["passed"] for item in done.json["requirements"])


def test_a_parquet_regression_runs_to_the_end(make: Any, command: Any, tmp_path: Path) -> None:
    chance = random.Random(5)  # noqa: S311 - data, no secret
    size = [chance.uniform(20, 200) for _ in range(300)]
    table = pa.table(
        {
            "when": pa.array([date(2024, 1, 1) + timedelta(days=n) for n in range(300)]),
            "size": pa.array(size, pa.float32()),
            "rooms": pa.array([None if n % 9 == 0 else n % 5 for n in range(300)], pa.int8()),
            "new": pa.array([n % 3 == 0 for n in range(300)]),
            "place": pa.array(["Köln", "Bonn", "Ulm"] * 100).dictionary_encode(),
            "price": pa.array([3 * value + chance.gauss(0, 5) for value in size]),
        }
    )
    assert make(table, file="table.parquet").code == 0
    root = tmp_path / "mine"
    path = root / "modelyard.toml"
    path.write_text(path.read_text().replace("trials = 20", "trials = 2").replace("port = 8080", "port = 0"))
    done = command("-C", str(root), "run", "--no-serve", "--json")
    assert done.code == 0, done.out + done.err
    assert done.json["stopped"] == ""


def test_thirty_rows_do_not_crash_the_loop(make: Any, command: Any, tmp_path: Path) -> None:
    assert make(text(["a", "b", "y"], plain(30))).code == 0
    root = tmp_path / "mine"
    path = root / "modelyard.toml"
    path.write_text(path.read_text().replace("trials = 20", "trials = 1").replace("port = 8080", "port = 0"))
    done = command("-C", str(root), "run", "--no-serve", "--json")
    assert done.code in (0, 15), done.out + done.err
    assert done.json["stopped"] or done.code == 0


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_without_a_table_there_is_a_sample_that_runs(command: Any, tmp_path: Path, task: str) -> None:
    done = command("-C", str(tmp_path), "init", "sample", "--task", task)
    assert done.code == 0, done.err
    assert "sample data" in done.out
    assert "modelyard run" in done.out
    root = tmp_path / "sample"
    assert command("-C", str(root), "check").code == 0
    done = command("-C", str(root), "data", "--json")
    assert done.code == 0, done.out + done.err
    path = root / "modelyard.toml"
    path.write_text(path.read_text().replace("trials = 20", "trials = 1"))
    done = command("-C", str(root), "train")
    assert done.code == 0, done.out + done.err
