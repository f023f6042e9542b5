"""Tokens, their file, the guard and its rates; which role a path needs; the command that makes tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.cli.tokens import ROLES as COMMAND_ROLES
from modelyard.cli.tokens import command
from modelyard.core.clock import ManualClock
from modelyard.core.errors import RequestError, ServeError
from modelyard.serve.access.bucket import Bucket
from modelyard.serve.access.guard import Guard, open_guard
from modelyard.serve.access.token import ROLES, Role, Token, new_token
from modelyard.serve.access.token_file import TokenFile, add_token, read_tokens, remove_token, token_path
from modelyard.serve.access_rules import role_of

NOW = "2026-01-01T00:00:00.000000Z"


def make(state: Path, name: str, *roles: Role, rate: float | None = None, burst: int | None = None) -> str:
    token, text = new_token(name, roles, created=NOW, rate=rate, burst=burst)
    add_token(token_path(state), token)
    return text


def status(guard: Guard, text: str | None, role: Role | None = "predict") -> int:
    try:
        guard.allow(None if text is None else f"Bearer {text}", role)
    except RequestError as error:
        assert text is None or text not in str(error)
        return error.status
    return 200


def test_a_token_is_known_by_its_hash_only(tmp_path: Path) -> None:
    text = make(tmp_path, "shop", "predict", "feedback")
    other = make(tmp_path, "desk", "operate")
    file = token_path(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert text not in file.read_text() and text.rpartition(".")[2] not in file.read_text()
    assert len({text, other}) == 2 and len(text.rpartition(".")[2]) == 43
    shop, desk = read_tokens(file)
    assert shop.matches(text) and not shop.matches(other) and not shop.matches("")
    assert (shop.roles, desk.roles) == (("predict", "feedback"), ("operate",))
    remove_token(file, "shop")
    assert [token.name for token in read_tokens(file)] == ["desk"]
    with pytest.raises(ServeError, match="did you mean 'desk'"):
        remove_token(file, "dask")
    with pytest.raises(ServeError, match="of this name"):
        make(tmp_path, "desk", "predict")


@pytest.mark.parametrize(
    "changes",
    [{"name": "a.b"}, {"name": ""}, {"roles": ()}, {"roles": ("admin",)}, {"roles": ("predict", "predict")},
     {"rate": 0.0}, {"rate": -1.0}, {"rate": float("nan")}, {"rate": float("inf")}, {"burst": 0}],
)  # fmt: skip
def test_nonsense_is_no_token(changes: dict[str, Any]) -> None:
    with pytest.raises(ServeError):
        Token(**({"name": "a", "roles": ("predict",), "hash": "sha256:0", "created": NOW} | changes))


def test_a_file_that_is_not_ours_stops_the_start(tmp_path: Path) -> None:
    file = token_path(tmp_path)
    assert read_tokens(file) == ()
    for text in (
        "",
        "[]",
        "{}",
        '{"format": 2, "tokens": []}',
        '{"format": 1, "tokens": [{"name": "a"}]}',
        "\xff",
    ):
        file.write_text(text)
        file.chmod(0o600)
        with pytest.raises(ServeError, match=r"tokens\.json"):
            read_tokens(file)
    file.unlink()
    make(tmp_path, "a", "predict")
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        with pytest.raises(ServeError, match="chmod 600"):
            read_tokens(file)
    file.chmod(0o600)
    away = tmp_path / "away"
    file.rename(away)
    file.symlink_to(away)
    with pytest.raises(ServeError):
        read_tokens(file)


def test_the_guard_asks_for_token_role_and_rate(tmp_path: Path) -> None:
    clock = ManualClock()
    text = make(tmp_path, "shop", "predict")
    slow = make(tmp_path, "slow", "predict", rate=2.0, burst=2)
    guard = open_guard(tmp_path, clock, needed=True)
    assert guard is not None
    assert status(guard, text) == 200
    for wrong in (None, "x", text + "x", text[:-1], "mdy..x", "mdy.shop.", text.upper()):
        assert status(guard, wrong) == 401
    for header in ("", "Bearer", f"Basic {text}", text, f"Bearer  {text} x"):
        with pytest.raises(RequestError) as caught:
            guard.allow(header, "predict")
        assert caught.value.status == 401
    assert guard.allow(f"bearer {text}", "predict").name == "shop"
    assert [status(guard, text, role) for role in ("feedback", "operate", None)] == [403, 403, 200]
    assert [status(guard, slow) for _ in range(3)] == [200, 200, 429]
    with pytest.raises(RequestError) as caught:
        guard.allow(f"Bearer {slow}", "predict")
    assert caught.value.retry_after == pytest.approx(0.5)
    clock.advance(0.5)
    assert [status(guard, slow) for _ in range(2)] == [200, 429]


def test_the_guard_sees_changes_and_survives_a_damaged_file(tmp_path: Path) -> None:
    clock = ManualClock()
    text = make(tmp_path, "shop", "predict")
    guard = Guard(TokenFile(token_path(tmp_path)), clock)
    other = make(tmp_path, "late", "predict")
    assert status(guard, other) == 401
    clock.advance(1)
    assert status(guard, other) == 200
    remove_token(token_path(tmp_path), "shop")
    clock.advance(1)
    assert status(guard, text) == 401
    token_path(tmp_path).write_text("{")
    clock.advance(1)
    assert (status(guard, other), status(guard, text)) == (200, 401)
    token_path(tmp_path).unlink()
    clock.advance(1)
    assert status(guard, other) == 401


def test_workers_share_a_rate(tmp_path: Path) -> None:
    text = make(tmp_path, "shop", "predict", rate=8.0, burst=8)
    guard = open_guard(tmp_path, ManualClock(), needed=True, workers=4)
    assert guard is not None
    assert [status(guard, text) for _ in range(4)] == [200, 200, 429, 429]


def test_no_guard_where_none_is_needed(tmp_path: Path) -> None:
    assert open_guard(tmp_path, ManualClock(), needed=False) is None
    with pytest.raises(ServeError, match="modelyard tokens add"):
        open_guard(tmp_path, ManualClock(), needed=True)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.1, 1e4), st.integers(1, 50), st.lists(st.floats(0, 3), max_size=60))
def test_a_bucket_never_gives_more_than_its_rate(rate: float, burst: int, pauses: list[float]) -> None:
    bucket = Bucket(rate, burst, 0.0)
    now = 0.0
    taken = 0
    for pause in pauses:
        now += pause
        wait = bucket.take(now)
        taken += wait == 0
        assert 0 <= wait <= 1 / rate + 1e-9
        assert taken <= burst + rate * now + 1e-6


def test_every_path_has_a_role() -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/ping"):
        assert role_of("GET", path) == "open"
    for path in ("/metrics", "/v2/health", "/v2/repository/models/a/load", "/v2/repository/models/a/unload"):
        assert role_of("POST", path) == role_of("GET", path) == "operate"
    for path in ("/predict/a", "/v2/models/a/infer", "/v2/models/a/versions/1/infer", "/v1/models/a:predict",
                 "/invocations", "/anything"):  # fmt: skip
        assert role_of("POST", path) == role_of("PUT", path) == "predict"
    assert role_of("GET", "/anything") == role_of("POST", "/v2/repository/index") == "any"
    # What decorates a path gives no more than the path.
    for path in ("/v2/health/live/", "/v2/health/live/../../predict", "//v2/health/live", "/ping/x"):
        assert role_of("POST", path) == "predict"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert COMMAND_ROLES == ROLES

    class Project:
        state = tmp_path

    monkeypatch.setattr("modelyard.cli.tokens.the_project", lambda folder: Project)
    tokens = command("tokens", "")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(tokens, list(arguments), catch_exceptions=False)

    assert "no token" in run("list").stdout
    made = run("add", "shop", "--role", "predict", "--role", "feedback", "--rate", "5")
    text = made.stdout.strip()
    assert text.startswith("mdy.shop.") and "only time" in made.stderr and text not in made.stderr
    assert read_tokens(token_path(tmp_path))[0].matches(text)
    given = json.loads(run("add", "desk", "--role", "operate", "--json").stdout)
    assert given["roles"] == ["operate"] and given["token"].startswith("mdy.desk.")
    listed = run("list").stdout + run("list", "--json").stdout
    assert "5/s" in listed and "desk" in listed
    assert text not in listed and "sha256" not in listed
    assert json.loads(run("remove", "shop", "--json").stdout) == {"removed": "shop"}
    assert run("add", "x", "--role", "admin").exit_code == 2
    with pytest.raises(ServeError, match="name"):
        run("add", "../x")
    assert oct(token_path(tmp_path).stat().st_mode)[-3:] == "600"
