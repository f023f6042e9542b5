"""A line to paste into a shell, with a real row, and what the service answers to it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from modelyard.core.files import write_atomic
from modelyard.lifecycle.project import Project
from modelyard.lifecycle.rows import plain_rows
from modelyard.lifecycle.service import serve_options, service_client
from modelyard.release.endpoint import Endpoints
from modelyard.release.key import trusted_keys
from modelyard.release.load import load_release
from modelyard.release.registry import Registry
from modelyard.store.store import Store

_INLINE = 400
"""Longer bodies go to a file, so that the line stays a line."""


def a_trial(project: Project, store: Store, url: str) -> tuple[str, str] | None:
    """The command and its real answer; nothing when the service does not answer."""
    registry = Registry(store, trusted_keys(project.keys))
    release = load_release(
        registry.fetch(registry.by_digest(Endpoints(store).show(project.endpoint_name).champion))
    )
    row = plain_rows(release.answers.inputs, release.contract, [0])[0]
    with service_client(project) as client:
        status, body = client.post(f"/predict/{project.endpoint_name}", {"rows": [row]})
    if status != 200:
        return None
    payload = json.dumps({"rows": [row]}, ensure_ascii=False)
    data = shlex.quote(payload)
    if len(payload) > _INLINE:
        path = project.store_root / "try.json"
        write_atomic(path, payload.encode())
        data = shlex.quote(f"@{path}")
    more = ' -H "Authorization: Bearer $TOKEN"' if serve_options(project).needs_token else ""
    more += f" --cacert {project.endpoint.tls_certificate}" if project.endpoint.tls_certificate else ""
    return f"curl -s {url}/predict/{project.endpoint_name}{more} -d {data}", _short(body)


def _short(body: dict[str, Any]) -> str:
    prediction = dict(body["predictions"][0])
    likely = sorted(prediction.get("probabilities", {}).items(), key=lambda item: -item[1])
    if len(likely) > 3:
        prediction["probabilities"] = {**dict(likely[:2]), "…": "…"}
    return json.dumps(prediction, ensure_ascii=False)
