"""The documents say what is: commands exist, blocks parse or run, links resolve, versions agree."""

from __future__ import annotations

import base64
import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
import tomlkit

from modelyard.cli.main import root
from modelyard.core.clock import SYSTEM_CLOCK
from modelyard.data.contract_file import read_contract
from modelyard.lifecycle.project_file import read_project
from modelyard.release.bundle import LIMITS
from modelyard.release.policy import policy_from_json
from modelyard.serve.codec.rows import read_rows
from modelyard.serve.feedback import append_feedback, parse_feedback
from modelyard.store.ledger import verify_export
from modelyard.store.store import open_store

HERE = Path(__file__).parents[1]
DOCS = HERE / "docs"
FILES = [HERE / "README.md", HERE / "ARCHITECTURE.md", *sorted(DOCS.rglob("*.md"))]
IDS = [str(path.relative_to(HERE)) for path in FILES]
FORMATS = DOCS / "reference" / "formats.md"
HOW_TO = DOCS / "how-to.md"
PROJECT = """\
version = 1
name = "documented"
task = "classification"
data = {source = "data.csv", label = "y"}
train = {metric = "accuracy"}
"""


class Block(NamedTuple):
    """A fenced block: where it stands, its language, its text."""

    file: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.file.relative_to(HERE)}:{self.line}"


def blocks(language: str, files: list[Path] = FILES) -> list[Block]:
    found = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        matches = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
        found += [
            Block(path, text.count("\n", 0, match.start()) + 2, language, match[1]) for match in matches
        ]
    return found


def by_block(language: str, files: list[Path] = FILES) -> pytest.MarkDecorator:
    found = blocks(language, files)
    return pytest.mark.parametrize("block", found, ids=[block.name for block in found])


