from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import ContractError
from modelyard.data.contract import Column, Contract
from modelyard.data.contract_file import read_contract, render, write_contract

GOOD = """\
version = 1
name = "t"

[columns.x]
kind = "number"   # metres
minimum = 0

[columns.y]
kind = "category"
role = "label"
categories = ["a", "b"]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "contract.toml"
    path.write_text(text)
    return path


def test_what_was_written_is_read(tmp_path: Path, contract: Contract) -> None:
    path = tmp_path / "contract.toml"
    write_contract(path, contract)
    assert read_contract(path) == contract


def test_edits_comments_and_order_survive_a_rewrite(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    contract = read_contract(path)
    more = Contract("t", (*contract.columns, Column("z", "boolean", description="new")))
    write_contract(path, more)
    assert path.read_text().startswith(GOOD)
    assert read_contract(path) == more


def test_rewriting_the_same_changes_no_byte(tmp_path: Path, contract: Contract) -> None:
    path = tmp_path / "contract.toml"
    write_contract(path, contract)
    before = path.read_bytes()
    write_contract(path, contract)
    assert path.read_bytes() == before


def test_a_changed_and_a_removed_column_are_written(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + '\n[columns.old]\nkind = "text"\n')
    contract = Contract("t", (Column("x", "number", maximum=3), *read_contract(path).columns[1:2]))
    write_contract(path, contract)
    assert read_contract(path) == contract
    assert "# metres" in path.read_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("minimum = 0", "minimun = 0", (":6", "'minimun'", "did you mean 'minimum'")),
        ("minimum = 0", 'minimum = "low"', (":6", "minimum", "'low'", "a number")),
        ('kind = "number"   # metres', 'kind = "numbr"', (":5", "column 'x'", "did you mean 'number'")),
        ('name = "t"', "name = 3", (":2", "name", "quotes")),
        ('name = "t"', 'nam = "t"', (":2", "did you mean 'name'")),
        ("version = 1", "version = 7", (":1", "version = 1")),
        ("version = 1", "", ("version",)),
        ("[columns.x]", "[columns.x", ("not TOML", "line 4")),
        ("[columns.x]", "[columns.y]", ("not TOML",)),
        ('role = "label"', "", ("no label",)),
        ('categories = ["a", "b"]', 'categories = "a"', (":11", "categories", "a list")),
        ('categories = ["a", "b"]', "", (":8", "categories")),
        ('kind = "number"   # metres', "", (":4", "no kind")),
    ],
)
def test_every_error_names_file_line_key_and_rule(
    tmp_path: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ContractError) as caught:
        read_contract(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_an_absent_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="modelyard data"):
        read_contract(tmp_path / "contract.toml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "contract.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ContractError, match="cannot be read"):
        read_contract(path)


def test_a_broken_file_is_not_overwritten(tmp_path: Path, contract: Contract) -> None:
    path = written(tmp_path, "broken [")
    with pytest.raises(ContractError):
        write_contract(path, contract)
    assert path.read_text() == "broken ["


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(name=texts, category=texts, words=texts, low=st.floats(allow_nan=False, allow_infinity=False))
def test_any_text_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, name: str, category: str, words: str, low: float
) -> None:
    contract = Contract(
        "t",
        (
            Column(name, "number", minimum=low, description=words),
            Column(name + "y", "category", "label", categories=(category,)),
        ),
        owner=words,
    )
    path = tmp_path_factory.mktemp("c") / "contract.toml"
    write_contract(path, contract)
    assert read_contract(path) == contract
    assert path.read_text() == render(contract)
