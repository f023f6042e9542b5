"""A real PostgreSQL server for tests and benchmarks, from Debian's packages, on a free port.

    python tools/postgres.py install     installs the server where it is missing
    python tools/postgres.py run         runs one until interrupted and prints its URL

Everything it writes lies in a temporary folder that is gone when it stops. It is no server for data that
matters: it does not sync to disk.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.core.files import file_lock

INSTALL_LOCK = Path(tempfile.gettempdir()) / "modelyard-postgres-install.lock"
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.conf")
START_SECONDS = 60.0


class NoPostgres(Exception):
    """The server cannot be had; the message says what to do."""


def binaries() -> Path | None:
    """The folder of the newest server's programs, or None when none is installed."""
    found = list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return max(found, key=lambda path: int(path.parts[-3])).parent
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    return Path(initdb).parent if initdb and postgres else None


def installed() -> Path:
    """The same, after installing Debian's package when it is missing (one process at a time does)."""
    found = binaries()
    if found is not None:
        return found
    by_hand = "install it by hand (Debian: apt-get install postgresql) and run again"
    with file_lock(INSTALL_LOCK, wait=600.0, what="the installation of PostgreSQL"):
        found = binaries()
        if found is not None:
            return found
        apt = shutil.which("apt-get")
        if apt is None or os.geteuid() != 0:
            raise NoPostgres(
                f"PostgreSQL's server is not installed and this user cannot install it: {by_hand}"
            )
        # Debian would set up and start a server of its own on the usual port.
        if not NO_CLUSTER.exists():
            NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
            NO_CLUSTER.write_text("create_main_cluster = false\n")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "postgresql"]):
            done = subprocess.run(
                [apt, "-q", *arguments], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise NoPostgres(f"apt-get {arguments[0]} failed: {done.stderr[-500:]}; {by_hand}")
    found = binaries()
    if found is None:
        raise NoPostgres(f"apt-get installed no server under /usr/lib/postgresql: {by_hand}")
    return found


class Server:
    """A running server. `url` is its SQLAlchemy URL, password included."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        # initdb and postgres refuse to run as root.
        self._user = _unprivileged() if os.geteuid() == 0 else None
        self.password = "s3cret-" + secrets.token_hex(8)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://modelyard:{self.password}@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        """Makes the server's data folder."""
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        password = self._folder / "password"
        password.write_text(self.password)
        if self._user is not None:
            shutil.chown(password, self._user)
        done = subprocess.run(
            [
                self._programs / "initdb", "--pgdata", self._folder / "data", "--username", "modelyard",
                "--auth", "scram-sha-256", "--pwfile", password, "--encoding", "UTF8", "--locale", "C.UTF-8",
                "--no-sync",
            ],
            user=self._user, cwd=self._folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise NoPostgres(f"initdb failed: {done.stderr[-1000:]}")

    def start(self) -> None:
        """Starts the server, on the port it had or a free one, and waits until it accepts connections."""
        self.port = self.port or _free_port()
        log = (self._folder / "log").open("ab")
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "shared_buffers": "32MB",
            "max_connections": "60",
            # Tests kill clients, never this machine: not to wait for the disk makes them quick.
            "fsync": "off",
            "full_page_writes": "off",
        }
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self._folder / "data"]
            + [part for name, value in options.items() for part in ("-c", f"{name}={value}")],
            user=self._user,
            cwd=self._folder,
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + START_SECONDS
        ready = [
            self._programs / "pg_isready",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-d",
            "postgres",
        ]
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise NoPostgres(f"the server did not start: {(self._folder / 'log').read_text()[-1000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops the server at once; `start` can start it again."""
        if self._process is not None:
            # SIGINT is PostgreSQL's fast shutdown: it ends sessions instead of waiting for them.
            self._process.send_signal(2)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


@contextmanager
def running() -> Iterator[Server]:
    """A server that is stopped and removed when the block ends. Raises `NoPostgres` with what to do."""
    programs = installed()
    # Not under pytest's folder: the unprivileged user must be able to reach it.
    folder = Path(tempfile.mkdtemp(prefix="modelyard-postgres-"))
    server = Server(programs, folder)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise NoPostgres("PostgreSQL refuses to run as root and there is no user postgres or nobody: add one")


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def main(arguments: list[str]) -> int:
    if arguments == ["install"]:
        print(installed())
        return 0
    if arguments == ["run"]:
        with running() as server:
            print(server.url, flush=True)
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NoPostgres as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