def the_block(file: Path, language: str, needle: str) -> str:
    (found,) = [block.text for block in blocks(language, [file]) if needle in block.text]
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The `modelyard` commands in a shell block, each as its words."""
    for line in text.splitlines():
        for part in re.split(r"&&|\||;", line.removeprefix("$ ")):
            if part.strip().startswith("modelyard "):
                words = shlex.split(part, comments=True)
                yield words[1 : words.index(">") if ">" in words else None]


def check_command(words: list[str], *, whole: bool = True) -> None:
    """Raises `click.UsageError` unless there is such a command that takes these words.

    Prose may name a command without its arguments: then it is not `whole`.
    """
    command: click.Command = root
    context = click.Context(command, info_name="modelyard")
    values, rest, _ = command.make_parser(context).parse_args(args=list(words))
    while isinstance(command, click.Group) and rest:
        found = command.get_command(context, rest[0])
        if found is None:
            raise click.UsageError(f"no command {rest[0]!r}")
        context = click.Context(found, parent=context, info_name=rest[0])
        command = found
        values, rest, _ = command.make_parser(context).parse_args(args=rest[1:])
    if rest:
        raise click.UsageError(f"too many words: {rest}")
    for parameter in command.params:
        value = values.get(parameter.name or "")
        given = isinstance(value, str)
        if whole and parameter.required and not given:
            raise click.UsageError(f"{parameter.name} is missing")
        if given and not isinstance(parameter.type, click.Path):
            parameter.type.convert(value, parameter, context)


@by_block("(?:sh|console|text)")
def test_every_command_in_a_block_exists_with_its_options(block: Block) -> None:
    for words in commands(block.text):
        try:
            check_command(words)
        except click.UsageError as error:
            pytest.fail(f"{block.name}: modelyard {' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_command_in_the_text_exists_with_its_options(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for inline in re.findall(r"`(modelyard [^`]+)`", prose):
        if not re.search(r"[A-Z]{3,}|\[", inline):
            try:
                for words in commands(inline):
                    check_command(words, whole=False)
            except click.UsageError as error:
                pytest.fail(f"{path.name}: {inline}: {error.format_message()}")


def test_a_command_that_is_not_there_is_found() -> None:
    for wrong in ("modelyard fly", "modelyard run --fast", "modelyard serve pause", "modelyard endpoint set"):
        with pytest.raises(click.UsageError):
            check_command(*commands(wrong))


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_links_and_images_resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{path.name} links to {target}, which is not there"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{path.name} links to {target}; there is {sorted(anchors)}"


@by_block("toml")
def test_toml_blocks_are_projects_contracts_or_packages(block: Block, tmp_path: Path) -> None:
    tables = tomllib.loads(block.text)
    if "columns" in tables:
        (tmp_path / "contract.toml").write_text(block.text)
        assert read_contract(tmp_path / "contract.toml").features
    elif "project" not in tables:
        (tmp_path / "modelyard.toml").write_text(tomlkit.dumps({**_base(tables), **tables}))
        assert read_project(tmp_path).name


def _base(tables: dict[str, Any]) -> dict[str, Any]:
    """What a block leaves out of a project: other tables, the keys it does not name, the slices it uses."""
    base = tomllib.loads(PROJECT)
    for key, value in base.items():
        if isinstance(value, dict) and key in tables:
            tables[key] = {**value, **tables[key]}
    named = {item["slice"] for item in tables.get("requirement", []) if "slice" in item}
    known = {item["name"] for item in tables.get("slice", [])}
    assert named <= known, f"slices that the block does not declare: {named - known}"
    return base


@by_block("python")
def test_python_blocks_compile(block: Block) -> None:
    compile(block.text, block.name, "exec")


@by_block("json")
def test_json_blocks_are_json(block: Block) -> None:
    assert json.loads(block.text) if "\n{" not in block.text else [*map(json.loads, block.text.splitlines())]


def run_block(text: str, folder: Path, *arguments: str, passes: bool = True) -> str:
    (folder / "block.py").write_text(text)
    command = [sys.executable, "block.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode == 0) is passes, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def export(project: Any) -> list[str]:
    """The lines of a real export, of a ledger with every kind of value in it."""
    store = open_store(project.root / ".modelyard")
    for number in range(40):
        body = {"why": f"Zürich «{number}» \u2028 \t ✓", "n": number, "x": number / 7, "deep": [{"a": None}]}
        passed = (True, False, None)[number % 3]
        store.ledger.append("project:small", "data.1", passed=passed, body=body, by="a test")
    store.close()
    done = project("ledger", "export", "-o", str(project.root / "ledger.jsonl"))
    assert done.code == 0, done.err
    return (project.root / "ledger.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")


def test_the_ledger_verifier_of_ten_lines_agrees_with_ours(export: list[str], project: Any) -> None:
    verifier = the_block(FORMATS, "python", "modelyard ledger 1")
    assert len([line for line in verifier.splitlines() if line.strip()]) <= 14
    head = json.loads(export[-1])["hash"]
    assert verify_export(export, head=head) == 40
    assert run_block(verifier, project.root) == f"40 entries, the chain holds; head {head}\n"
    assert head in project("ledger", "verify").out


@pytest.mark.parametrize("harm", ["change", "lose", "repeat", "swap"])
def test_the_ledger_verifier_of_ten_lines_finds_harm(export: list[str], tmp_path: Path, harm: str) -> None:
    harmed = {
        "change": [*export[:6], export[6].replace('"passed":true', '"passed":false'), *export[7:]],
        "lose": export[:6] + export[7:],
        "repeat": export[:7] + export[6:],
        "swap": [*export[:6], export[7], export[6], *export[8:]],
    }[harm]
    assert harmed != export
    (tmp_path / "ledger.jsonl").write_text("\n".join(harmed) + "\n", encoding="utf-8")
    found = run_block(the_block(FORMATS, "python", "modelyard ledger 1"), tmp_path, passes=False)
    assert re.fullmatch(r"entry [78] was changed, lost, put in or moved\n", found)


def test_the_bundle_verifier_accepts_a_bundle_and_refuses_a_changed_one(tmp_path: Path) -> None:
    verifier = the_block(HOW_TO, "python", "dsseEnvelope")
    kept = Path(__file__).parent / "formats" / "bundle"
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in (kept / "v1").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    arguments = (str(folder), str(kept / "v1.pem"))
    assert run_block(verifier, tmp_path, *arguments) == "every file is as it was signed\n"
    (folder / "contract.json").write_bytes(b"{}")
    assert "not those that were signed" in run_block(verifier, tmp_path, *arguments)
    signature = json.loads((folder / "model.sig").read_bytes())
    signature["dsseEnvelope"]["payload"] = base64.b64encode(b"{}").decode()
    (folder / "model.sig").write_text(json.dumps(signature))
    assert "InvalidSignature" in run_block(verifier, tmp_path, *arguments, passes=False)


VERSIONS = {
    "project file": "lifecycle.project:VERSION",
    "contract": "data.contract:FORMAT",
    "ledger": "store.entry:GENESIS",
    "snapshot": "data.snapshot:FORMAT",
    "profile": "data.profile:FORMAT",
    "bundle": "release.info:FORMAT",
    "requirements": "release.load:REQUIREMENTS_FORMAT",
    "kept answers": "release.answers:FORMAT",
    "release entry": "release.registry:FORMAT",
    "endpoint entry": "release.endpoint:FORMAT",
    "traffic policy": "release.policy:FORMAT",
    "prediction log": "serve.record:FORMAT",
    "journal of the log": "serve.journal:FORMAT",
    "feedback": "serve.feedback:FORMAT",
    "routing copy": "serve.shelf:FORMAT",
    "service options": "serve.options:FORMAT",
    "process file": "serve.process:FORMAT",
    "searched plan": "lifecycle.searched_plan:VERSION",
    "search result": "compress.search.found:VERSION",
    "step record": "lifecycle.step:VERSION",
    "study": "train.study:FORMAT",
    "watch state": "monitor.watch:WATCH_VERSION",
    "checkpoint": "train.checkpoint:FORMAT",
}


def table_after(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of the formats page."""
    text = FORMATS.read_text(encoding="utf-8").partition(f"{heading}\n")[2]
    rows = re.search(r"(?:^\|.*\n)+", text, re.M)
    assert rows is not None
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[0].splitlines()]
    return cells[2:]


