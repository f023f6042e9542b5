"""The public names: what users may import, sorted, resolvable, and light until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import modelyard


def test_the_list_is_sorted_and_every_name_resolves() -> None:
    assert modelyard.__all__ == sorted(modelyard.__all__)
    for name in modelyard.__all__:
        assert getattr(modelyard, name) is not None
    assert set(modelyard._WHERE) | {"__version__"} == set(modelyard.__all__)


def test_a_class_is_the_one_of_its_room() -> None:
    for name, module in modelyard._WHERE.items():
        made = getattr(modelyard, name)
        assert made.__name__ == name
        assert made.__module__ == module
        assert made.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no 'Mesurement'"):
        _ = modelyard.Mesurement


def test_importing_star_gives_the_public_names() -> None:
    code = "from modelyard import *; print(sorted(name for name in dir() if name[0] != '_'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([name for name in modelyard.__all__ if name[0] != "_"])
