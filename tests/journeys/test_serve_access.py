"""Who gets in: tokens, roles, rates, TLS, pages of other origins; and what operators may do."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelyard.core.errors import ServeError
from modelyard.core.poll import until
from modelyard.serve.access.token import Role, new_token
from modelyard.serve.access.token_file import add_token, remove_token, token_path
from modelyard.serve.options import Limits

NOW = "2026-01-01T00:00:00.000000Z"
ROWS = {"rows": [{"size": 3, "colour": "green"}]}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Texts(dict[str, str]):
    """Makes tokens in a state folder, and keeps their texts as a client would."""

    def make(self, state: Path, **roles: tuple[Role, ...]) -> None:
        for name, given in roles.items():
            token, self[name] = new_token(name, given, created=NOW)
            add_token(token_path(state), token)

    def header(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self[name]}"}


def metric(url: str, pattern: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(pattern, line))


def test_other_machines_need_a_token_and_its_role(serving: Callable[..., Any]) -> None:
    texts = Texts()

    def before(state: Path) -> None:
        texts.make(state, shop=("predict",), labels=("feedback",), desk=("operate", "predict"))

    made = serving(host="0.0.0.0", exposed=True, before=before, access_log=True)  # noqa: S104 - asked for
    url = made.url
    with httpx.Client(base_url=url) as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}
        for method, path in (("POST", "/predict/mixed"), ("GET", "/v2/models/mixed"), ("GET", "/metrics"),
                             ("GET", "/nothing"), ("POST", "/v2/repository/models/mixed/unload"),
                             ("POST", "/feedback/mixed"), ("GET", "/openapi.json"),
                             ("GET", "/v2/health")):  # fmt: skip
            answer = client.request(method, path, json=ROWS if method == "POST" else None)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
        wrong = texts["shop"][:-2] + ("AA" if not texts["shop"].endswith("AA") else "BB")
        for value in (f"Bearer {wrong}", "Bearer x", "Basic abc", "Bearer " + "a" * 3_000, texts["shop"],
                      f"Bearer {texts['shop']}.x", "Bearer mdy.nobody." + "a" * 43):  # fmt: skip
            refused = client.post("/predict/mixed", json=ROWS, headers={"Authorization": value})
            assert refused.status_code == 401 and value[7:] not in refused.text
        assert client.post("/predict/mixed", json=ROWS, headers=texts.header("shop")).status_code == 200
        told = {"feedback": [{"id": "a", "value": 1.0}]}
        statuses = {
            (name, path): client.request(method, path, json=body, headers=texts.header(name)).status_code
            for name in ("shop", "labels", "desk")
            for method, path, body in (
                ("POST", "/predict/mixed", ROWS), ("POST", "/feedback/mixed", told),
                ("GET", "/metrics", None),
                ("GET", "/v2/models/mixed", None), ("POST", "/v2/repository/models/mixed/load", {}),
                ("POST", "/v2/repository/index", {}), ("GET", "/openapi.json", None),
            )
        }  # fmt: skip
        allowed = {
            "shop": {"/predict/mixed"}, "labels": {"/feedback/mixed"},
            "desk": {"/predict/mixed", "/metrics", "/v2/repository/models/mixed/load"},
        }  # fmt: skip
        for (name, path), status in statuses.items():
            everyone = path in ("/v2/models/mixed", "/v2/repository/index", "/openapi.json")
            assert status == (200 if everyone or path in allowed[name] else 403), (name, path)
        assert "security" in client.get("/openapi.json", headers=texts.header("shop")).json()
        # Taken back: refused while the service runs.
        remove_token(token_path(made.state), "shop")
        headers = texts.header("shop")
        assert until(lambda: client.post("/predict/mixed", json=ROWS, headers=headers).status_code == 401, 3)
    # What is not allowed is refused before its body has come.
    with socket.create_connection(made.address, timeout=5) as raw:
        raw.sendall(b"POST /predict/mixed HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 401")
    log = made.log()
    lines = [json.loads(line) for line in log.splitlines()]
    asked = [line for line in lines if line["message"] == "request"]
    assert any((line["route"], line["status"], line["endpoint"]) == ("/predict/{name}", 200, "mixed")
               for line in asked if "endpoint" in line)  # fmt: skip
    everything = log + "".join(file.read_text() for file in made.state.glob("*.json"))
    assert not any(text in everything or text[-20:] in everything for text in texts.values())
    assert "green" not in log
    assert token_path(made.state).stat().st_mode & 0o777 == 0o600


def test_without_tokens_it_does_not_start(serving: Callable[..., Any]) -> None:
    with pytest.raises(ServeError, match="modelyard tokens add"):
        serving("mixed", host="0.0.0.0", exposed=True)  # noqa: S104 - asked for
    with pytest.raises(ServeError, match="modelyard tokens add"):
        serving("mixed", tokens=True)

    def careless(state: Path) -> None:
        Texts().make(state, a=("predict",))
        token_path(state).chmod(0o644)

    with pytest.raises(ServeError, match="chmod 600"):
        serving("mixed", tokens=True, before=careless)


def test_a_rate_is_kept(serving: Callable[..., Any]) -> None:
    texts = Texts()

    def before(state: Path) -> None:
        token, texts["slow"] = new_token("slow", ("predict",), created=NOW, rate=0.5, burst=3)
        add_token(token_path(state), token)
        texts.make(state, fast=("predict",))

    made = serving("mixed", tokens=True, before=before)
    with httpx.Client(base_url=made.url) as client:
        answers = [client.post("/predict/mixed", json=ROWS, headers=texts.header("slow")) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 5
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 2
        assert client.post("/predict/mixed", json=ROWS, headers=texts.header("fast")).status_code == 200


def test_tls_with_unmodified_clients(
    serving: Callable[..., Any], tmp_path: Path, certificate: Callable[[Path], tuple[Path, Path]]
) -> None:
    import tritonclient.http as triton

    chain, key = certificate(tmp_path)
    texts = Texts()
    limits = Limits(header_seconds=1.0)
    made = serving(
        host="0.0.0.0", tls_certificate=chain, tls_key=key, limits=limits,  # noqa: S104 - asked for
        before=lambda state: texts.make(state, shop=("predict",)),
    )  # fmt: skip
    assert made.url.startswith("https://")
    context = ssl.create_default_context(cafile=str(chain))
    answer = httpx.post(f"{made.url}/predict/mixed", json=ROWS, headers=texts.header("shop"), verify=context)
    assert answer.json()["predictions"][0]["prediction"] == 4.0
    with triton.InferenceServerClient(
        made.url.removeprefix("https://"), ssl=True, ssl_context_factory=lambda: context
    ) as client:
        tensor = triton.InferInput("x", [1, 64], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 64), np.float32))
        found = client.infer(
            "mlp", [tensor], headers=texts.header("shop"), request_compression_algorithm="gzip"
        )
        assert found.as_numpy("probabilities").shape == (1, 10)
    curl = subprocess.run(["curl", "-sS", "--cacert", chain, "-H", f"Authorization: Bearer {texts['shop']}",
                           "--compressed", "-d", json.dumps(ROWS), f"{made.url}/predict/mixed"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert json.loads(curl.stdout)["endpoint"] == "mixed"
    with pytest.raises(httpx.HTTPError):
        httpx.get(made.url.replace("https", "http") + "/v2/health/live")
    # Connections that never finish their handshake are cut; one that spoke is not.
    idle = [socket.create_connection(made.address, timeout=8) for _ in range(3)]
    idle[1].sendall(b"\x16\x03\x01\x02\x00" + b"a" * 20)
    with httpx.Client(verify=context, headers=texts.header("shop")) as client:
        began = time.monotonic()
        for waiting in idle:
            assert client.get(f"{made.url}/v2/models/mlp").status_code == 200
            with suppress(ConnectionError):
                assert waiting.recv(10) in (b"", b"\x15\x03\x03\x00\x02\x022")
            waiting.close()
        assert time.monotonic() - began < 5


def test_tls_that_cannot_be_used_is_said(
    serving: Callable[..., Any], tmp_path: Path, certificate: Callable[[Path], tuple[Path, Path]]
) -> None:
    chain, key = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = certificate(tmp_path / "other")
    for pair, word in (((chain, other), "work together"), ((chain, tmp_path / "none"), "no such file"),
                       ((key, chain), "private key|read the private key")):  # fmt: skip
        with pytest.raises(ServeError, match=word):
            serving("mixed", tls_certificate=pair[0], tls_key=pair[1])
    key.chmod(0o640)
    with pytest.raises(ServeError, match="chmod 600"):
        serving("mixed", tls_certificate=chain, tls_key=key)


def test_a_page_of_another_origin_changes_nothing(serving: Callable[..., Any]) -> None:
    made = serving()
    change = f"{made.url}/v2/repository/models/mixed/unload"
    told = {"feedback": [{"id": "a", "value": 1.0}]}
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"},
                    {"Host": "evil.example", "Origin": "http://evil.example"}, {"Host": "evil.example"},
                    {"Origin": "http://[", "Host": "["}):  # fmt: skip
        assert httpx.post(change, headers=headers).status_code == 403
    assert httpx.post(f"{made.url}/feedback/mixed", json=told, headers={"Origin": "null"}).status_code == 403
    own = {"Origin": made.url, "Sec-Fetch-Site": "same-origin"}
    assert httpx.post(f"{made.url}/feedback/mixed", json=told, headers=own).status_code == 200
    assert httpx.post(change, headers=own).status_code == 200


def test_load_and_unload_in_all_workers(serving: Callable[..., Any]) -> None:
    made = serving("mlp", known=("mlp", "mixed"), workers=2)

    def statuses(path: str) -> set[int]:
        # Each on a connection of its own, so that both workers are asked.
        return {httpx.post(f"{made.url}{path}", json=ROWS).status_code for _ in range(12)}

    def states() -> dict[str, str]:
        index = httpx.post(f"{made.url}/v2/repository/index", json={"ready": True}).json()
        return {item["name"]: item["state"] for item in index}

    assert statuses("/predict/mixed") == {404} and states() == {"mlp": "READY"}
    assert httpx.post(f"{made.url}/v2/repository/models/mixed/load").status_code == 200
    assert until(lambda: statuses("/predict/mixed") == {200})
    assert states() == {"mlp": "READY", "mixed": "READY"}
    assert httpx.post(f"{made.url}/v2/repository/models/mlp/unload", json={"parameters": {
        "unload_dependents": True}}).status_code == 200  # fmt: skip
    assert until(lambda: statuses("/v2/models/mlp/infer") == {404})
    assert httpx.get(f"{made.url}/v2/health/ready").status_code == 200
    for name in ("nothing", "..%2f..%2fetc", "A", "x" * 200):
        answer = httpx.post(f"{made.url}/v2/repository/models/{name}/load")
        # A path that was decoded to several parts leads nowhere at all.
        assert answer.status_code == (405 if "%" in name else 404), answer.text
        assert httpx.get(f"{made.url}/v2/health/ready").status_code == 200
    body = {"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}}
    assert httpx.post(f"{made.url}/v2/repository/models/mlp/load", json=body).status_code == 400
    assert httpx.post(f"{made.url}/v2/repository/models/mlp/unload").status_code == 404
    assert httpx.post(f"{made.url}/v2/repository/index", json={"ready": "yes"}).status_code == 400
    assert httpx.post(f"{made.url}/v2/repository/index", json={"raedy": True}).status_code == 400
    assert httpx.get(f"{made.url}/v2/repository/index").status_code == 405
    # The store goes away: what is served stays, nothing is loaded.
    shutil.rmtree(made.options.root)
    assert until(lambda: not httpx.get(f"{made.url}/v2/health").json()["store"]["reachable"])
    assert httpx.post(f"{made.url}/v2/repository/models/mlp/load").status_code == 503
    assert statuses("/predict/mixed") == {200}


def test_a_trace_is_continued(serving: Callable[..., Any]) -> None:
    made = serving("mixed", access_log=True)
    answer = httpx.post(f"{made.url}/predict/mixed", json=ROWS, headers={"traceparent": TRACE})
    version, trace, span, flags = answer.headers["traceresponse"].split("-")
    assert (version, trace, flags) == ("00", TRACE.split("-")[1], "01") and span != TRACE.split("-")[2]
    for wrong in ("00-" + "0" * 32 + "-b7ad6b7169203331-01", "x", "", "ff" + TRACE[2:], TRACE + "-more"):
        answer = httpx.post(f"{made.url}/predict/mixed", json=ROWS, headers={"traceparent": wrong})
        assert answer.status_code == 200 and "traceresponse" not in answer.headers
    assert until(lambda: trace in made.log())
    line = next(json.loads(line) for line in made.log().splitlines() if trace in line)
    assert (line["trace"], line["span"], line["route"]) == (trace, span, "/predict/{name}")


def test_what_nobody_waits_for_is_not_run(serving: Callable[..., Any]) -> None:
    """Clients that leave, and timeouts that pass, while a slow model has a queue."""
    made = serving("cnn", known=("cnn",))
    values = made.module.rows_of("cnn", 16, seed=3)["x"]
    head = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [16, 3, 64, 64],
                        "parameters": {"binary_data_size": values.nbytes}}]}  # fmt: skip
    text = json.dumps(head).encode()
    request = (b"POST /v2/models/cnn/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
               b"Inference-Header-Content-Length: %d\r\n\r\n" % (len(text) + values.nbytes, len(text))
               ) + text + values.tobytes()  # fmt: skip
    body = text + values.tobytes()
    infer = f"{made.url}/v2/models/cnn/infer"
    headers = {"inference-header-content-length": str(len(text))}
    statuses = set()

    def gone() -> bool:
        """Ten ask, one with no patience asks behind them, and eight of the ten leave."""
        connections = [socket.create_connection(made.address, timeout=30) for _ in range(10)]
        for connection in connections:
            connection.sendall(request)
        hasty = client.post(infer, content=body, headers={**headers, "x-request-timeout-ms": "1"})
        statuses.add(hasty.status_code)
        for connection in connections[2:]:
            connection.close()
        for connection in connections[:2]:
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
            connection.close()
        return metric(made.url, r'modelyard_shed_total\{.*why="gone"') >= 1

    with httpx.Client(timeout=30) as client:
        # On a busy machine all ten may be answered before this process has its turn again.
        assert until(lambda: gone() and bool(statuses & {503, 504}), seconds=60.0)
    assert statuses <= {200, 503, 504}
    assert httpx.get(f"{made.url}/v2/health/ready").status_code == 200
    for wrong in ("0", "-1", "1.5", "x", "1e3", "9" * 30):
        answer = httpx.post(infer, content=body, headers={**headers, "x-request-timeout-ms": wrong})
        assert answer.status_code == 400 and "X-Request-Timeout-Ms" in answer.text
