from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from modelyard.core.errors import TrainError
from modelyard.train.recipe import Recipe, load, load_build
from modelyard.train.siblings import sources

Make = Callable[..., Recipe]


def test_the_function_is_found_and_called(recipe_of: Make) -> None:
    build = load_build(recipe_of("def build(trial):\n    return trial.number + 1\n"))
    assert build(SimpleNamespace(number=41)) == 42


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("x = 1\ndef build(trial)\n    pass\n", 2, "not Python"),
        ("def build(trial):\n    pass\nvalue = 1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("import no_such_library\n", 1, "install 'no_such_library'"),
        ("from math import no_such_name\n", 1, "correct the import"),
        ("import sys\nsys.exit(3)\n", 2, "must not end the process"),
        ("def build():\n    pass\n", 1, "one argument"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_with_its_line(
    recipe_of: Make, text: str, line: int, words: str
) -> None:
    recipe = recipe_of(text)
    with pytest.raises(TrainError) as caught:
        load(recipe)
    assert f"recipe.py:{line}" in str(caught.value)
    assert words in str(caught.value)


def test_a_missing_function_is_guessed(recipe_of: Make) -> None:
    with pytest.raises(TrainError, match=r"no function 'build'.*did you mean 'bild'"):
        load(recipe_of("def bild(trial):\n    pass\n"))


def test_a_missing_file_is_named(recipe_of: Make) -> None:
    recipe = recipe_of("")
    with pytest.raises(TrainError, match=r"nowhere\.py: the recipe cannot be read"):
        load(replace(recipe, path=recipe.path.with_name("nowhere.py")))


def test_an_error_in_build_names_the_line_even_through_a_library(recipe_of: Make) -> None:
    build = load_build(recipe_of("import json\n\ndef build(trial):\n    return json.loads('{')\n"))
    with pytest.raises(TrainError) as caught:
        build(None)
    assert "recipe.py:4" in str(caught.value)
    assert "JSONDecodeError" in str(caught.value)
    assert caught.value.value == "return json.loads('{')"


def test_files_beside_it_are_imported_also_late_and_do_not_stay(recipe_of: Make) -> None:
    recipe = recipe_of("import shapes\ndef build(trial):\n    import late\n    return shapes.N + late.N\n")
    (recipe.path.parent / "shapes.py").write_text("N = 1\n")
    (recipe.path.parent / "late.py").write_text("N = 2\n")
    before = list(sys.path), set(sys.modules)
    loaded = load(recipe)
    assert loaded.build(None) == 3
    assert list(sys.path) == before[0]
    added = set(sys.modules) - before[1]
    assert [name for name in added if not name.startswith("modelyard_recipe_")] == []


def test_two_projects_with_the_same_file_names_do_not_mix(recipe_of: Make) -> None:
    text = "import features\ndef build(trial):\n    import features as again\n    return again.NAME\n"
    builds = []
    for name in ("one", "two"):
        recipe = recipe_of(text, folder=name)
        (recipe.path.parent / "features.py").write_text(f"NAME = {name!r}\n")
        builds.append(load_build(recipe))
    assert [build(None) for build in builds] == ["one", "two"]
    assert builds[0](None) == "one"


def test_a_module_of_the_same_name_is_put_back(recipe_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = SimpleNamespace(NAME="outside")
    monkeypatch.setitem(sys.modules, "features", outside)  # type: ignore[arg-type]
    recipe = recipe_of("import features\ndef build(trial):\n    return features.NAME\n")
    (recipe.path.parent / "features.py").write_text("NAME = 'mine'\n")
    assert load_build(recipe)(None) == "mine"
    assert sys.modules["features"] is outside  # type: ignore[comparison-overlap]


def test_an_edit_within_the_same_second_is_seen(recipe_of: Make) -> None:
    recipe = recipe_of("from beside import N\ndef build(trial):\n    return N\n")
    for number in (1, 2, 3):
        (recipe.path.parent / "beside.py").write_text(f"N = {number}\n")
        assert load_build(recipe)(None) == number


def test_an_error_in_a_file_beside_it_names_that_file(recipe_of: Make) -> None:
    recipe = recipe_of("import shapes\ndef build(trial):\n    return None\n")
    (recipe.path.parent / "shapes.py").write_text("\n\nN = undefined\n")
    with pytest.raises(TrainError, match=r"shapes\.py:3: .*NameError"):
        load(recipe)
    (recipe.path.parent / "shapes.py").write_text("\nN = = 1\n")
    with pytest.raises(TrainError, match=r"shapes\.py:2: shapes\.py is not Python"):
        load(recipe)


def test_the_code_is_the_recipe_and_what_it_imports(recipe_of: Make) -> None:
    recipe = recipe_of("def build(trial):\n    from package.inner import N\n    return N\n")
    package = recipe.path.parent / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("from . import deep\nN = deep.N\n")
    (package / "deep.py").write_text("N = 7\n")
    (recipe.path.parent / "unrelated.py").write_text("")
    found = [str(path.relative_to(recipe.path.parent)) for path in sources(recipe.path)]
    assert found == ["package/__init__.py", "package/deep.py", "package/inner.py", "recipe.py"]
    assert load_build(recipe)(None) == 7
    before = recipe.code()
    (package / "deep.py").write_text("N = 8\n")
    assert recipe.code() != before
    (recipe.path.parent / "unrelated.py").write_text("changed = True\n")
    (package / "deep.py").write_text("N = 7\n")
    assert recipe.code() == before
