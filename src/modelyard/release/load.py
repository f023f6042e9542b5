"""A bundle's typed side: the nouns that go in when it is built, and the nouns that the server gets out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from modelyard.core.digest import Digest, canonical, finite
from modelyard.core.errors import ModelyardError, ReleaseError
from modelyard.measure.requirement import Requirement
from modelyard.release.answers import Answers
from modelyard.release.bundle import LIMITS, Bundle
from modelyard.release.info import ReleaseInfo
from modelyard.release.key import SigningKey
from modelyard.release.sign import SIGNATURE, sign
from modelyard.release.strict_json import parse_object

if TYPE_CHECKING:
    from modelyard.data.contract import Contract
    from modelyard.data.profile import Profile
    from modelyard.model.model import Model, Task

REQUIREMENTS_FORMAT = 1
"""Version of `requirements.json`; raised when an old reader would misread a new file."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadedRelease:
    """What a release holds, parsed and checked for agreement."""

    digest: Digest
    info: ReleaseInfo
    model: Model
    contract: Contract
    profile: Profile
    requirements: tuple[Requirement, ...]
    answers: Answers


def build_bundle(
    info: ReleaseInfo,
    *,
    model: Model,
    contract: Contract,
    profile: Profile,
    requirements: Sequence[Requirement],
    evidence: Sequence[Mapping[str, Any]],
    answers: Answers,
    key: SigningKey,
) -> Bundle:
    """The signed files of a release; equal arguments give equal bytes, wherever and whenever.

    `evidence` are JSON objects (ledger entries, verdicts), one line each in the bundle. The lineage gets the
    digests of model and contract. Raises `ReleaseError` when the parts do not fit together or are too large.
    """
    lineage = {"model": model.digest, "contract": contract.digest, **info.lineage}
    info = dataclasses.replace(info, lineage=MappingProxyType(lineage))
    _check(info, model, contract, answers)
    files = {
        "release.json": canonical(info.to_json()),
        "model.onnx": model.onnx,
        "contract.json": canonical(contract.to_json()),
        "profile.json": canonical(finite(profile.to_json())),
        "requirements.json": canonical(
            {"format": REQUIREMENTS_FORMAT, "requirements": [finite(item.to_json()) for item in requirements]}
        ),
        "evidence.jsonl": b"".join(canonical(finite(dict(line))) + b"\n" for line in evidence),
        "answers.json": canonical(answers.to_json()),
    }
    for name, data in files.items():
        if len(data) > LIMITS[name]:
            raise ReleaseError(
                f"{name} is too large for a bundle", value=len(data), rule=f"at most {LIMITS[name]} bytes"
            )
    files[SIGNATURE] = sign(files, key, name=f"{info.name}-{info.version}")
    return Bundle(MappingProxyType(files))


def load_release(bundle: Bundle) -> LoadedRelease:
    """Parses a bundle that was verified (by `read_bundle` or `Registry.fetch`).

    The model goes through the strict reader, which raises `ModelError`; anything else that cannot be read,
    or parts that contradict each other, raise `ReleaseError` naming the file.
    """
    from modelyard.data.contract import Contract
    from modelyard.data.profile import Profile
    from modelyard.model.reader import read_model

    info = bundle.info
    contract = _part(bundle, "contract.json", Contract.from_json)
    model = read_model(bundle.files["model.onnx"], task=cast("Task", info.task), labels=info.labels)
    answers = _part(bundle, "answers.json", Answers.from_json)
    _check(info, model, contract, answers)
    return LoadedRelease(
        digest=bundle.digest,
        info=info,
        model=model,
        contract=contract,
        profile=_part(bundle, "profile.json", Profile.from_json),
        requirements=_part(bundle, "requirements.json", _requirements),
        answers=answers,
    )


def read_evidence(bundle: Bundle) -> list[dict[str, Any]]:
    """The lines of evidence that the release was built on, as JSON objects."""
    lines = bundle.files["evidence.jsonl"].splitlines()
    return [parse_object(line, where="evidence.jsonl", error=ReleaseError) for line in lines]


def _part(bundle: Bundle, name: str, build: Callable[[dict[str, Any]], T]) -> T:
    try:
        return build(parse_object(bundle.files[name], where=name, error=ReleaseError))
    except ModelyardError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ReleaseError(
            f"{name} is not complete", value=repr(error), where=name, fix="build the release again"
        ) from error


def _requirements(value: Mapping[str, Any]) -> tuple[Requirement, ...]:
    if value.get("format") != REQUIREMENTS_FORMAT:
        raise ReleaseError(
            "requirements.json has a format that is not known",
            value=value.get("format"),
            rule=f"format {REQUIREMENTS_FORMAT}",
        )
    return tuple(Requirement.from_json(item) for item in value["requirements"])


def _check(info: ReleaseInfo, model: Model, contract: Contract, answers: Answers) -> None:
    features = [column.name for column in contract.features]
    inputs = [spec.name for spec in model.signature.inputs]
    pairs: tuple[tuple[str, object, object], ...] = (
        ("the task of release and model", info.task, model.task),
        ("the labels of release and model", tuple(info.labels), tuple(model.labels)),
        ("the labels of release and contract", tuple(info.labels), tuple(contract.labels)),
        ("the model's digest in the lineage", info.lineage.get("model", model.digest), model.digest),
        (
            "the contract's digest in the lineage",
            info.lineage.get("contract", contract.digest),
            contract.digest,
        ),
        ("the inputs of model and contract", sorted(set(inputs) - set(features)), []),
        ("the inputs of model and kept answers", sorted(set(inputs) - set(answers.inputs)), []),
        ("the columns of labels and kept answers", answers.outputs.shape[1], max(1, len(info.labels))),
    )
    for what, one, other in pairs:
        if one != other:
            raise ReleaseError(
                f"the release contradicts itself in {what}",
                value=one,
                rule=f"{other!r}",
                fix="build the release from one run",
            )
