"""Load the source, hold it against the contract, split it, keep an immutable snapshot and its profile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelyard.core.digest import canonical, digest_file, short
from modelyard.core.errors import DataError
from modelyard.core.progress import Progress
from modelyard.data.contract import Contract
from modelyard.data.contract_file import read_contract, write_contract
from modelyard.data.findings import Findings
from modelyard.data.infer import infer
from modelyard.data.profile import profile
from modelyard.data.snapshot import load_part, take_snapshot
from modelyard.data.source import Source, open_source
from modelyard.data.split import PARTS, HashSplit, Split, TimeSplit
from modelyard.data.validate import validate
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.project import Project
from modelyard.lifecycle.step import Outcome
from modelyard.score.checks.data_1 import SchemaCheck
from modelyard.score.context import CheckContext


def parts(context: Context) -> dict[str, str]:
    """The source's content, so that changed data is never taken from the cache, and the edited contract."""
    path = context.project.contract_path
    return {
        "the content of the source": _source(context).fingerprint(),
        context.project.data.contract: digest_file(path) if path.is_file() else "absent",
    }


def run(context: Context, progress: Progress) -> Outcome:
    project, objects = context.project, context.store.objects
    progress(0.0, "loading")
    table = _source(context).load()
    contract, notes = _contract(project, table)
    progress(0.4, "checking")
    whole = validate(table, contract)
    if not whole.holds:
        return _broken(project, contract, whole)
    progress(0.6, "splitting")
    snapshot = take_snapshot(table, contract, _split(project, contract), objects)
    findings = {part: validate(load_part(snapshot, part, objects), contract) for part in PARTS}
    progress(0.8, "profiling")
    reference = profile(load_part(snapshot, "train", objects), contract)
    verdict = SchemaCheck().run(
        CheckContext(
            contract=contract, findings={part: found.to_verdict() for part, found in findings.items()}
        )
    )
    rows = [snapshot.parts[part].rows for part in PARTS]
    values: dict[str, Any] = {
        "snapshot": snapshot.digest,
        "snapshot_object": objects.put(canonical(snapshot.to_json())),
        "contract": contract.digest,
        "contract_object": objects.put(canonical(contract.to_json())),
        "profile_object": objects.put(canonical(reference.to_json())),
        "rows": dict(zip(PARTS, rows, strict=True)),
        "notes": list(notes),
    }
    dealt = "/".join(f"{count:,}" for count in rows)
    headline = f"{table.num_rows:,} rows · contract holds · {dealt} by {project.data.split}"
    return Outcome(values, headline, ((snapshot.digest, verdict),))


def _source(context: Context) -> Source:
    if "source" not in context.memo:
        context.memo["source"] = open_source(context.project.data.source, context.project.root)
    source: Source = context.memo["source"]
    return source


def _contract(project: Project, table: Any) -> tuple[Contract, tuple[str, ...]]:
    """The contract that people keep, or a first one inferred from the data and written for them to edit."""
    path, options = project.contract_path, project.data
    if path.is_file():
        contract = read_contract(path)
        if contract.label.name != options.label:
            raise DataError(
                f"{options.contract} and modelyard.toml disagree about the label",
                value=contract.label.name,
                rule=f"[data] label = {options.label!r}",
                fix=f"correct one of them, or delete {options.contract} to infer it again",
            )
        if contract.task != project.task:
            raise DataError(
                f"the label {options.label!r} does not fit the task {project.task}",
                value=contract.label.kind,
                rule="a category for classification, a number for regression",
                fix="correct task in modelyard.toml, or the label's kind in the contract",
            )
        return contract, ()
    inferred = infer(
        table, name=project.name, label=options.label, task=project.task, key=options.key, order=options.order
    )
    # The project knows who answers for the data and where it comes from; the table does not.
    contract = replace(inferred.contract, owner=project.policy.owner, source=options.source)
    write_contract(path, contract)
    return contract, inferred.notes


def _split(project: Project, contract: Contract) -> Split:
    options = project.data
    if options.split == "time" and options.order is not None:
        return TimeSplit(options.order, options.fractions)
    # By the key alone, a row keeps its part when other columns change or more rows come.
    key = options.key or (contract.key.name if contract.key else None)
    return HashSplit(options.fractions, key, salt=project.name)


def _broken(project: Project, contract: Contract, found: Findings) -> Outcome:
    verdict = found.to_verdict("data.1")
    broken = f"contract {short(contract.digest)} broken · findings: {len(found.findings)}"
    return Outcome(
        {"findings": found.to_json()},
        f"{found.rows:,} rows · {broken}",
        ((f"project:{project.name}", verdict),),
        stops=f"the data breaks {project.data.contract}: {verdict.why}",
    )
