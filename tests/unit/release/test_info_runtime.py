"""The runtime in a release: kept, checked, and onnxruntime's defaults where an old release names none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from modelyard.core.errors import ReleaseError
from modelyard.model.chosen_runtime import DEFAULT_RUNTIME, ChosenRuntime
from modelyard.release.bundle import Bundle
from modelyard.release.info import ReleaseInfo
from modelyard.release.load import load_release

TUNED = ChosenRuntime("onnxruntime", MappingProxyType({"optimize": "basic", "arena": True}))


@pytest.mark.parametrize("runtime", [DEFAULT_RUNTIME, TUNED, ChosenRuntime("openvino")])
def test_it_is_kept_as_it_was(bundle: Bundle, runtime: ChosenRuntime) -> None:
    info = replace(bundle.info, runtime=runtime)
    said = json.loads(json.dumps(info.to_json()))
    assert (said["runtime"], said["runtime_options"]) == (runtime.name, dict(runtime.settings))
    assert ReleaseInfo.from_json(said) == info


def test_a_release_of_before_runs_on_onnxruntime_as_it_is(make: Callable[..., Bundle]) -> None:
    said = load_release(make()).info.to_json()
    del said["runtime"], said["runtime_options"]
    assert ReleaseInfo.from_json(said).runtime == DEFAULT_RUNTIME


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"runtime": "/usr/lib/evil.so"}, "names a runtime that cannot be.*evil"),
        ({"runtime": ""}, "names a runtime that cannot be"),
        ({"runtime_options": {"profile": True}}, "names a runtime that cannot be.*profile"),
        ({"runtime_options": {"threads": 100000}}, "from 1 to 256"),
        ({"runtime_options": {"arena": "yes"}}, "true or false"),
        ({"runtime_options": [1]}, "not complete"),
        ({"runtime_options": None}, "not complete"),
    ],
)
def test_what_cannot_be_is_refused_in_words(bundle: Bundle, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ReleaseError, match=match):
        ReleaseInfo.from_json({**bundle.info.to_json(), **changes})
