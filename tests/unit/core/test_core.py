"""The ground floor: errors write their sentence, files are whole or absent, names and units are strict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.digest import canonical, digest_bytes, digest_json, is_digest
from modelyard.core.errors import ModelyardError, RequestError, StoreBusy, StoreError
from modelyard.core.files import file_lock, inside, write_atomic
from modelyard.core.format import check_format
from modelyard.core.names import Plugins, did_you_mean, is_name
from modelyard.core.unit import seconds, show_seconds, show_size, size


def test_an_error_says_where_what_value_rule_and_fix() -> None:
    error = ModelyardError("the port is wrong", value=7, rule="1 to 5", fix="use 3", where="a.toml, line 2")
    assert str(error) == "a.toml, line 2: the port is wrong: got 7; the rule is: 1 to 5; use 3"
    assert error.facts() == {
        "kind": "ModelyardError", "what": "the port is wrong", "value": "7", "rule": "1 to 5", "fix": "use 3",
        "where": "a.toml, line 2",
    }  # fmt: skip
    assert len(str(ModelyardError("x", value="y" * 10_000))) < 200
    assert RequestError("no", status=422).status == 422


@given(st.text(max_size=80))
def test_a_name_is_safe_in_a_path_and_a_url(text: str) -> None:
    if is_name(text):
        assert text.isascii()
        assert not set(text) & set("/\\. \n%")
        assert 1 <= len(text) <= 64


@pytest.mark.parametrize("wrong", ["", "-a", "a-", "A", "a b", "a/b", "..", "a\n", "x" * 65, "é"])
def test_wrong_names(wrong: str) -> None:
    assert not is_name(wrong)


def test_plugins_hint_at_the_nearest() -> None:
    made: Plugins[int] = Plugins("modelyard.nothing", {"graph": 1, "other": 2})
    assert made.names() == ["graph", "other"]
    assert made.get("graph") == 1
    with pytest.raises(ModelyardError, match="did you mean 'graph'"):
        made.get("grahp")
    assert did_you_mean("x", []) == "known: none"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5ms", 0.005),
        ("1.5 s", 1.5),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("30d", 2_592_000.0),
        ("1e3us", 0.001),
        (3, 3.0),
    ],
)
def test_durations(text: str | int, value: float) -> None:
    assert seconds(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("wrong", ["", "ms", "5 parsecs", "5MB", "1,5s", "5 m s", "0x5s", True])
def test_wrong_durations(wrong: str | bool) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(wrong)


@pytest.mark.parametrize(("text", "value"), [("300kB", 3e5), ("2KiB", 2048.0), ("1.5 mb", 1.5e6), (7, 7.0)])
def test_sizes(text: str | int, value: float) -> None:
    assert size(text) == value


@pytest.mark.parametrize("wrong", ["", "5ms", "5 EB", "kB", False])
def test_wrong_sizes(wrong: str | bool) -> None:
    with pytest.raises(ValueError, match="size"):
        size(wrong)


@given(st.floats(1e-9, 1e9))
def test_shown_times_and_sizes_are_short(value: float) -> None:
    assert len(show_seconds(value)) <= 12
    assert len(show_size(value)) <= 12


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_a_digest_depends_on_content_and_not_on_the_order_of_keys(value: object) -> None:
    assert is_digest(digest_json(value))  # type: ignore[arg-type]
    if isinstance(value, dict):
        assert canonical(value) == canonical(dict(reversed(list(value.items()))))
    assert digest_bytes(b"a") != digest_bytes(b"b")


@pytest.mark.parametrize(
    "wrong", ["", "sha256:", "sha256:" + "g" * 64, "md5:" + "0" * 64, "sha256:" + "0" * 63]
)
def test_wrong_digests(wrong: str) -> None:
    assert not is_digest(wrong)


def test_a_write_replaces_whole_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(StoreError, match="cannot write"):
        write_atomic(path / "under a file", b"x")
    assert path.read_bytes() == b"two"


def test_a_write_cut_off_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = (
        "import sys; from pathlib import Path; from modelyard.core.files import write_atomic\n"
        "number = 0\nprint('ready', flush=True)\n"
        "while True:\n    number += 1; write_atomic(Path(sys.argv[1]), str(number % 10).encode() * 200_000)\n"
    )
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        data = path.read_bytes()
        assert len(data) == 200_000
        assert len(set(data)) == 1


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a\\b", "", "a\0b"])
def test_a_name_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain relative name"):
        inside(tmp_path, name)


def test_a_name_cannot_pass_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(ValueError, match="symbolic link"):
        inside(tmp_path, "link/passwd")
    assert inside(tmp_path, "a/b") == tmp_path / "a" / "b"


def test_a_lock_keeps_others_out_and_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from modelyard.core.files import file_lock\n"
        "with file_lock(Path(sys.argv[1]), holder='another command'):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(StoreBusy, match="locked by another command"), file_lock(path, wait=0.1, holder="me"):
        pass
    with pytest.raises(StoreBusy, match="locked by another process"), file_lock(path, wait=0.0):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with file_lock(path, wait=5.0, holder="me"):
        assert path.read_text() == "me"
    with pytest.raises(StoreError, match="cannot write"), file_lock(path / "below"):
        pass


@pytest.mark.parametrize("found", [None, 0, 2, "1", [1]])
def test_a_format_from_elsewhere_says_to_upgrade(found: object) -> None:
    check_format(1, 1, "the thing", StoreError)
    with pytest.raises(StoreError, match=r"the thing has a version that is not known.*upgrade"):
        check_format(found, 1, "the thing", StoreError, key="version")
