"""A case of the kit: what it checks, how much the protocol asks for it, and how it turned out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeAlias

from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Exchange
from modelyard.serve.conform.model import ModelInfo

Level: TypeAlias = Literal["required", "optional", "extension"]
"""`required`: the protocol's text asks for it. `optional`: it allows or leaves it open, and a good server
does it. `extension`: part of an extension, tested where the server announces it."""

Result: TypeAlias = Literal["holds", "fails", "not applicable"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case turned out, why, and the exchange that shows it."""

    result: Result
    why: str = ""
    shown: Exchange | None = None


class Broken(Exception):
    """The case fails; carries the exchange that shows it."""

    def __init__(self, why: str, shown: Exchange | None) -> None:
        super().__init__(why)
        self.why = why
        self.shown = shown


class Inapplicable(Exception):
    """The case cannot be asked of this server or model."""


Check: TypeAlias = Callable[[Client, ModelInfo], str | None]
"""Returns a remark, or `None`, when the case holds; raises `Broken` or `Inapplicable` otherwise."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that a server does right or not. `section` names the part of the protocol that says it."""

    id: str
    title: str
    section: str
    level: Level
    check: Check

    def run(self, client: Client, model: ModelInfo) -> Outcome:
        """Never raises for what a server does."""
        try:
            return Outcome("holds", self.check(client, model) or "")
        except Broken as broken:
            return Outcome("fails", broken.why, broken.shown)
        except Inapplicable as skipped:
            return Outcome("not applicable", str(skipped))


def need(condition: bool, why: str, shown: Exchange | None) -> None:
    """Fails the case unless the condition holds."""
    if not condition:
        raise Broken(why, shown)


def skip(why: str) -> NoReturn:
    """Ends the case as not applicable."""
    raise Inapplicable(why)
