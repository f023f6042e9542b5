"""The reference of the passes says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelyard.compress.plan import parse
from modelyard.compress.plan_option import options_of, show
from modelyard.compress.plan_steps import KINDS
from modelyard.core.errors import CompressError

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "compression.md"


def test_every_pass_and_each_of_its_options_is_in_the_reference() -> None:
    text = PAGE.read_text()
    sections = dict(re.findall(r"^### `([^`]+)`\n(.*?)(?=^### |\Z|^<!--)", text, flags=re.M | re.S))
    also = [line for part in sections.values() for line in re.findall(r"^Also (.*)\.$", part, re.M)]
    told = set(sections) | {name for line in also for name in re.findall(r"`([^`]+)`", line)}
    assert told == set(KINDS)
    for name, section in sections.items():
        listed = re.findall(r"^\| `(\w+)`(?:, also `\w`)? \| `([^`]*)` \|", section, re.M)
        assert listed == [(key, show(default)) for key, (_, default) in KINDS[name].options().items()], name
        assert set(options_of(KINDS[name].make)) >= {key for key, _ in listed}


def test_plans_of_the_reference_can_be_read_and_refused_orders_are_refused() -> None:
    text = PAGE.read_text()
    block = re.search(r"```text\n(.*?)```", text, re.S)
    assert block is not None
    for line in block[1].splitlines():
        assert parse(line).steps
    for plan in re.findall(r"`([a-z0-9:-]+(?:\([^)`]*\))?(?: > [^`]+)?)` \|", text):
        if ">" in plan:
            assert parse(plan).steps
    for earlier, later in (
        ("int8-static", "prune"), ("float16", "low-rank"), ("share", "int8-static"),
        ('share(store="plain")', "tune"), ("prune", "separable"), ('prune(pattern="2:4")', "prune-units"),
        ("tune", "distil(student=recipe)"),
    ):  # fmt: skip
        with pytest.raises(CompressError, match="cannot follow"):
            parse(f"{earlier} > {later}")
