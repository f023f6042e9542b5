"""`Tls`: the certificate and private key with which a service proves who it is."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.errors import ServeError


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate chain and its private key, both PEM files; the key has no password."""

    certificate: Path
    key: Path

    def check(self) -> None:
        """Raises `ServeError` when the files cannot be used together, or others can read the key."""
        for path in (self.certificate, self.key):
            if not path.is_file():
                raise ServeError("there is no such file", value=str(path), rule="a PEM file")
        mode = self.key.stat().st_mode & 0o777
        if mode & 0o077:
            raise ServeError("others can read the private key", value=f"{mode:o}", where=str(self.key),
                             rule="mode 600", fix=f"chmod 600 {self.key}")  # fmt: skip
        self.context()

    def context(self) -> ssl.SSLContext:
        """What a server needs to speak TLS 1.2 and later; raises `ServeError` as `check` does."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # A password is answered with none: asking for it would stop the start.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ServeError(
                "the certificate and the private key do not work together",
                value=getattr(error, "reason", None) or str(error),
                where=f"{self.certificate}, {self.key}",
                rule="a PEM certificate chain and its private key without a password",
            ) from error
        return context
