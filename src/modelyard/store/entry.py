"""One line of the ledger, and the law that chains it to the line before it.

The law, version 1. An entry has the nine fields of `Entry`. Its `hash` is `sha256:` and the SHA-256 of
the canonical JSON (keys sorted, no spaces, UTF-8) of the other eight; its `previous` is the hash of the
entry before it, or `GENESIS`; its `index` is one more than that entry's, starting at 1. An exported line
is the canonical JSON of all nine. So anyone can verify an export with a few lines and no Modelyard:

    previous = "sha256:" + hashlib.sha256(b"modelyard ledger 1").hexdigest()
    for index, line in enumerate(open("ledger.jsonl", encoding="utf-8"), start=1):
        entry = json.loads(line)
        stated = entry.pop("hash")
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert stated == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        assert (entry["previous"], entry["index"]) == (previous, index)
        previous = stated

A chain cannot tell that its last entries were cut off: whoever must know keeps the newest hash elsewhere
and gives it to `verify_export` as `head`. (The database keeps it itself, for `Ledger.verify`.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from json.encoder import encode_basestring as _quoted
from typing import Any, TypeAlias

from modelyard.core.digest import JSON, Digest, canonical, digest_bytes
from modelyard.core.errors import LedgerBroken

GENESIS: Digest = digest_bytes(b"modelyard ledger 1")
"""What the first entry names as its previous hash. The `1` is the version of the format: it is raised
when the fields of an entry or the law of its hash change, and readers keep every old law."""

_FIELDS = frozenset({"index", "time", "subject", "claim", "passed", "body", "by", "previous", "hash"})
Fields: TypeAlias = tuple[int, str, str, str, bool | None, str, str, Digest]
"""Index, time, subject, claim, passed, body as canonical JSON text, by, previous: what is hashed."""

_PASSED = {True: "true", False: "false", None: "null"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What was claimed about a subject, whether it passed, by whom and when."""

    index: int
    """1, 2, 3, ... without a gap."""
    time: str
    """RFC 3339 in UTC."""
    subject: str
    """A digest, or `endpoint:NAME`, or `project:NAME`."""
    claim: str
    passed: bool | None
    """`None` where a claim states a fact instead of a test's outcome."""
    body: dict[str, JSON]
    by: str
    previous: Digest
    hash: Digest

    def to_json(self) -> dict[str, Any]:
        """The nine fields, as they are exported."""
        return {name: getattr(self, name) for name in sorted(_FIELDS)}


def sealed(
    *,
    index: int,
    time: str,
    subject: str,
    claim: str,
    passed: bool | None,
    body: dict[str, JSON],
    by: str,
    previous: Digest,
) -> Entry:
    """The entry of these fields, with the hash that the law gives it.

    >>> sealed(index=1, time="1970-01-01T00:00:00.000000Z", subject="project:p", claim="a.claim",
    ...        passed=True, body={}, by="me", previous=GENESIS).hash[:19]
    'sha256:50aef7ac53da'
    """
    body_text = canonical(body).decode()
    made = hash_of((index, time, subject, claim, passed, body_text, by, previous))
    return Entry(index, time, subject, claim, passed, body, by, previous, made)


def hash_of(fields: Fields) -> Digest:
    """The hash of an entry."""
    index, time, subject, claim, passed, body, by, previous = fields
    # Put together by hand because encoding a dict again takes 100,000 entries past the second that
    # `verify` has; a property test holds it equal to `canonical`.
    text = (
        f'{{"body":{body},"by":{_quoted(by)},"claim":{_quoted(claim)},"index":{index:d},"passed":{_PASSED[passed]}'
        f',"previous":{_quoted(previous)},"subject":{_quoted(subject)},"time":{_quoted(time)}}}'
    )
    return "sha256:" + sha256(text.encode()).hexdigest()


def line_of(fields: Fields, hash: Digest) -> str:
    """The exported line of an entry."""
    index, time, subject, claim, passed, body, by, previous = fields
    return (
        f'{{"body":{body},"by":{_quoted(by)},"claim":{_quoted(claim)},"hash":{_quoted(hash)},"index":{index:d}'
        f',"passed":{_PASSED[passed]},"previous":{_quoted(previous)},"subject":{_quoted(subject)}'
        f',"time":{_quoted(time)}}}'
    )


def verify_export(lines: Iterable[str], *, head: Digest | None = None) -> int:
    """Verifies an exported ledger by the law above; returns how many entries it has.

    Every byte counts: a line that is not the canonical JSON of its entry is refused too. With `head` the
    last entry must have that hash. Raises `LedgerBroken` that names the index.

    >>> entry = sealed(index=1, time="1970-01-01T00:00:00.000000Z", subject="project:p", claim="a.claim",
    ...                passed=True, body={}, by="me", previous=GENESIS)
    >>> line = canonical(entry.to_json()).decode()
    >>> verify_export([line])
    1
    >>> verify_export([line.replace("true", "false")])
    Traceback (most recent call last):
        ...
    modelyard.core.errors.LedgerBroken: entry 1 was changed: its hash is not that of its content
    """
    index, previous = 0, GENESIS
    for line in lines:
        index += 1
        entry = _parsed(line.removesuffix("\n"), index)
        check_link(index, previous, int(entry["index"]), str(entry["previous"]))
        previous = str(entry["hash"])
    if head is not None and previous != head:
        raise LedgerBroken(f"entries after {index} are missing: the export does not end in the known head")
    return index


def check_link(index: int, previous: Digest, found_index: int, found_previous: Digest) -> None:
    """Raises `LedgerBroken` unless an entry whose own hash is right also follows the one before it."""
    if found_index > index:
        raise LedgerBroken(f"entry {index} is missing: entry {found_index} follows entry {index - 1}")
    if found_index < index:
        raise LedgerBroken(f"entry {found_index} is out of its place: it stands where entry {index} belongs")
    if found_previous != previous:
        raise LedgerBroken(
            f"entry {index} does not follow entry {index - 1}: one of them was replaced or put in"
        )


def changed(index: int) -> LedgerBroken:
    """The error for an entry whose hash is not that of its content."""
    return LedgerBroken(f"entry {index} was changed: its hash is not that of its content")


def _parsed(line: str, index: int) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        whole = canonical(entry).decode()
        if set(entry) != _FIELDS or whole != line or not isinstance(entry["index"], int):
            raise changed(index)
        stated = entry["hash"]
        rest = canonical({name: entry[name] for name in _FIELDS - {"hash"}})
    except (ValueError, TypeError, RecursionError):
        raise LedgerBroken(f"line {index} of the export is not an entry") from None
    if stated != digest_bytes(rest):
        # The line's own index names the entry; a line that was put in bears whichever it claims.
        raise changed(index)
    return dict(entry)
