"""Writes a new project that runs as it is, from a table of the user's or from real sample data."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from modelyard.core.errors import DataError, ProjectError, StoreError
from modelyard.core.files import write_atomic
from modelyard.core.names import NAME_RULE, did_you_mean, is_name
from modelyard.data.contract import Contract
from modelyard.data.contract_file import render
from modelyard.data.infer import infer
from modelyard.data.source import open_source
from modelyard.lifecycle.first_settings import first_bar, gate_section, monitor_section, split_line
from modelyard.lifecycle.project import FILE

Task = Literal["classification", "regression"]

_COPIED = 256 << 20
"""Bytes up to which a data file is copied into the project; a larger one is referred to."""
_LABELLED = "data.parquet"
_FEW = 20
"""A whole-number label with at most this many different values is taken for a class."""


@dataclass(frozen=True, slots=True)
class Written:
    """A new project: its folder, what was decided and why, one sentence a note."""

    root: Path
    task: Task
    label: str
    notes: tuple[str, ...]


def init_project(
    folder: Path, name: str, *, task: Task | None = None, source: Path | None = None, label: str | None = None
) -> Written:
    """Makes `folder/name` with project file, contract, recipe and a first test.

    Without a source the project loads real sample data that scikit-learn carries. Raises `ProjectError`
    when the name is wrong or the folder has something in it, `DataError` when the table cannot be used.
    Nothing is written unless everything can be.
    """
    if not is_name(name):
        raise ProjectError("the project's name is wrong", value=name, rule=NAME_RULE)
    root = folder / name
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        what = "is not empty" if root.is_dir() else "is a file"
        raise ProjectError(f"{root} {what}", fix="choose another name, or empty the folder")
    labelled = None
    if source is None:
        task = task or "classification"
        texts = _sample(name, task)
        made = Written(root, task, "target", (f"sample data: {_SAMPLES[task][1]}",))
    else:
        made, texts, labelled = _from_table(root, name, task, source, label)
    try:
        root.mkdir(parents=True, exist_ok=True)
        if labelled is not None:
            write_atomic(root / _LABELLED, labelled)
        elif source is not None and _is_copied(source):
            shutil.copyfile(source, root / _data_name(source))
    except OSError as error:
        raise StoreError(f"cannot write the project to {root}", value=error.strerror or str(error),
                         fix="free some space, or check the folder's rights") from error  # fmt: skip
    for file, text in texts.items():
        write_atomic(root / file, text.encode())
    return made


_SAMPLES: dict[Task, tuple[str, str]] = {
    "classification": ("load_breast_cancer", "the Wisconsin breast cancer study, 569 tumours"),
    "regression": ("load_diabetes", "the diabetes study of 442 patients"),
}


def _sample(name: str, task: Task) -> dict[str, str]:
    from modelyard.core.require import require

    function, about = _SAMPLES[task]
    bunch = getattr(require("sklearn.datasets", extra="train"), function)(as_frame=True)
    columns = [str(column).replace(" ", "_") for column in bunch.data.columns]
    return {
        "data.py": _template("data.py.txt").format(function=function, about=about),
        **_files(name, task, "data.py:load", "target", columns, [], bunch.target.to_numpy()),
    }


def _from_table(
    root: Path, name: str, task: Task | None, source: Path, label: str | None
) -> tuple[Written, dict[str, str], bytes | None]:
    """The project's texts, and its rows as Parquet where some had to be left out."""
    if not source.is_file():
        near = [item.name for item in source.parent.glob("*")] if source.parent.is_dir() else []
        raise DataError("there is no such file", value=str(source), fix=did_you_mean(source.name, near))
    table = open_source(source.name, source.resolve().parent).load()
    names = table.column_names
    if label is not None and label not in names:
        raise DataError("the table has no such label column", value=label, fix=did_you_mean(label, names))
    label = label or names[-1]
    task = task or guess_task(table.column(label))
    table, left_out = _labelled(table, label)
    _refuse_free_text(table, label, task)
    inferred = infer(table, name=name, label=label, task=task)
    contract = inferred.contract
    numbers = [column.name for column in contract.features if column.kind in ("number", "integer", "boolean")]
    texts = [column.name for column in contract.features if column.kind == "category"]
    if not numbers and not texts:
        raise DataError(
            "no column can be a feature",
            value=names,
            rule="numbers, booleans or categories beside the label; ids and free text are left out",
            fix="add columns, or write data.py that derives some",
        )
    kept = _data_name(source) if _is_copied(source) else str(source.resolve())
    notes = inferred.notes
    if left_out:
        kept = _LABELLED
        notes = (f"{label}: {left_out:,} rows without a label were left out; the rest is in {kept}", *notes)
    written = {
        "contract.toml": render(contract),
        **_files(name, task, kept, label, numbers, texts, table.column(label).to_numpy(), _key(contract)),
    }
    return Written(root, task, label, notes), written, _parquet(table) if left_out else None


