"""The gRPC engine against connections that are secure, foul, or gone: what it holds it lets go."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.poll import until

grpc = pytest.importorskip("grpc")
SERVICE = "/inference.GRPCInferenceService/"
# A proxy from the environment would take the traffic elsewhere.
DIRECT = [("grpc.enable_http_proxy", 0)]
LIVE = b"\x08\x01"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def request(made: Any, kind: str, items: int) -> bytes:
    from modelyard.serve.grpc.messages import messages

    message = messages()["ModelInferRequest"](model_name=kind)
    for name, values in made.module.rows_of(kind, items, seed=3).items():
        message.inputs.add(name=name, datatype="FP32", shape=values.shape)
        message.raw_input_contents.append(values.tobytes())
    return bytes(message.SerializeToString())


def test_over_tls_and_not_in_open_text(
    serving: Callable[..., Any], tmp_path: Path, certificate: Callable[[Path], tuple[Path, Path]]
) -> None:
    chain, key = certificate(tmp_path)
    made = serving("mlp", grpc_port=free_port(), tls_certificate=chain, tls_key=key)
    address = f"127.0.0.1:{made.options.grpc_port}"
    # Somebody who connects and says nothing must not be in the way.
    with socket.create_connection(("127.0.0.1", made.options.grpc_port)):
        credentials = grpc.ssl_channel_credentials(chain.read_bytes())
        with grpc.secure_channel(address, credentials, options=DIRECT) as opened:
            assert opened.unary_unary(SERVICE + "ServerLive")(b"", timeout=20) == LIVE
            assert opened.unary_unary(SERVICE + "ModelInfer")(request(made, "mlp", 2), timeout=20)
        with grpc.insecure_channel(address, options=DIRECT) as opened, pytest.raises(grpc.RpcError):
            opened.unary_unary(SERVICE + "ServerLive")(b"", timeout=2)


def test_foul_connections_do_not_disturb(serving: Callable[..., Any]) -> None:
    made = serving("mlp", grpc_port=free_port())
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    foul = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", os.urandom(4_096), preface, preface + os.urandom(512),
            preface + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", b""]  # fmt: skip
    held = []
    for sent in foul * 5:
        connection = socket.create_connection(("127.0.0.1", made.options.grpc_port), timeout=10)
        connection.sendall(sent)
        held.append(connection)
    with grpc.insecure_channel(f"127.0.0.1:{made.options.grpc_port}", options=DIRECT) as opened:
        for _ in range(20):
            assert opened.unary_unary(SERVICE + "ModelInfer")(request(made, "mlp", 1), timeout=20)
    for connection in held:
        connection.close()


def test_calls_that_were_dropped_are_let_go(serving: Callable[..., Any]) -> None:
    made = serving("cnn", known=("cnn",), grpc_port=free_port(), drain=60.0)
    with grpc.insecure_channel(f"127.0.0.1:{made.options.grpc_port}", options=DIRECT) as opened:
        ask = opened.unary_unary(SERVICE + "ModelInfer")
        data = request(made, "cnn", 8)
        assert ask(data, timeout=30)
        for _ in range(3):
            calls = [ask.future(data, timeout=30) for _ in range(30)]
            calls[0].result(timeout=30)
            for call in calls:
                call.cancel()
        for _ in range(30):
            # On a starved machine the answer may come before the client looks at its clock.
            with suppress(grpc.RpcError):
                ask(data, timeout=0.001)
        assert ask(data, timeout=30)
    os.kill(made.running.pid, signal.SIGTERM)
    # A call that the engine still held would keep it for the whole of `drain`.
    assert until(lambda: "ended with 0 requests open" in made.log(), seconds=40)
