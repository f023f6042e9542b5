from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from modelyard.core.errors import DataError
from modelyard.data.function import table_from
from modelyard.data.physical import plain, tensor_column, tensor_values
from modelyard.data.source import open_source


def loaded(tmp_path: Path, name: str, content: str | bytes) -> pa.Table:
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / name.partition(":")[0]).write_bytes(data)
    return open_source(name, tmp_path).load()


def refused(tmp_path: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, name, content)
    return str(caught.value)


def test_csv_types_and_nulls(tmp_path: Path) -> None:
    table = loaded(
        tmp_path,
        "t.csv",
        'n,f,b,d,s,z\n1,1.5,true,2020-01-02,"a, b",00501\n,NA,false,,"",01234\n3,nan,,null,c,99999\n',
    )
    assert [str(kind) for kind in table.schema.types] == [
        "int64",
        "double",
        "bool",
        "date32[day]",
        "string",
        "string",
    ]
    assert table.column("n").to_pylist() == [1, None, 3]
    assert table.column("s").to_pylist() == ["a, b", None, "c"]
    assert table.column("z").to_pylist() == ["00501", "01234", "99999"]


def test_a_zero_and_a_fraction_are_still_numbers(tmp_path: Path) -> None:
    table = loaded(tmp_path, "t.csv", "a,b\n0,0.5\n10,0.25\n")
    assert [str(kind) for kind in table.schema.types] == ["int64", "double"]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators(tmp_path: Path, separator: str) -> None:
    text = "a,b\n1,2\n".replace(",", separator)
    assert loaded(tmp_path, "t.csv", text).column_names == ["a", "b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    table = loaded(tmp_path, "t.csv", "größe,s\n1,Köln\n".encode(encoding))
    assert table.to_pydict() == {"größe": [1], "s": ["Köln"]}


def test_a_ragged_line_is_named(tmp_path: Path) -> None:
    message = refused(tmp_path, "t.csv", "a,b\n1,2\n3,4,5\n6\n")
    assert "line 3" in message and "3 values" in message and "rule is: 2 values" in message
    assert "1 more line" in message and "t.csv" in message


def test_quoted_line_breaks_are_text(tmp_path: Path) -> None:
    assert loaded(tmp_path, "t.csv", 'a,b\n1,"x\ny"\n').column("b").to_pylist() == ["x\ny"]


def test_mixed_types_in_csv_are_text(tmp_path: Path) -> None:
    assert loaded(tmp_path, "t.csv", "a\n1\nx\n2.5\n").column("a").to_pylist() == ["1", "x", "2.5"]


def test_huge_integers_in_csv_do_not_wrap(tmp_path: Path) -> None:
    (value,) = loaded(tmp_path, "t.csv", f"a\n{10**30}\n").column("a").to_pylist()
    assert float(value) == 1e30


@pytest.mark.parametrize(
    ("content", "word"),
    [("", "empty"), ("\n\n", "empty"), ("a,b\n", "empty"), ("a,a\n1,2\n", "share a name")],
)
def test_csv_without_data_or_with_equal_names(tmp_path: Path, content: str, word: str) -> None:
    assert word in refused(tmp_path, "t.csv", content)


def test_absent_files_get_a_hint(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\n1\n")
    for spec, word in (
        ("trian.csv", "did you mean 'train.csv'"),
        ("far/train.csv", "no folder"),
        ("data.py:load", "the folder has: train.csv"),
        ("", "not named"),
        ("data.py", "file.py:function"),
        ("data.py:two words", "file.py:function"),
        (".", "folder"),
    ):
        with pytest.raises(DataError) as caught:
            open_source(spec, tmp_path)
        assert word in str(caught.value), spec


def test_an_unknown_suffix_names_those_that_are_known(tmp_path: Path) -> None:
    assert ".parquet" in refused(tmp_path, "t.parqet", "x")


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    with (tmp_path / "t.npz").open("wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(DataError, match="without a name"):
        open_source("t.npz", tmp_path).load()


def test_pickled_arrays_are_never_read(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    np.savez(tmp_path / "t.npz", x=np.array([Trap()], object), y=np.array([1]))
    with pytest.raises(DataError, match="npz"):
        open_source("t.npz", tmp_path).load()
    assert not marker.exists()


@pytest.mark.parametrize(("shape", "name"), [((4, 2, 2), "image"), ((4, 3), "features"), ((4,), "features")])
def test_pairs_in_npz_and_functions_get_names(tmp_path: Path, shape: tuple[int, ...], name: str) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.savez(tmp_path / "t.npz", X=values, y=np.arange(4))
    table = open_source("t.npz", tmp_path).load()
    assert table.column_names == [name, "label"]
    assert table.equals(plain(table_from((values, np.arange(4)[:, None]), "f")))


@pytest.mark.parametrize("write", ["parquet", "arrow"])
def test_tensors_survive_files(tmp_path: Path, write: str) -> None:
    values = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    table = pa.table({"x": tensor_column(values), "n": np.arange(6)})
    if write == "parquet":
        pa.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    else:
        with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    column = open_source(f"t.{write}", tmp_path).load().column("x")
    np.testing.assert_array_equal(tensor_values(column)[0], values)
    assert column.type == table.schema.field("x").type


def test_lists_become_tensors_or_an_error(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"x": [[1.0, 2.0], [3.0, 4.0]]}), tmp_path / "t.parquet")
    assert open_source("t.parquet", tmp_path).load().schema.field("x").type.shape == [2]
    for lists, word in (
        ([[1.0], [1.0, 2.0]], "different lengths"),
        ([["a"]], "lists of string"),
        ([[1], None], "missing"),
    ):
        pa.parquet.write_table(pa.table({"x": lists}), tmp_path / "t.parquet")
        with pytest.raises(DataError, match=word):
            open_source("t.parquet", tmp_path).load()


def test_a_function_may_import_its_neighbours_and_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_data.py").write_text("VALUE = 7\n")
    path = list(sys.path)
    code = (
        "from dataclasses import dataclass\nimport neighbour_of_data\n@dataclass\nclass A:\n    x: int\n"
        "def load():\n    return {'x': [A(neighbour_of_data.VALUE).x]}\n"
    )
    assert loaded(tmp_path, "data.py:load", code).to_pydict() == {"x": [7]}
    assert sys.path == path and "data" not in sys.modules


def test_a_changed_function_is_read_anew(tmp_path: Path) -> None:
    for value in (1, 2):
        table = loaded(tmp_path, "data.py:load", f"def load():\n    return {{'x': [{value}]}}\n")
        assert table.to_pydict() == {"x": [value]}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def load(:\n", ("data.py:1", "SyntaxError")),
        ("\nimport no_such_module_here\n", ("data.py:2", "no_such_module_here")),
        ("def load():\n    x = 1\n    return 1 / 0\n", ("data.py:3", "ZeroDivisionError", "load()")),
        ("def laod():\n    return {}\n", ("did you mean 'laod'",)),
        ("load = 3\n", ("no function 'load'",)),
        ("def load(path):\n    return {}\n", ("TypeError",)),
        ("def load():\n    return None\n", ("NoneType", "pyarrow Table")),
        ("def load():\n    return 'data.csv'\n", ("str", "pyarrow Table")),
        ("def load():\n    return {}\n", ("empty",)),
        ("def load():\n    return {'x': []}\n", ("empty",)),
        ("def load():\n    return {'x': [1, 2], 'y': [1]}\n", ("different lengths", "{'x': 2, 'y': 1}")),
        ("def load():\n    return {'x': [1, 'a']}\n", ("'x'", "mixes types", "['int', 'str']")),
        ("def load():\n    return {'x': [[1, 2], [3]]}\n", ("'x'",)),
        ("def load():\n    return {'x': 3}\n", ("'x'", "no array")),
        ("def load():\n    return {'x': [2**70, 1]}\n", ("'x'",)),
        ("def load():\n    return [[1, 2], [3, 4, 5]]\n", ("different lengths",)),
        ("def load():\n    return {'x': [object()]}\n", ("'x'",)),
    ],
)
def test_what_a_function_does_wrong_names_file_and_line(
    tmp_path: Path, code: str, words: tuple[str, ...]
) -> None:
    message = refused(tmp_path, "data.py:load", code)
    for word in ("data.py", *words):
        assert word in message


def test_pandas_frames(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"x": [1.5, None], "c": pandas.Categorical(["a", "b"]), 3: ["u", "v"]}, index=[7, 9]
    )
    table = plain(table_from(frame, "f"))
    assert table.to_pydict() == {"x": [1.5, None], "c": ["a", "b"], "3": ["u", "v"]}
    with pytest.raises(DataError, match="one name"):
        table_from(pandas.DataFrame([[1, 2]], columns=["a", "a"]), "f")
    with pytest.raises(DataError, match="mixes types"):
        table_from(pandas.DataFrame({"x": [1, "a"]}), "f")


