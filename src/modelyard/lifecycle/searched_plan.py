"""What a search chose for a project, kept so that the loop can use it: the plan and its runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.compress.machine import this_machine
from modelyard.core.digest import JSON, Digest, digest_json, short
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import contract_of
from modelyard.model.chosen_runtime import DEFAULT_RUNTIME, ChosenRuntime

VERSION = 1
"""Of the stored document. Raised when an old one would be read wrongly; one that is not known is no plan."""
KIND = "compress.plan"


@dataclass(frozen=True, slots=True)
class SearchedPlan:
    """A search's choice. `plan` is its text ("float": the model as trained).

    It holds for models of the same recipe (`code`) and contract, whatever they were trained on: each is
    judged anew. `model` is the one that was searched with, on `machine` (its fingerprint; `place` in words).
    """

    plan: str
    runtime: ChosenRuntime
    code: Digest
    contract: Digest
    model: Digest
    machine: str
    place: str
    search: str
    why: str

    @property
    def gains(self) -> bool:
        """Whether it changes anything: a search may have found that nothing is better."""
        return self.plan != "float" or self.runtime != DEFAULT_RUNTIME

    @property
    def digest(self) -> Digest:
        """Of what is done to a model: what the compress step's key depends on."""
        return digest_json([self.plan, self.runtime.name, dict(self.runtime.settings)])

    def told(self, model: Digest) -> str:
        """What is to be said when it is used for a model: where it comes from, if not from here."""
        found = ["searched"]
        if self.model != model:
            found.append(f"with the model {short(self.model)} of before")
        if self.machine != this_machine().fingerprint:
            found.append(f"on another kind of machine ({self.place}), so judged again on this one")
        return " ".join(found)

    def to_json(self) -> dict[str, JSON]:
        return {
            "version": VERSION,
            "plan": self.plan,
            "runtime": self.runtime.name,
            "runtime_options": dict(self.runtime.settings),
            "code": self.code,
            "contract": self.contract,
            "model": self.model,
            "machine": self.machine,
            "place": self.place,
            "search": self.search,
            "why": self.why,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> SearchedPlan | None:
        """The plan, or nothing when it was written by a version that this one cannot read."""
        if value.get("version") != VERSION:
            return None
        runtime = ChosenRuntime(value["runtime"], dict(value["runtime_options"]))
        names = ("code", "contract", "model", "machine", "place", "search", "why")
        return SearchedPlan(value["plan"], runtime, *(str(value[name]) for name in names))


def keep_plan(context: Context, plan: SearchedPlan) -> None:
    """Makes it the project's searched plan."""
    context.store.records.put_document(KIND, context.project.name, plan.to_json())


def searched_plan(context: Context) -> SearchedPlan | None:
    """The plan that a search chose for this recipe and contract, unless the project file forgoes it."""
    if context.project.compress.search is False:
        return None
    value = context.store.records.get_document(KIND, context.project.name)
    found = SearchedPlan.from_json(value) if isinstance(value, dict) else None
    if found is None:
        return None
    fits = (found.code, found.contract) == (context.values("train")["code"], contract_of(context).digest)
    return found if fits else None
