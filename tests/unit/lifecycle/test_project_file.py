"""The project file: what is wrong is said with file, line, key, value and rule, whatever it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import ProjectError
from modelyard.lifecycle.option import Margin, is_required
from modelyard.lifecycle.options import LISTS, SECTIONS
from modelyard.lifecycle.project import expand
from modelyard.lifecycle.project_file import find_project, read_project

HEAD = 'version = 1\nname = "p"\ntask = "classification"\n'
DATA = '[data]\nsource = "data.csv"\nlabel = "y"\n'
TRAIN = '[train]\nmetric = "accuracy"\n'
GOOD = HEAD + DATA + TRAIN
SLICE = '[[slice]]\nname = "old"\ncolumn = "age"\nat_least = 60\n'


def read(folder: Path, text: str | bytes) -> Any:
    (folder / "modelyard.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_project(folder)


def refused(folder: Path, text: str | bytes) -> ProjectError:
    with pytest.raises(ProjectError) as caught:
        read(folder, text)
    return caught.value


def section(name: str, line: str) -> str:
    """A good file with one more line in a section."""
    if name == "data":
        return HEAD + DATA + line + "\n" + TRAIN
    return GOOD + ("" if name == "train" else f"[{name}]\n") + line + "\n"


WRONG: list[tuple[str, str, str]] = [
    # section, the line, a part of the rule
    ("data", "key = 3", "a text in quotes"),
    ("data", "order = true", "a text in quotes"),
    ("data", 'contract = "/etc/contract.toml"', "inside the project's folder"),
    ("data", 'contract = "../contract.toml"', "inside the project's folder"),
    ("data", 'contract = ""', "inside the project's folder"),
    ("data", 'split = "random"', "one of hash, time"),
    ("data", "split = 3", "one of hash, time"),
    ("data", "split = [1]", "one of hash, time"),
    ("data", "fractions = 0.5", "three numbers"),
    ("data", "fractions = [0.5, 0.5]", "three numbers"),
    ("data", "fractions = [0.5, 0.4, 0.2]", "add up to 1"),
    ("data", "fractions = [1.0, 0.0, 0.0]", "above zero"),
    ("data", 'fractions = ["a", "b", "c"]', "three numbers"),
    ("data", "fractions = [nan, 0.5, 0.5]", "add up to 1"),
    ("data", "fractions = [true, 0.5, 0.5]", "three numbers"),
    ("train", 'recipe = "recipe.py"', "file.py:function"),
    ("train", 'recipe = "recipe.txt:build"', "file.py:function"),
    ("train", 'recipe = "recipe.py:not a name"', "file.py:function"),
    ("train", 'recipe = "../recipe.py:build"', "inside the project's folder"),
    ("train", 'recipe = "/tmp/recipe.py:build"', "inside the project's folder"),
    ("train", "trials = 0", "a whole number from 1"),
    ("train", "trials = 2.5", "a whole number"),
    ("train", 'trials = "20"', "a whole number"),
    ("train", "trials = true", "a whole number"),
    ("train", 'budget = "soon"', "a duration"),
    ("train", 'budget = "10 parsecs"', "a duration"),
    ("train", 'budget = "0s"', "above zero"),
    ("train", 'budget = "-5s"', "above zero"),
    ("train", "budget = nan", "above zero"),
    ("train", "budget = inf", "above zero"),
    ("train", "budget = true", "a duration"),
    ("train", "budget = [60]", "a duration"),
    ("train", "seed = -1", "a whole number from 0"),
    ("train", "seed = 4294967296", "a whole number from 0"),
    ("compress", 'passes = "graph"', "a list of texts"),
    ("compress", "passes = [1]", "a list of texts"),
    ("compress", 'passes = ["graph", "graph"]', "each text once"),
    ("compress", "margin = -0.1", "a number from 0"),
    ("compress", 'margin = "much"', "a number from 0"),
    ("compress", 'margin = "x%"', "a number from 0"),
    ("compress", "margin = nan", "a number from 0"),
    ("compress", "margin = inf", "a number from 0"),
    ("compress", 'goal = "sped"', "did you mean 'speed'?"),
    ("compress", 'search = "soon"', "true, false, or a duration such as 10m"),
    ("compress", 'search = "0s"', "true, false, or a duration such as 10m"),
    ("compress", 'targets = "cpu"', "a list of texts"),
    ("gate", "margin = true", "a number from 0"),
    ("gate", 'slide = "-5%"', "a number from 0"),
    ("gate", 'simpler_margin = "0.1"', "a number from"),
    ("gate", "simpler_margin = nan", "a number from"),
    ("endpoint", 'name = "Has Spaces"', "a-z, 0-9"),
    ("endpoint", 'name = "../x"', "a-z, 0-9"),
    ("endpoint", "host = 1", "a text in quotes"),
    ("endpoint", "port = 70000", "a whole number from 0 to 65535"),
    ("endpoint", "port = -1", "a whole number from 0"),
    ("endpoint", 'port = "8080"', "a whole number"),
    ("endpoint", "workers = 0", "a whole number from 1"),
    ("endpoint", 'exposed = "yes"', "true or false"),
    ("endpoint", "tls_certificate = 1", "a text in quotes"),
    ("endpoint", "tls_key = true", "a text in quotes"),
    ("endpoint", "grpc_port = 65536", "a whole number from 0 to 65535"),
    ("endpoint", "queue = 0", "a whole number from 1 to 10000000"),
    ("endpoint", "batch = 1.5", "a whole number from 1 to 65536"),
    ("endpoint", "wait = 'long'", "a duration such as"),
    ("endpoint", "memory = 'much'", "a size such as"),
    ("canary", "fraction = 0.0", "a number from 0.01"),
    ("canary", "fraction = 1.0", "a number from 0.01 to 0.9"),
    ("canary", "fraction = nan", "a number from"),
    ("canary", "requests = 10", "a whole number from"),
    ("canary", "margin = 2", "a number from 0 to 1"),
    ("canary", 'error_margin = "2%"', "a number from 0 to 1"),
    ("monitor", "false_alarms = 0", "a number from"),
    ("monitor", "false_alarms = 0.9", "a number from"),
    ("monitor", "window = 5", "a whole number from 20"),
    ("monitor", 'stale_after = "30 days"', "a duration"),
    ("monitor", 'detectors = "ks"', "a list of texts"),
    ("policy", "owner = 7", "a text in quotes"),
    ("policy", 'allowed_sources = "crm"', "a list of texts"),
    ("policy", "personal_features = [true]", "a list of texts"),
    ("policy", 'groups = ["sex", "sex"]', "each text once"),
    ("policy", 'feature_budget = "soon"', "a duration"),
    ("score", 'expires = "never"', "a duration"),
    ("store", 'root = "/var/store"', "inside the project's folder"),
    ("store", "records = 5", "a text in quotes"),
    ("store", "objects = false", "a text in quotes"),
]


@pytest.mark.parametrize(("name", "line", "rule"), WRONG, ids=[f"{name}: {line}" for name, line, _ in WRONG])
def test_a_wrong_value_is_said_with_file_line_key_value_and_rule(
    tmp_path: Path, name: str, line: str, rule: str
) -> None:
    text = section(name, line)
    error = refused(tmp_path, text)
    key = line.partition(" ")[0]
    number = text.splitlines().index(line) + 1
    assert str(error).startswith(f"{tmp_path / 'modelyard.toml'}, line {number}: ")
    assert f"[{name}]" in error.what
    assert repr(key) in error.what
    assert error.value is not None
    assert rule in str(error)


def test_every_key_of_every_section_has_a_wrong_value_here() -> None:
    tried = {(name, line.partition(" ")[0]) for name, line, _ in WRONG}
    tried |= {("data", "source"), ("data", "label"), ("train", "metric")}  # tried in tests of their own
    known = {(name, field.name) for name, made in SECTIONS.items() for field in dataclasses.fields(made)}
    assert tried == known


@pytest.mark.parametrize("name", SECTIONS)
def test_an_unknown_key_is_answered_with_the_nearest(tmp_path: Path, name: str) -> None:
    field = dataclasses.fields(SECTIONS[name])[0].name
    error = refused(tmp_path, section(name, f"{field}x = 1"))
    assert f"did you mean {field!r}?" in str(error)
    assert error.exit_code == 3


@pytest.mark.parametrize("name", LISTS)
def test_an_unknown_key_in_a_list_of_tables_too(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path, GOOD + f'[[{name}]]\nblow = "x"\n')
    assert ("did you mean 'below'?" if name == "slice" else "known: at_least, at_most") in str(error)
    assert ", line 10:" in str(error)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (GOOD + "[complex]\n", "did you mean 'compress'?"),
        (GOOD.replace("task", "tsak"), "did you mean 'task'?"),
        (GOOD.replace("[data]", "[dta]"), "did you mean 'data'?"),
        ('colour = "red"\n' + GOOD, "known: "),
        (GOOD.replace("version = 1", "version = 2"), "line 1: key 'version'"),
        (GOOD.replace("version = 1", "version = true"), "version = 1"),
        (GOOD.replace("version = 1\n", ""), "write version = 1 at the top"),
        (GOOD.replace('name = "p"\n', ""), "'name' is wrong"),
        (GOOD.replace('"p"', '"My Model"'), "line 2: key 'name'"),
        (GOOD.replace('"p"', '"' + "x" * 65 + '"'), "1 to 64"),
        (GOOD.replace('"p"', "7"), "1 to 64"),
        (GOOD.replace('"p"', '"p\\n"'), "1 to 64"),
        (GOOD.replace('"classification"', '"classificaton"'), "did you mean 'classification'?"),
        (GOOD.replace('"classification"', "3"), "classification or regression"),
        (GOOD.replace(DATA, ""), "'source' must be written"),
        (GOOD.replace('label = "y"\n', ""), "'label' must be written"),
        (GOOD.replace(TRAIN, ""), "'metric' must be written"),
        (GOOD.replace('"data.csv"', '"data.xls"'), ".csv, .tsv, .parquet"),
        (GOOD.replace('"data.csv"', '"data.py"'), "data.py:load"),
        (GOOD.replace('"data.csv"', '"data.py:"'), "file.py:function"),
        (GOOD.replace('"data.csv"', "5"), "a text in quotes"),
        (GOOD.replace('"y"', "5"), "a text in quotes"),
        (GOOD.replace('"accuracy"', '"acuracy"'), "did you mean 'accuracy'?"),
        (GOOD.replace('"accuracy"', '"rmse"'), "rmse is not for classification"),
        (GOOD.replace('"accuracy"', '"latency_p99"'), "a metric of classification"),
        (GOOD.replace('"classification"', '"regression"'), "accuracy is not for regression"),
        ("data = 3\n" + HEAD + TRAIN, "a table: [data]"),
        (GOOD + '[requirement]\nmetric = "accuracy"\n', "a list of tables: [[requirement]]"),
        ("slice = 1\n" + GOOD, "a list of tables: [[slice]]"),
        (section("data", 'split = "time"'), "needs a column that orders rows"),
    ],
)  # fmt: skip
def test_what_is_wrong_above_the_keys(tmp_path: Path, text: str, part: str) -> None:
    error = refused(tmp_path, text)
    assert part in str(error)
    assert str(tmp_path / "modelyard.toml") in str(error)


REQUIREMENTS: list[tuple[str, str]] = [
    ('metric = "accuracy"', "exactly one of at_least and at_most"),
    ('metric = "accuracy"\nat_least = 0.9\nat_most = 1.0', "exactly one of at_least and at_most"),
    ("at_least = 0.9", "'metric' must be written"),
    ('metric = "acuracy"\nat_least = 0.9', "did you mean 'accuracy'?"),
    ('metric = "mae"\nat_most = 1', "mae is not for classification"),
    ('metric = "accuracy"\nat_least = "95%"', "has no unit"),
    ('metric = "accuracy"\nat_least = true', "has no unit"),
    ('metric = "accuracy"\nat_least = 95', "write 0.95 for 95 %"),
    ('metric = "accuracy"\nat_least = nan', "finite"),
    ('metric = "log_loss"\nat_most = inf', "finite"),
    ('metric = "accuracy"\nat_least = [0.9]', "a text, a number"),
    ('metric = "latency_p99"\nat_most = "5kB"', "a duration"),
    ('metric = "latency_p99"\nat_most = "fast"', "a duration"),
    ('metric = "latency_p99"\nat_most = true', "a duration"),
    ('metric = "latency_p99"\nat_most = "-5ms"', "not below zero"),
    ('metric = "model_size"\nat_most = "5ms"', "a size"),
    ('metric = "peak_memory"\nat_most = "much"', "a size"),
    ('metric = "throughput"\nat_least = "100/s"', "has no unit"),
    ('metric = "accuracy"\nat_least = 0.9\nslice = "odl"', "did you mean 'old'?"),
    ('metric = "latency_p99"\nat_most = "5ms"\nslice = "old"', "measured on the whole model"),
    ('metric = "accuracy"\nat_least = 0.9\nslice = 4', "a text in quotes"),
    ('metric = "accuracy"\nat_least = 0.9\nstrict = "yes"', "true or false"),
]


@pytest.mark.parametrize(("lines", "part"), REQUIREMENTS, ids=[lines for lines, _ in REQUIREMENTS])
def test_a_wrong_requirement_is_named_by_its_number(tmp_path: Path, lines: str, part: str) -> None:
    first = '[[requirement]]\nmetric = "accuracy"\nat_least = 0.5\nslice = "old"\n'
    error = refused(tmp_path, GOOD + SLICE + first + f"[[requirement]]\n{lines}\n")
    assert "[[requirement]] number 2" in str(error)
    assert part in str(error)
    # The header of the second one is line 17; a key's own line comes after it.
    assert error.where is not None
    assert int(error.where.rpartition(" ")[2]) >= 17


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ('name = "s"\ncolumn = "a"', "one of equals, at_least, below"),
        ('column = "a"\nequals = 1', "'name' must be written"),
        ('name = "s"\nequals = 1', "'column' must be written"),
        ('name = "S 1"\ncolumn = "a"\nequals = 1', "a-z, 0-9"),
        ('name = "s"\ncolumn = 4\nequals = 1', "a text in quotes"),
        ('name = "s"\ncolumn = "a"\nequals = [1]', "a text, a number"),
        ('name = "s"\ncolumn = "a"\nbelow = 2024-01-01', "a text, a number"),
    ],
)
def test_a_wrong_slice(tmp_path: Path, lines: str, part: str) -> None:
    error = refused(tmp_path, GOOD + f"[[slice]]\n{lines}\n")
    assert part in str(error)
    assert "[[slice]] number 1" in str(error)


def test_names_are_there_once(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD + SLICE + SLICE)
    assert "[[slice]] number 2" in str(error)
    assert "each name once" in str(error)
    line = '[[requirement]]\nmetric = "accuracy"\nat_least = 0.5\n'
    assert "once" in str(refused(tmp_path, GOOD + line + line.replace("0.5", "0.9")))
    # The same metric on a slice is another claim.
    assert len(read(tmp_path, GOOD + SLICE + line + line + 'slice = "old"\n').requirements) == 2


def test_bad_toml_names_the_line(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD + "[canary\n")
    assert "is not TOML" in str(error)
    assert "line 9" in str(error)
    duplicated = refused(tmp_path, GOOD + "[data]\n")
    assert "is not TOML" in str(duplicated)
    assert "line" in str(duplicated)


@pytest.mark.parametrize("raw", [GOOD.encode() + b"# caf\xe9\n", GOOD.encode("utf-16"), b"\xff\xfe\x00"])
def test_a_file_that_is_not_utf8(tmp_path: Path, raw: bytes) -> None:
    error = refused(tmp_path, raw)
    assert "is not UTF-8" in str(error)
    assert "save it as UTF-8" in str(error)


def test_a_huge_file_and_a_missing_one(tmp_path: Path) -> None:
    assert "too large" in str(refused(tmp_path, b"#" * ((1 << 20) + 1)))
    with pytest.raises(ProjectError, match="modelyard init"):
        read_project(tmp_path / "nowhere")
    with pytest.raises(ProjectError, match=r"no modelyard\.toml here or in a folder above"):
        find_project(Path("/nowhere/at/all"))


def test_the_nearest_project_above_is_found(tmp_path: Path) -> None:
    read(tmp_path, GOOD)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert find_project(deep) == tmp_path


def test_a_good_file_is_read_with_its_units(tmp_path: Path) -> None:
    text = GOOD + SLICE + (
        '[[requirement]]\nmetric = "latency_p99"\nat_most = "5ms"\n'
        '[[requirement]]\nmetric = "model_size"\nat_most = "1.5MB"\n'
        '[[requirement]]\nmetric = "accuracy"\nat_least = 0.9\nslice = "old"\nstrict = true\n'
        '[gate]\nmargin = "5%"\n[score]\nexpires = "2d"\n[endpoint]\nport = 0\n'
    )  # fmt: skip
    project = read(tmp_path, text)
    assert [item.bound for item in project.requirements] == [0.005, 1_500_000.0, 0.9]
    assert [item.where for item in project.requirements] == ["release", "release", "test"]
    assert project.requirements[2].strict
    assert project.gate.margin == Margin(0.05, relative=True)
    assert project.score.expires == 172_800.0
    assert project.endpoint_name == "p"
    assert project.margin(None) == Margin(0.02)


def test_defaults_pass_their_own_rules() -> None:
    """A default that a user could not write himself would be a trap."""
    for made in SECTIONS.values():
        for field in dataclasses.fields(made):
            if is_required(field) or field.default is None:
                continue
            default = field.default
            parse: Callable[[Any], Any] = field.metadata["parse"]
            assert parse(list(default) if isinstance(default, tuple) else default) == default, field.name


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_raise_anything_else(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "modelyard.toml"
        path.write_bytes((GOOD + text).encode(errors="surrogatepass"))
        try:
            read_project(Path(folder))
        except ProjectError as error:
            assert str(path) in str(error)


KEYS = [(name, field.name) for name, made in SECTIONS.items() for field in dataclasses.fields(made)]
ODD = [
    "nan",
    "-inf",
    "[]",
    "{}",
    "1979-05-27",
    '""',
    "[[1]]",
    "[nan, nan, nan]",
    "1e400",
    "-1",
    "0",
    '"%"',
    "' '",
]


@pytest.mark.parametrize(("name", "field"), KEYS)
def test_odd_values_are_taken_or_refused_but_never_a_crash(tmp_path: Path, name: str, field: str) -> None:
    for value in ODD:
        tables = {"data": {"source": '"data.csv"', "label": '"y"'}, "train": {"metric": '"accuracy"'}}
        tables.setdefault(name, {})[field] = value
        text = HEAD + "".join(
            f"[{table}]\n" + "".join(f"{key} = {item}\n" for key, item in keys.items())
            for table, keys in tables.items()
        )
        try:
            project = read(tmp_path, text)
        except ProjectError as error:
            assert error.where is not None
            continue
        taken = getattr(getattr(project, name), field)
        assert taken == taken, f"{field} = {value} became NaN"  # noqa: PLR0124 - only NaN differs from itself
        assert taken not in (float("inf"), float("-inf"))


def test_variables_come_from_the_environment() -> None:
    assert expand(None) is None
    assert expand("postgresql://${USER}@h/${DB}", {"USER": "u", "DB": "d"}) == "postgresql://u@h/d"
    with pytest.raises(KeyError, match="NOT_SET"):
        expand("${NOT_SET}", {})