def test_dicts_of_lists_with_gaps() -> None:
    table = plain(table_from({"n": [1, None], "s": ["a", float("nan")], "b": np.array([True, False])}, "f"))
    assert table.to_pydict() == {"n": [1, None], "s": ["a", None], "b": [True, False]}


def test_torch_tensors_are_arrays() -> None:
    class Tensor:
        def detach(self) -> Tensor:
            return self

        cpu = detach

        def numpy(self) -> np.ndarray:
            return np.ones((2, 3), np.float32)

        def __len__(self) -> int:
            return 2

    assert table_from((Tensor(), [0, 1]), "f").column_names == ["features", "label"]


def test_types_that_no_contract_describes_are_refused() -> None:
    with pytest.raises(DataError, match="'x'"):
        plain(pa.table({"x": [{"a": 1}]}))
    with pytest.raises(DataError, match="UTF-8"):
        plain(pa.table({"x": [b"\xff"]}))
    assert plain(pa.table({"x": [b"ok"]})).to_pydict() == {"x": ["ok"]}


def test_transposed_tensors_are_stored_in_rows() -> None:
    kind = pa.fixed_shape_tensor(pa.int64(), [2, 3], permutation=[1, 0])
    array = pa.ExtensionArray.from_storage(kind, pa.array([list(range(6))], pa.list_(pa.int64(), 6)))
    values, _ = tensor_values(plain(pa.table({"x": array})).column("x"))
    np.testing.assert_array_equal(values, array.to_numpy_ndarray())
