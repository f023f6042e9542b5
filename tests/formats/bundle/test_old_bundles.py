"""Bundles, policies and ledger entries of every format so far stay readable, byte for byte.

`v1` was written by format 1 and signed with a key that was thrown away; `v1.pem` is its public half. When the
format is raised, a `v2` joins it and `v1` stays.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modelyard.core.errors import ReleaseError
from modelyard.model.chosen_runtime import DEFAULT_RUNTIME
from modelyard.model.predict import predict
from modelyard.model.runtimes import RUNTIMES
from modelyard.release.bundle import read_bundle
from modelyard.release.info import ReleaseInfo
from modelyard.release.key import parse_public
from modelyard.release.load import load_release, read_evidence
from modelyard.release.policy import policy_from_json

HERE = Path(__file__).parent
DIGEST = {"v1": "sha256:d0fbf1096445022b7a81cecb161c3734791567038a84f2e98bcfad062f74c40a"}


@pytest.mark.parametrize("version", DIGEST)
def test_a_bundle_of_that_format_verifies_loads_and_answers(version: str) -> None:
    key = parse_public((HERE / f"{version}.pem").read_bytes(), where=version)
    bundle = read_bundle(HERE / version, [key])
    assert bundle.digest == DIGEST[version]
    loaded = load_release(bundle)
    assert (loaded.info.name, loaded.info.version, loaded.info.labels) == ("two-numbers", 3, ("no", "yes"))
    assert loaded.requirements[0].bound == 0.9
    assert loaded.profile.rows == 8
    assert loaded.info.runtime == DEFAULT_RUNTIME, "it names none, so nothing else may be loaded"
    assert read_evidence(bundle)[0]["passed"] is True
    session = RUNTIMES.get("onnxruntime").load(loaded.model)
    np.testing.assert_allclose(predict(session, loaded.answers.inputs), loaded.answers.outputs, atol=1e-5)
    session.close()


@pytest.mark.parametrize("line", (HERE / "policies_v1.jsonl").read_text().splitlines())
def test_policies_of_that_format_are_read(line: str) -> None:
    assert policy_from_json(json.loads(line)).to_json() == json.loads(line)


def test_a_format_of_the_future_is_refused_in_words() -> None:
    said = json.loads((HERE / "v1" / "release.json").read_bytes())
    with pytest.raises(ReleaseError, match=r"format that is not known.*upgrade"):
        ReleaseInfo.from_json({**said, "format": 2})
