"""A release as bytes: the fixed list of signed files, written to and read from a folder.

The order is always the same: read within bounds, check names, check the signature, and only then parse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modelyard.core.digest import Digest, digest_bytes, digest_json
from modelyard.release.key import TrustedKey

SIGNATURE = "model.sig"
LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "release.json": 1 << 20,
        "model.onnx": 2 << 30,
        "contract.json": 8 << 20,
        "profile.json": 64 << 20,
        "requirements.json": 1 << 20,
        "evidence.jsonl": 64 << 20,
        "answers.json": 64 << 20,
        SIGNATURE: 1 << 20,
    }
)
"""Every file of a bundle, all of them required, with the most bytes that are read of it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of one release by name."""

    files: Mapping[str, bytes]

    @property
    def digests(self) -> dict[str, Digest]:
        """The digest of each file."""
        return {name: digest_bytes(data) for name, data in sorted(self.files.items())}

    @property
    def digest(self) -> Digest:
        """The release's digest: over names and digests of all files but the signature, so it can be signed by anyone."""
        return digest_json([[name, digest] for name, digest in self.digests.items() if name != SIGNATURE])


def write_bundle(folder: Path, bundle: Bundle) -> Path:
    """Writes the files into a new folder."""
    raise NotImplementedError


def read_bundle(folder: Path, keys: Sequence[TrustedKey]) -> Bundle:
    """Reads a folder and returns the bundle only if a trusted key signed exactly these files."""
    raise NotImplementedError


def verify_bundle(bundle: Bundle, keys: Sequence[TrustedKey]) -> TrustedKey:
    """Checks names, sizes and signature; the key that signed."""
    raise NotImplementedError


Lines = Sequence[Mapping[str, Any]]
