"""The reference of serving is true: its requests run, its tables are the code's."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from modelyard.release.policy import Single
from modelyard.serve import openapi_dialects, openapi_operation, sagemaker_dialect
from modelyard.serve.access.token import Role
from modelyard.serve.access_rules import role_of
from modelyard.serve.encoding import SUPPORTED
from modelyard.serve.fields import HEADER_LENGTH
from modelyard.serve.metrics import Family, Metrics
from modelyard.serve.options import Limits, ServeOptions
from modelyard.serve.service import start, stop

HERE = Path(__file__).parents[2]
PAGE = (HERE / "docs" / "reference" / "serving.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```sh\n(curl .*?)^```\n\n^```json\n(.*?)^```$", PAGE, re.M | re.S)
ADDRESS = "http://127.0.0.1:8080"
MADE_UP = {"release"}
"""Fields whose values are made anew by each service."""


def table_after(heading: str) -> list[list[str]]:
    text = PAGE.partition(f"{heading}\n")[2]
    rows = re.search(r"(?:^\|.*\n)+", text, re.M)
    assert rows is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[0].splitlines()][2:]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, serving_yard: Any) -> Iterator[str]:
    """A service with the page's endpoint."""
    folder = tmp_path_factory.mktemp("page")
    place = serving_yard.Yard.make(folder)
    place.set("prices", Single(place.release("mixed", serving_yard.mixed()).digest))
    state = folder / "state"
    running = start(ServeOptions(state=state, root=folder / "store", endpoints=("prices",), keys=place.keys,
                                 port=0))  # fmt: skip
    yield running.url
    stop(state)


def same(documented: Any, given: Any, *, generated: bool, name: str = "") -> None:
    """The answer has the documented fields, types and values, but for those that are made up."""
    assert type(documented) is type(given) or {type(documented), type(given)} == {int, float}, name
    if isinstance(documented, dict):
        assert list(documented) == list(given)
        for key, value in documented.items():
            same(value, given[key], generated=generated, name=key)
    elif isinstance(documented, list):
        assert len(documented) == len(given), name
        for one, other in zip(documented, given, strict=True):
            same(one, other, generated=generated, name=name)
    elif isinstance(documented, float):
        assert given == pytest.approx(documented, rel=1e-5), name
    elif name not in MADE_UP and not (name == "id" and generated):
        assert given == documented, name


def test_the_requests_are_answered_as_shown(url: str) -> None:
    assert len(EXAMPLES) == len(re.findall(r"^```sh\ncurl", PAGE, re.M)) >= 7
    for asked, answered in EXAMPLES:
        words = shlex.split(asked.replace(ADDRESS, url))
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        documented = json.loads(answered)
        same(documented, json.loads(done.stdout), generated='"id"' not in asked)


def paths() -> list[tuple[str, str, str]]:
    """Method, path with names filled in, and role, of each row of the table of paths."""
    found = []
    for method, path, _, role in table_after("## Paths"):
        filled = path.strip("`").replace("ENDPOINT", "prices").replace("VERSION", "1")
        found.append((method, filled, role))
    return found


def test_every_path_is_there_with_its_role(url: str) -> None:
    for method, path, role in paths():
        assert role_of(method, path) == role, path
        answer = httpx.request(method, url + path)
        # An empty body is a wrong one, and says so; a path that leads nowhere would say 404 or 405.
        assert answer.status_code in (200, 400), (path, answer.text)
        other = "DELETE" if method == "GET" else "GET"
        refused = httpx.request(other, url + path)
        assert refused.status_code == 405 and method in refused.headers["allow"], path
        if path.endswith("/unload"):
            assert httpx.post(url + path.replace("unload", "load")).status_code == 200


def test_every_described_path_is_in_the_table(url: str) -> None:
    described = httpx.get(url + "/openapi.json").json()["paths"]
    known = {path.replace("models/prices/load", "models/{name}/load")
             .replace("models/prices/unload", "models/{name}/unload") for _, path, _ in paths()}  # fmt: skip
    assert set(described) <= known


def test_the_limits_are_the_codes() -> None:
    documented = {row[0].strip("`"): float(row[1]) for row in table_after("## Limits")}
    assert documented == {name: float(value) for name, value in asdict(Limits()).items()}


def test_the_metrics_are_the_codes() -> None:
    documented = {
        row[0].strip("`"): (row[1], tuple(re.findall(r"`(\w+)`", row[2])))
        for row in table_after("## Metrics")
    }
    families = [item for item in vars(Metrics()).values() if isinstance(item, Family)]
    assert documented == {family.name: (family.kind, family.labels) for family in families}


def test_every_status_is_explained() -> None:
    documented = {int(row[0]) for row in table_after("## Statuses")}
    source = "".join(path.read_text() for path in (HERE / "src" / "modelyard" / "serve").rglob("*.py"))
    # 499 is what an access log says of a client that has gone; it is never sent.
    used = {int(status) for status in re.findall(r"\bstatus=(\d{3})\b", source)} - {499}
    assert used <= documented and {200, 400, 431} <= documented


def test_headers_encodings_and_roles_are_named() -> None:
    headers = {
        name.lower() for row in table_after("## Headers") for name in re.findall(r"`([\w-]+)`", row[0])
    }
    ours = {openapi_operation.TIMEOUT.lower(), openapi_dialects.TARGET.lower(), HEADER_LENGTH,
            sagemaker_dialect.INFERENCE_ID}  # fmt: skip
    assert ours | {"retry-after", "traceparent", "content-encoding"} <= headers
    encodings = PAGE.partition("| `Content-Encoding` | both |")[2].partition(";")[0]
    assert set(re.findall(r"`(\w+)`", encodings)) == set(SUPPORTED)
    assert {row[3] for row in table_after("## Paths")} == {*get_args(Role), "any", "open"}


@pytest.fixture(scope="session")
def serving_yard(serve_on: Callable[..., Any]) -> Any:
    """The module with the benchmark's releases, which the service's tests have loaded."""
    import sys

    return sys.modules["serve_yard"]