def test_the_documented_versions_are_the_codes() -> None:
    documented = {row[0]: int(row[-1]) for row in table_after("# Formats")}
    assert documented.keys() == VERSIONS.keys()
    for name, place in VERSIONS.items():
        module, _, constant = place.partition(":")
        value = getattr(importlib.import_module(f"modelyard.{module}"), constant)
        if name == "ledger":
            from modelyard.core.digest import digest_bytes

            assert value == digest_bytes(f"modelyard ledger {documented[name]}".encode())
        else:
            assert documented[name] == value, name


def test_the_documented_files_of_a_bundle_are_the_codes() -> None:
    units = {"MiB": 1 << 20, "GiB": 1 << 30}
    documented = {
        row[0].strip("`"): int(row[2].split()[0]) * units[row[2].split()[1]]
        for row in table_after("## A bundle")
    }
    assert documented == dict(LIMITS)


def test_the_documented_policies_are_read() -> None:
    text = the_block(FORMATS, "json", '"canary"')
    for line in text.splitlines():
        for number in range(2):
            line = line.replace("sha256:...", "sha256:" + str(number) * 64, 1)  # noqa: PLW2901
        assert policy_from_json(json.loads(line)).to_json() == json.loads(line)


def test_the_documented_requests_are_read() -> None:
    asked = read_rows(the_block(FORMATS, "json", '"visit-17", "key"').encode(), limit=10)
    assert (asked.id, asked.key, len(asked.rows)) == ("visit-17", "patient-4", 1)
    (given,) = re.findall(r"`POST /feedback/ENDPOINT` with `(.+?)`", FORMATS.read_text(encoding="utf-8"))
    (feedback,) = parse_feedback(given.encode(), ("benign", "malignant"))
    assert (feedback.id, feedback.label) == ("visit-17", "malignant")
    (sent,) = re.findall(r"/feedback/churn -d '(.+?)'", HOW_TO.read_text(encoding="utf-8"))
    assert parse_feedback(sent.encode(), ("yes", "no"))[0].label == "yes"


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A prediction log with the documented columns, and feedback as the service appends it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    state = tmp_path / ".modelyard" / "service"
    folder = state / "predictions" / "e"
    folder.mkdir(parents=True)
    for version in ("1", "2"):
        rows = [
            {"id": f"{version}.{n}", "version": version, "arm": "primary", "outcome": "ok", "latency": 0.002,
             "breaches": ["mean_area: maximum"][:n], f"in_of_{version}": 1.0, "label": "benign"}
            for n in range(3)
        ]  # fmt: skip
        schema = pa.schema([("breaches", pa.list_(pa.string()))])
        table = pa.Table.from_pylist(rows)
        table = table.set_column(5, "breaches", table["breaches"].cast(schema.field(0).type))
        pq.write_table(table, folder / f"{version}.parquet")
    body = json.dumps({"feedback": [{"id": f"1.{n}", "label": "benign"} for n in range(2)]})
    append_feedback(state, "e", parse_feedback(body.encode(), ("benign", "malignant")), SYSTEM_CLOCK)
    return tmp_path


