from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from modelyard.core.errors import ReleaseError
from modelyard.release.key import PRIVATE, TRUSTED, signing_key, trust, trusted_keys


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    assert stat.S_IMODE((tmp_path / PRIVATE).stat().st_mode) == 0o600
    assert signing_key(tmp_path).public == key.public
    assert trusted_keys(tmp_path) == (key.public,)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PRIVATE, TRUSTED]


def test_the_private_key_never_shows(tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    assert repr(key) == "SigningKey()"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    signing_key(tmp_path)
    (tmp_path / PRIVATE).chmod(mode)
    with pytest.raises(ReleaseError, match=r"read by others.*chmod 600"):
        signing_key(tmp_path)


def test_a_linked_key_is_refused(tmp_path: Path) -> None:
    signing_key(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / PRIVATE).symlink_to(tmp_path / "a" / PRIVATE)
    with pytest.raises(ReleaseError, match="cannot be opened"):
        signing_key(tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / PRIVATE).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ReleaseError, match="cannot be opened"):
        signing_key(tmp_path / "c")
    assert not (tmp_path / "nowhere").exists()


def test_other_kinds_of_key_are_refused(tmp_path: Path) -> None:
    nist = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / PRIVATE
    path.touch(mode=0o600)
    path.write_bytes(nist.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ReleaseError, match="another kind"):
        signing_key(tmp_path)
    with pytest.raises(ReleaseError, match="another kind"):
        trust(tmp_path, nist.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    path.write_bytes(b"not a key")
    with pytest.raises(ReleaseError, match="not a private key"):
        signing_key(tmp_path)
    (tmp_path / TRUSTED).mkdir()
    (tmp_path / TRUSTED / "x.pem").write_bytes(b"not a key")
    with pytest.raises(ReleaseError, match=r"x\.pem.*not a public key"):
        trusted_keys(tmp_path)


def test_a_folder_without_keys_trusts_nobody(tmp_path: Path) -> None:
    assert trusted_keys(tmp_path / "absent") == ()


def test_trusting_again_changes_nothing(tmp_path: Path) -> None:
    key = signing_key(tmp_path / "a").public
    assert trust(tmp_path / "b", key.pem) == trust(tmp_path / "b", key.pem) == key
    assert trusted_keys(tmp_path / "b") == (key,)


def _first_use(folder: str) -> str:
    return signing_key(Path(folder)).public.hint


def test_processes_that_come_first_at_once_get_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        hints = set(pool.map(_first_use, [str(tmp_path)] * 16, chunksize=1))
    assert len(hints) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [PRIVATE, TRUSTED]
