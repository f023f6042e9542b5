"""Services of the benchmark's releases, started for a test and stopped after it."""

from __future__ import annotations

import importlib.util
import ipaddress
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.serve.options import ServeOptions
from modelyard.serve.service import Running, start, stop


def _yard() -> Any:
    """The benchmark's releases, which the tests import as `serve_yard`: both serve the same models."""
    path = Path(__file__).parents[2] / "benchmarks" / "serve_yard.py"
    spec = importlib.util.spec_from_file_location("serve_yard", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve_yard"] = module
    spec.loader.exec_module(module)
    return module


_YARD = _yard()


@dataclass(frozen=True)
class Serving:
    """A service and what it serves."""

    running: Running
    state: Path
    options: ServeOptions
    yard: Any
    module: Any

    @property
    def url(self) -> str:
        return self.running.url

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.partition("://")[2].rpartition(":")
        return host, int(port)

    def log(self) -> str:
        return self.running.log.read_text()


@pytest.fixture(scope="session")
def yard_module() -> Any:
    """The module that makes releases."""
    return _yard()


@pytest.fixture(scope="session")
def serve_on() -> Callable[..., Serving]:
    """Makes a yard in a folder and starts a service before it; `stop_serving` ends it."""

    def begin(folder: Path, *endpoints: str, before: Callable[[Path], None] | None = None,
              known: tuple[str, ...] = ("mlp", "mixed"), **options: Any) -> Serving:  # fmt: skip
        yard = _YARD.Yard.make(folder)
        yard.serve(known)
        state = folder / "state"
        state.mkdir()
        if before is not None:
            before(state)
        given = ServeOptions(
            state=state, root=folder / "store", endpoints=endpoints or known, keys=yard.keys,
            **({"port": 0} | options),
        )  # fmt: skip
        return Serving(start(given), state, given, yard, _YARD)

    return begin


@pytest.fixture
def serving(tmp_path: Path, serve_on: Callable[..., Serving]) -> Iterator[Callable[..., Serving]]:
    """`serve_on` in the test's own folder; what was started is stopped."""
    begun: list[Serving] = []
    numbers = count()

    def begin(*endpoints: str, **options: Any) -> Serving:
        begun.append(serve_on(tmp_path / f"yard-{next(numbers)}", *endpoints, **options))
        return begun[-1]

    yield begin
    for made in begun:
        stop(made.state)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    private.chmod(0o600)
    return chain, private


@pytest.fixture
def certificate() -> Callable[[Path], tuple[Path, Path]]:
    return _certificate
