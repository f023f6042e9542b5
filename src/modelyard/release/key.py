"""Keys that sign releases, and the keys that are trusted to have signed them.

A keys folder holds `signing.pem` (the private key, readable by its owner only; absent on a server) and
`trusted/*.pem` (public keys). Whoever may write into `trusted/` decides which releases load.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from modelyard.core.errors import ReleaseError
from modelyard.core.files import sync_folder, write_atomic

PRIVATE = "signing.pem"
TRUSTED = "trusted"
_PEM_MAX = 16_384


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key whose signatures are believed."""

    pem: bytes

    @property
    def hint(self) -> str:
        """What a signature names its key by: the SHA-256 of the PEM, in hex."""
        return hashlib.sha256(self.pem).hexdigest()

    def signed(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made the signature over exactly these bytes."""
        key = load_pem_public_key(self.pem)
        if not isinstance(key, Ed25519PublicKey):
            return False
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key; it never shows in `repr`."""

    _private: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> TrustedKey:
        """The key that others trust."""
        pem = self._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return TrustedKey(pem)

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of a message (64 bytes, RFC 8032; the same message gives the same bytes)."""
        return self._private.sign(message)


def signing_key(folder: Path) -> SigningKey:
    """The folder's private key, made on first use (mode 0600) and put among the trusted keys.

    Two processes that come first at once end with the same key. Raises `ReleaseError` when the file is
    readable by others, is a link, belongs to someone else, or is no Ed25519 key.
    """
    path = folder / PRIVATE
    if not path.is_symlink() and not path.exists():
        _create(path)
    key = _load(path)
    public = folder / TRUSTED / f"{key.public.hint[:16]}.pem"
    if not public.exists():
        write_atomic(public, key.public.pem)
    return key


def trusted_keys(folder: Path) -> tuple[TrustedKey, ...]:
    """The public keys in the folder's `trusted/*.pem`, sorted by file name; none without such a folder.

    Raises `ReleaseError` naming the file that is not an Ed25519 public key in PEM.
    """
    return tuple(
        parse_public(path.read_bytes(), where=str(path)) for path in sorted((folder / TRUSTED).glob("*.pem"))
    )


def trust(folder: Path, pem: bytes) -> TrustedKey:
    """Adds a public key to those that are trusted; adding it again changes nothing."""
    key = parse_public(pem, where="the key to trust")
    write_atomic(folder / TRUSTED / f"{key.hint[:16]}.pem", key.pem)
    return key


def parse_public(pem: bytes, *, where: str) -> TrustedKey:
    """A public key from PEM, in the one spelling that its hint is made of."""
    try:
        key = load_pem_public_key(pem[:_PEM_MAX])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ReleaseError("this is not a public key", where=where, rule="Ed25519 in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ReleaseError(
            "this key is of another kind", where=where, value=type(key).__name__, rule="Ed25519 in PEM"
        )
    return TrustedKey(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # A hard link fails when the name exists, as O_EXCL does, and never shows a half-written key.
        path.hardlink_to(part)
        sync_folder(path.parent)
    except FileExistsError:
        return
    except OSError as error:
        raise ReleaseError(
            "the signing key cannot be written",
            where=str(path),
            value=error.strerror,
            fix="check the folder's rights and free space",
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _load(path: Path) -> SigningKey:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise ReleaseError(
            "the signing key cannot be opened",
            where=str(path),
            value=error.strerror,
            rule="a plain file, no link",
        ) from error
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            raise ReleaseError(
                "the signing key belongs to someone else",
                where=str(path),
                rule="a plain file of the user who signs",
            )
        if facts.st_mode & 0o077:
            raise ReleaseError(
                "the signing key can be read by others",
                where=str(path),
                value=oct(stat.S_IMODE(facts.st_mode)),
                rule="mode 0600",
                fix=f"run chmod 600 {path}, and make a new key if others had access",
            )
        pem = file.read(_PEM_MAX)
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ReleaseError(
            "this is not a private key", where=str(path), rule="Ed25519 in PEM, without a password"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ReleaseError(
            "this key is of another kind", where=str(path), value=type(key).__name__, rule="Ed25519 in PEM"
        )
    return SigningKey(key)
