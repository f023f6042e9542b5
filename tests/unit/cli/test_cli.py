"""The command line's surface: help, exit codes, completion, unknown names, JSON, the door's last resort."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from modelyard.cli import main as door
from modelyard.cli.commands import COMMANDS
from modelyard.cli.main import root
from modelyard.cli.monitor import ALARMED
from modelyard.cli.run import STOPPED
from modelyard.core import errors
from modelyard.core.errors import ModelyardError


def walk(command: click.Command, words: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command and subcommand with the words that call it."""
    found = [(words, command)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            made = command.get_command(context, name)
            assert made is not None
            found += walk(made, (*words, name))
    return found


EVERY = walk(root)


@pytest.mark.parametrize("words", [words for words, _ in EVERY], ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(root, [*words, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output
    assert CliRunner().invoke(root, [*words, "-h"]).output == done.output


@pytest.mark.parametrize(
    ("words", "command"), EVERY[1:], ids=lambda item: " ".join(item) if isinstance(item, tuple) else ""
)
def test_every_command_takes_json_and_says_what_it_is_for(
    words: tuple[str, ...], command: click.Command
) -> None:
    assert command.help
    options = [option for item in command.params for option in item.opts]
    if not isinstance(command, click.Group) or command.invoke_without_command:
        assert "--json" in options, words
    for item in command.params:
        if isinstance(item, click.Option):
            assert item.help, f"{words} {item.name} has no help"


def test_the_list_of_commands_is_whole() -> None:
    files = {path.stem for path in Path(door.__file__).parent.glob("*.py")}
    assert {command.module for command in COMMANDS.values()} <= files
    text = CliRunner().invoke(root, ["--help"]).output
    for name, command in COMMANDS.items():
        assert name in text
        assert command.about.split(",")[0] in " ".join(text.split())


def test_exit_codes_are_one_table_without_a_clash() -> None:
    kinds: list[type[ModelyardError]] = [
        item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, ModelyardError)
    ]
    own = {kind: kind.exit_code for kind in kinds if "exit_code" in vars(kind)}
    assert len(set(own.values())) == len(own), "two kinds of failure share a code"
    assert {kind.__name__: code for kind, code in own.items()} == {
        "ModelyardError": 1,
        "ProjectError": 3,
        "DataError": 4,
        "ModelError": 5,
        "TrainError": 6,
        "CompressError": 7,
        "StoreError": 8,
        "ReleaseError": 9,
        "PromotionRefused": 10,
        "ServeError": 11,
        "RequestError": 12,
        "MonitorError": 13,
        "MissingExtra": 14,
    }
    assert (STOPPED, ALARMED) == (15, 16)
    # 2 is click's, 130 is an interrupt: neither may be taken.
    assert not {0, 2, STOPPED, ALARMED, 130} & set(own.values())
    # Every class stands in the tree at the top of its file.
    assert errors.__doc__ is not None
    for kind in kinds:
        assert kind.__name__ in errors.__doc__


def run(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: str) -> tuple[int, str, str]:
    """The whole door, in this process."""
    monkeypatch.setattr(sys, "argv", ["modelyard", *words])
    with pytest.raises(SystemExit) as caught:
        door.main()
    out, err = capsys.readouterr()
    code = caught.value.code
    return (code if isinstance(code, int) else 0), out, err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("chek",), "did you mean 'check'?"),
        (("relase",), "did you mean 'release"),
        (("xyzzy",), "known: "),
        (("run", "--prot", "1"), "--port"),
        (("run", "--port", "99999"), "99999"),
        (("run", "--port", "http"), "http"),
        (("init",), "NAME"),
        (("init", "x", "--task", "clustering"), "clustering"),
        (("endpoint", "shwo"), "shwo"),
        (("serve", "begin"), "begin"),
        (("completion", "tcsh"), "tcsh"),
        (("ledger", "show", "--last", "0"), "0"),
    ],
)
def test_wrong_words_end_with_code_2_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, words: tuple[str, ...], part: str
) -> None:
    code, out, err = run(monkeypatch, capsys, *words)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert part in err
    code, out, err = run(monkeypatch, capsys, *words, "--json")
    assert code == 2
    assert part in json.loads(out)["error"]["what"]
    assert err == ""


