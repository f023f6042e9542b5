"""Signatures over a set of files in the OpenSSF model signing format (v1.0), made with Ed25519."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelyard.release.key import SigningKey, TrustedKey


def sign(files: Mapping[str, bytes], key: SigningKey, *, name: str) -> bytes:
    """The signature file (`model.sig`) for these files, signature excluded."""
    raise NotImplementedError


def verify(files: Mapping[str, bytes], signature: bytes, trusted: Sequence[TrustedKey]) -> TrustedKey:
    """The trusted key that signed exactly these files; raises `BundleTampered` naming the file otherwise."""
    raise NotImplementedError
