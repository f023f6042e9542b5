"""Signatures over a set of files in the OpenSSF model signing format (v1.0), made with Ed25519.

The file is a Sigstore bundle (JSON, v0.3): a DSSE envelope around an in-toto Statement v1 whose predicate
lists each file with its SHA-256 and whose subject is the SHA-256 over those digests in order. Layout and
hashing rules are those of the OpenSSF reference implementation (`model_signing` 1.x, method `files`);
the signature is pure Ed25519 (RFC 8032) over DSSE's pre-authentication encoding.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.core.digest import canonical
from modelyard.core.errors import BundleTampered
from modelyard.release.key import SigningKey, TrustedKey
from modelyard.release.strict_json import parse_object

SIGNATURE = "model.sig"
SIGNATURE_MAX = 1 << 20
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"


def sign(files: Mapping[str, bytes], key: SigningKey, *, name: str) -> bytes:
    """The signature file for these files (`model.sig` among them is left out); equal files give equal bytes.

    `name` is what the statement calls its subject; verifiers treat it as information only.
    """
    payload = canonical(statement(files, name=name))
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.public.hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(key.sign(_encode(payload))).decode(), "keyid": ""}],
        },
    }
    return canonical(bundle)


def verify(files: Mapping[str, bytes], signature: bytes, trusted: Sequence[TrustedKey]) -> TrustedKey:
    """The trusted key that signed exactly these files (`model.sig` among them is left out).

    Raises `BundleTampered`, naming the file, for a file that was changed, added or removed, and for a
    signature that is damaged, made by a key that is not trusted, or made for other files. Nothing of
    the payload is looked at before its signature holds, and nothing is kept between calls.
    """
    payload, key = _authenticate(signature, trusted)
    expected = _resources(parse_object(payload, where=SIGNATURE))
    found = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != SIGNATURE}
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            raise _tampered(f"the file {name!r} was signed and is missing", name)
        if name not in expected:
            raise _tampered(f"the file {name!r} is not among those that were signed", name)
        if found[name] != expected[name]:
            raise _tampered(f"the file {name!r} differs from what was signed", name)
    return key


def statement(files: Mapping[str, bytes], *, name: str) -> dict[str, Any]:
    """The in-toto statement about these files: what is signed."""
    digests = {file: hashlib.sha256(data) for file, data in sorted(files.items()) if file != SIGNATURE}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": _root([item.digest() for item in digests.values()])}}
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": [
                {"name": file, "algorithm": "sha256", "digest": item.hexdigest()}
                for file, item in digests.items()
            ],
        },
    }


def _authenticate(signature: bytes, trusted: Sequence[TrustedKey]) -> tuple[bytes, TrustedKey]:
    if len(signature) > SIGNATURE_MAX:
        raise _damaged("it is too large")
    bundle = parse_object(signature, where=SIGNATURE)
    try:
        envelope = bundle["dsseEnvelope"]
        (only,) = envelope["signatures"]
        hint = bundle["verificationMaterial"]["publicKey"]["hint"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        made = base64.b64decode(only["sig"], validate=True)
        types = bundle["mediaType"], envelope["payloadType"]
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise _damaged("it is not a Sigstore bundle with one signature") from error
    if types != (MEDIA_TYPE, PAYLOAD_TYPE):
        raise _damaged(f"it is of type {types[0]!r} with {types[1]!r}")
    key = next((key for key in trusted if key.hint == hint), None)
    if key is None:
        raise BundleTampered(
            "the release is signed by a key that is not trusted",
            value=str(hint)[:16],
            rule="one of the trusted keys: "
            + (", ".join(item.hint[:16] for item in trusted) or "there is none"),
            fix="get the release from its source again, or add the signer's public key to the trusted keys",
            where=SIGNATURE,
        )
    if not key.signed(made, _encode(payload)):
        raise _damaged("the key did not make it")
    return payload, key


def _resources(said: Mapping[str, Any]) -> dict[str, str]:
    try:
        if (said["_type"], said["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
            raise _damaged(f"it states {said['predicateType']!r}")
        method = said["predicate"]["serialization"]
        listed = said["predicate"]["resources"]
        (subject,) = said["subject"]
        if (method["method"], method["hash_type"]) != ("files", "sha256"):
            raise _damaged("it does not hash whole files with SHA-256")
        expected = {str(item["name"]): str(item["digest"]) for item in listed}
        root = _root([bytes.fromhex(item["digest"]) for item in listed])
        sound = (
            len(expected) == len(listed)
            and all(item["algorithm"] == "sha256" for item in listed)
            and subject["digest"]["sha256"] == root
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged("its statement is not complete") from error
    if not sound:
        raise _damaged("its statement contradicts itself")
    return expected


def _encode(payload: bytes) -> bytes:
    # Pre-authentication encoding, DSSE v1: https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _root(digests: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _damaged(why: str) -> BundleTampered:
    return _tampered(f"the signature {SIGNATURE!r} does not hold, {why}", SIGNATURE)


def _tampered(what: str, name: str) -> BundleTampered:
    return BundleTampered(
        what,
        rule="every file as it was signed",
        where=name,
        fix="get the release from its source again; do not serve this one",
    )