FREE = ("init", "completion", "inspect", "conform", "bench")
"""Commands that work on what their arguments name and need no project."""
BOUND = [words for words, made in EVERY[1:] if not isinstance(made, click.Group) and words[0] not in FREE]


@pytest.mark.parametrize("words", BOUND, ids=" ".join)
def test_without_a_project_every_command_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, words: tuple[str, ...]
) -> None:
    extra = {
        ("endpoint", "set"): ["1"],
        ("score", "note"): ["data.3", "--link", "x", "--author", "y"],
        ("tokens", "add"): ["me", "--role", "predict"],
        ("tokens", "remove"): ["me"],
    }
    line = [*words, *extra.get(words, [])]
    monkeypatch.chdir("/")
    code, out, err = run(monkeypatch, capsys, *line)
    assert code == 3
    assert "modelyard init NAME" in err
    assert out == ""
    code, out, _ = run(monkeypatch, capsys, *line, "--json")
    found = json.loads(out)["error"]
    assert code == 3
    assert found["kind"] == "ProjectError"
    assert found["fix"]
    # A folder that is not there is never answered from the project around it.
    code, _, err = run(monkeypatch, capsys, "-C", str(tmp_path / "nowhere"), *line)
    assert code == 3
    assert "nowhere" in err


def test_a_mistyped_folder_does_not_reach_the_project_around_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, project: Any
) -> None:
    monkeypatch.chdir(project.root)
    code, _, err = run(monkeypatch, capsys, "-C", "exmaples", "check")
    assert code == 3
    assert "exmaples" in err
    assert run(monkeypatch, capsys, "check")[0] == 0
    (project.root / "deep").mkdir()
    assert run(monkeypatch, capsys, "-C", "deep", "check")[0] == 0


@pytest.mark.parametrize(
    ("raised", "code", "kind", "part"),
    [
        (errors.StoreBusy("busy", value="x"), 8, "StoreBusy", "busy"),
        (errors.MissingExtra("torch", "train"), 14, "MissingExtra", "modelyard[train]"),
        (OSError(28, "No space left on device", "/x/y"), 8, "StoreError", "No space left on device"),
        (PermissionError(13, "Permission denied", "/x/y"), 8, "StoreError", "Permission denied"),
        (KeyError("oops"), 1, "Defect", "KeyError: 'oops'"),
        (KeyboardInterrupt(), 130, "Interrupted", ""),
    ],
)
def test_whatever_is_raised_is_a_sentence_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    project: Any,
    raised: BaseException,
    code: int,
    kind: str,
    part: str,
) -> None:
    from modelyard.lifecycle import check

    def fails(_: object) -> None:
        raise raised

    monkeypatch.setattr(check, "check_project", fails)
    got, out, err = run(monkeypatch, capsys, "-C", str(project.root), "check")
    assert got == code
    assert part in err
    assert "Traceback" not in out + err
    assert len(err.strip().splitlines()) == 1
    got, out, err = run(monkeypatch, capsys, "-C", str(project.root), "check", "--json")
    assert got == code
    assert json.loads(out)["error"]["kind"] == kind
    if kind == "Defect":
        monkeypatch.setenv("MODELYARD_TRACEBACK", "1")
        monkeypatch.setattr(sys, "argv", ["modelyard", "-C", str(project.root), "check"])
        with pytest.raises(KeyError):
            door.main()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(command: Any, shell: str) -> None:
    done = command("completion", shell)
    assert done.code == 0
    assert "_MODELYARD_COMPLETE" in done.out
    assert command("completion", shell, "--json").json["script"].strip() == done.out.strip()
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=done.out, text=True, check=False).returncode == 0


def test_the_shell_is_given_our_commands(command: Any) -> None:
    asked = {"_MODELYARD_COMPLETE": "bash_complete", "COMP_WORDS": "modelyard re", "COMP_CWORD": "1"}
    found = {line.partition(",")[2] for line in command(env=asked).out.splitlines()}
    assert found == {"release", "releases", "report"}
    asked = {"_MODELYARD_COMPLETE": "bash_complete", "COMP_WORDS": "modelyard endpoint ", "COMP_CWORD": "2"}
    found = {line.partition(",")[2] for line in command(env=asked).out.splitlines()}
    assert found == {"show", "set", "promote", "rollback"}


def test_the_version(command: Any) -> None:
    import modelyard

    assert command("--version").out.strip() == modelyard.__version__
