from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import BundleTampered
from modelyard.release.bundle import Bundle, write_bundle
from modelyard.release.key import SigningKey, TrustedKey, signing_key
from modelyard.release.sign import SIGNATURE, sign, verify

FILES = {"a.txt": b"one", "b.txt": b"two"}


def test_what_was_signed_verifies_and_says_by_whom(key: SigningKey) -> None:
    signature = sign(FILES, key, name="x")
    assert verify(FILES, signature, [key.public]) == key.public
    assert verify({**FILES, SIGNATURE: signature}, signature, [key.public]) == key.public


def test_the_same_files_give_the_same_signature(key: SigningKey) -> None:
    assert sign(FILES, key, name="x") == sign(dict(reversed(FILES.items())), key, name="x")


@pytest.mark.parametrize(
    ("files", "culprit"),
    [
        ({"a.txt": b"onE", "b.txt": b"two"}, "a.txt"),
        ({"a.txt": b"one", "c.txt": b"two"}, "b.txt"),
        ({**FILES, "c.txt": b""}, "c.txt"),
        ({"a.txt": b"one"}, "b.txt"),
        ({"a.txt": b"two", "b.txt": b"one"}, "a.txt"),
        ({}, "a.txt"),
    ],
    ids=["changed", "renamed", "added", "removed", "swapped", "empty"],
)
def test_other_files_are_named(key: SigningKey, files: dict[str, bytes], culprit: str) -> None:
    with pytest.raises(BundleTampered, match=culprit) as caught:
        verify(files, sign(FILES, key, name="x"), [key.public])
    assert caught.value.where == culprit


def test_a_key_that_is_not_trusted(key: SigningKey, tmp_path: Path) -> None:
    other = signing_key(tmp_path / "other").public
    for trusted in ([other], []):
        with pytest.raises(BundleTampered, match="not trusted"):
            verify(FILES, sign(FILES, key, name="x"), trusted)


def test_a_hint_cannot_lend_trust(key: SigningKey, tmp_path: Path) -> None:
    stranger = signing_key(tmp_path / "other")
    forged = json.loads(sign(FILES, stranger, name="x"))
    forged["verificationMaterial"]["publicKey"]["hint"] = key.public.hint
    with pytest.raises(BundleTampered, match="the key did not make it"):
        verify(FILES, json.dumps(forged).encode(), [key.public, stranger.public])


def test_no_prefix_of_a_signature_verifies(key: SigningKey) -> None:
    signature = sign(FILES, key, name="x")
    for length in range(0, len(signature), 7):
        with pytest.raises(BundleTampered) as caught:
            verify(FILES, signature[:length], [key.public])
        assert caught.value.where == SIGNATURE


def test_the_signature_of_another_release_names_what_differs(key: SigningKey) -> None:
    replayed = sign({**FILES, "b.txt": b"older"}, key, name="x")
    with pytest.raises(BundleTampered, match=r"b\.txt"):
        verify(FILES, replayed, [key.public])


def test_every_signed_byte_counts(key: SigningKey) -> None:
    """Each flipped character either breaks the signature or leaves what was signed (JSON's own freedom)."""
    signature = sign(FILES, key, name="x")
    said = json.loads(signature)
    for at in range(len(signature)):
        changed = signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]
        try:
            verify(FILES, changed, [key.public])
        except BundleTampered:
            continue
        same = json.loads(changed)
        assert same["dsseEnvelope"]["payload"] == said["dsseEnvelope"]["payload"]
        assert base64.b64decode(same["dsseEnvelope"]["signatures"][0]["sig"]) == base64.b64decode(
            said["dsseEnvelope"]["signatures"][0]["sig"]
        )


@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 100_000,
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"mediaType": 1, "mediaType": 2}',
        b'{"dsseEnvelope": {"signatures": []}}',
        b" " * ((1 << 20) + 1),
    ],
    ids=["deep", "empty", "list", "not-utf8", "nan", "twice", "unsigned", "huge"],
)
def test_a_hostile_signature_file_is_refused(key: SigningKey, hostile: bytes) -> None:
    with pytest.raises(BundleTampered):
        verify(FILES, hostile, [key.public])


@given(st.binary(max_size=400))
def test_no_bytes_crash_the_verifier(data: bytes) -> None:
    key = TrustedKey(b"")
    with pytest.raises(BundleTampered):
        verify(FILES, data, [key])


def test_no_state_is_kept_between_calls(key: SigningKey) -> None:
    """A verifier that remembers its last manifest lets the next bundle pass (model-transparency#650)."""
    good = sign(FILES, key, name="x")
    verify(FILES, good, [key.public])
    with pytest.raises(BundleTampered, match=r"a\.txt"):
        verify({**FILES, "a.txt": b"bad"}, good, [key.public])
    verify(FILES, good, [key.public])


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """OpenSSF's own implementation. 1.1 imports pyOpenSSL, for certificates only, and does not require it."""
    import sys

    patch = pytest.MonkeyPatch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies warn while they are imported
        try:
            import OpenSSL  # noqa: F401
        except ImportError:
            stand_in = ModuleType("OpenSSL")
            stand_in.crypto = ModuleType("OpenSSL.crypto")  # type: ignore[attr-defined]
            patch.setitem(sys.modules, "OpenSSL", stand_in)
        import model_signing.verifying
    patch.undo()
    return model_signing


def test_the_reference_implementation_accepts_our_bundle(
    reference: ModuleType, make: Callable[..., Bundle], key: SigningKey, tmp_path: Path
) -> None:
    """OpenSSF's `verifying.Config.verify` accepts a folder that we signed, and refuses it once it is changed.

    Its key verifier knows NIST curves only, so the one step it lacks, Ed25519 over *its own* encoding of
    the payload, is put in here. Parsing of the bundle, statement and manifest, the hashing of the folder
    and the comparison are all its own code.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from model_signing._signing import sign_sigstore_pb as pb

    public = load_pem_public_key(key.public.pem)

    class Ed25519Verifier(pb.Verifier):  # type: ignore[misc, name-defined]
        def _verify_bundle(self, bundle: object) -> tuple[str, bytes]:
            envelope = bundle.dsse_envelope  # type: ignore[attr-defined]
            assert bundle.verification_material.public_key.hint == key.public.hint  # type: ignore[attr-defined]
            public.verify(envelope.signatures[0].sig, pb.pae(envelope.payload))  # type: ignore[call-arg, arg-type, union-attr]
            return envelope.payload_type, envelope.payload

    folder = write_bundle(tmp_path / "bundle", make())
    config = reference.verifying.Config()
    config._verifier = Ed25519Verifier()
    config.verify(folder, folder / SIGNATURE)
    (folder / "contract.json").write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"Hash mismatch for .*contract\.json"):
        config.verify(folder, folder / SIGNATURE)


def test_our_manifest_is_the_reference_manifest(
    reference: ModuleType, bundle: Bundle, tmp_path: Path
) -> None:
    """The reference's own payload over the folder's files says what ours says, root digest included."""
    from google.protobuf import json_format
    from model_signing._signing import signing

    folder = write_bundle(tmp_path / "bundle", bundle)
    hashing = reference.hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    theirs = json.loads(json_format.MessageToJson(signing.Payload(hashing.hash(folder)).statement.pb))
    ours = json.loads(base64.b64decode(json.loads(bundle.files[SIGNATURE])["dsseEnvelope"]["payload"]))
    assert theirs["subject"][0]["digest"] == ours["subject"][0]["digest"]
    assert theirs["predicateType"] == ours["predicateType"]
    assert theirs["_type"] == ours["_type"]
    assert theirs["predicate"] == ours["predicate"]