def _labelled(table: Any, label: str) -> tuple[Any, int]:
    """The rows that have a label, and how many have none; all rows where none has one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column(label)
    known = pc.is_valid(column)
    if pa.types.is_floating(column.type):
        known = pc.and_(known, pc.invert(pc.fill_null(pc.is_nan(column), False)))
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        known = pc.and_(known, pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(column), ""), False))
    count = pc.sum(known).as_py() or 0
    return (table, 0) if count in (0, table.num_rows) else (table.filter(known), table.num_rows - count)


def _refuse_free_text(table: Any, label: str, task: Task) -> None:
    """An id or free text is no label: better said now than after minutes of training."""
    import pyarrow.compute as pc

    classes = len(pc.unique(table.column(label)))
    if task == "classification" and classes > _FEW and classes > table.num_rows / 5:
        raise DataError(
            f"the column {label!r} does not look like classes",
            value=f"{classes:,} different values in {table.num_rows:,} rows",
            rule="five rows or more a class",
            fix="name the column to predict with --label (of: " + ", ".join(table.column_names[:12]) + ")",
        )


def _parquet(table: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def guess_task(column: Any) -> Task:
    """Classes when the label is text, true/false, or whole numbers with few different values.

    >>> import pyarrow as pa
    >>> guess_task(pa.chunked_array([["a", "b"]])), guess_task(pa.chunked_array([[0.5, 1.5]]))
    ('classification', 'regression')
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return "classification"
    values = column.drop_null()
    whole = pa.types.is_integer(kind) or bool(pc.all(pc.equal(values, pc.round(values))).as_py())
    return "classification" if whole and len(pc.unique(values)) <= _FEW else "regression"


def _key(contract: Contract) -> str | None:
    return contract.key.name if contract.key is not None else None


def _files(
    name: str,
    task: Task,
    source: str,
    label: str,
    numbers: list[str],
    categories: list[str],
    target: Any,
    key: str | None = None,
) -> dict[str, str]:
    kind = "classification" if task == "classification" else "regression"
    metric, requirement = first_bar(task, target)
    rows = len(target)
    lines = [line for line in (f'key = "{_toml(key)}"' if key else "", split_line(rows)) if line]
    return {
        FILE: _template("modelyard.toml.txt").format(
            name=name,
            task=task,
            source=_toml(source),
            label=_toml(label),
            key="\n".join(["", *lines]),
            metric=metric,
            requirement=requirement,
            gate=_block(gate_section(task, rows)),
            monitor=_block(monitor_section(rows)),
        ),
        "recipe.py": _template(f"recipe_{kind}.py.txt").format(numbers=numbers, categories=categories),
        "test_recipe.py": _template("test_recipe.py.txt"),
        ".gitignore": ".modelyard/\n__pycache__/\n",
    }


def _block(text: str) -> str:
    return "\n" + text if text else ""


def _template(file: str) -> str:
    return (files("modelyard.lifecycle") / "templates" / file).read_text()


def _data_name(source: Path) -> str:
    return "data" + source.suffix.lower()


def _is_copied(source: Path) -> bool:
    return source.stat().st_size <= _COPIED


def _toml(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