def test_the_documented_columns_of_the_log_are_the_codes() -> None:
    """The law of the log is the text at the top of `serve/record.py`, which its own tests hold to."""
    from modelyard.serve import record

    law = re.findall(r"^    (in_<feature>|[a-z]+) +\S", record.__doc__ or "", re.M)
    documented = [row[0].strip("`") for row in table_after("## The prediction log")]
    assert documented == [name.replace("in_<feature>", "in_COLUMN") for name in law]


def test_the_log_is_read_with_duckdb_as_documented(logged: Path) -> None:
    counted = run_block(the_block(HOW_TO, "python", "quantile_cont"), logged)
    assert re.findall(r"│ (\d) +│ ok +│ +3 │ +2\.0 │ +2 │", counted) == ["1", "2"], counted
    joined = run_block(the_block(HOW_TO, "python", "USING (id)"), logged)
    assert re.search(r"│ 1 +│ +2 │ +1\.0 │", joined), joined


def test_the_documented_pass_works() -> None:
    from onnx import TensorProto, helper, numpy_helper

    from modelyard.core.errors import CompressError
    from modelyard.model.reader import read_model

    space: dict[str, Any] = {}
    exec(the_block(HOW_TO, "python", "class Zeros"), space)  # noqa: S102 - the document's own code
    (step,) = space["PASSES"]
    weights = np.arange(1, 11, dtype=np.float32).reshape(10, 1)

    def graph(name: str, width: int, constant: Any) -> Any:
        one = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])
        out = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["N", 1])
        node = helper.make_node(name, ["x", "w"], ["prediction"])
        made = helper.make_graph([node], "g", [one], [out], [numpy_helper.from_array(constant, "w")])
        proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return read_model(proto.SerializeToString(), task="regression")

    model = graph("MatMul", 10, weights)
    done = step.apply(model, {})
    assert done.model.signature == model.signature and done.model.digest != model.digest
    with pytest.raises(CompressError, match="does not apply"):
        step.apply(graph("Add", 1, weights[0]), {})


def test_the_documented_detector_works() -> None:
    from modelyard.data.columnprofile import NumericProfile
    from modelyard.monitor.detector import Detector
    from modelyard.monitor.options import MonitorOptions

    space: dict[str, Any] = {}
    exec(the_block(HOW_TO, "python", "class Mean"), space)  # noqa: S102 - the document's own code
    detector = space["MEAN"]
    assert isinstance(detector, Detector)
    rng = np.random.default_rng(0)
    reference, same, moved = (NumericProfile.of(rng.normal(mean, 1, 500)) for mean in (0, 0, 2))
    quiet, loud = (detector.compare(reference, window, MonitorOptions()) for window in (same, moved))
    assert not quiet.relevant and quiet.p_value > 0.001
    assert loud.relevant and loud.p_value < 1e-9


def test_every_entry_point_group_that_is_documented_is_one() -> None:
    source = "".join(path.read_text() for path in (HERE / "src").rglob("*.py"))
    used = set(re.findall(r'Plugins\(\s*"(modelyard\.\w+)"', source))
    listed = re.findall(r"^\| (`modelyard\..+?) \|", HOW_TO.read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"`(modelyard\.\w+)`", " ".join(listed))) == used
