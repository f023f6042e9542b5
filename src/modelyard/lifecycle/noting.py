"""A test of the ML Test Score that a person did by hand, as a signed note in the ledger."""

from __future__ import annotations

import base64

from modelyard.core.digest import canonical
from modelyard.core.errors import ProjectError
from modelyard.core.names import did_you_mean
from modelyard.lifecycle.project import Project
from modelyard.lifecycle.scoring import scored_release
from modelyard.release.key import signing_key
from modelyard.score.tests import TESTS
from modelyard.store.entry import Entry
from modelyard.store.store import Store


def note_by_hand(project: Project, store: Store, test: str, *, link: str, author: str) -> Entry:
    """Appends the note, signed with the project's key, under the release that is scored now."""
    known = [item.id for item in TESTS]
    if test not in known:
        raise ProjectError("there is no such test", value=test, fix=did_you_mean(test, known))
    release = scored_release(project, store)
    subject = release.digest if release else f"project:{project.name}"
    facts = {"link": link, "author": author, "test": test, "subject": subject}
    key = signing_key(project.keys)
    signature = base64.b64encode(key.sign(canonical(facts))).decode()
    body = {**facts, "signature": signature, "key": key.public.hint}
    return store.ledger.append(subject, f"note.{test}", passed=None, body=body, by="modelyard score note")
