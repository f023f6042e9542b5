"""The user's `recipe.py`: loading it, calling it, and saying clearly what is wrong with it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from modelyard.core.digest import Digest, digest_bytes, digest_json, short
from modelyard.core.errors import ModelyardError, TrainError
from modelyard.core.names import did_you_mean
from modelyard.train.blame import blame
from modelyard.train.dataset import Task
from modelyard.train.siblings import project_imports, sources


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: the user's file and function, the metric, the search's limits and the seed.

    `function(trial)` in `path` returns an estimator, a torch module or a `Training`. A search makes at
    most `trials` trials in at most `budget` seconds (`None`: no limit). `epochs` and `batch_size`
    override what the recipe says for torch.
    """

    path: Path
    function: str = "build"
    task: Task = "classification"
    metric: str = "accuracy"
    trials: int = 20
    budget: float | None = None
    seed: int = 0
    epochs: int | None = None
    batch_size: int | None = None

    def code(self) -> Digest:
        """The digest of the recipe's file and of every file of the project that it imports."""
        folder = self.path.resolve().parent
        return digest_json(
            {
                str(path.relative_to(folder)): digest_bytes(_read(path))
                for path in sources(self.path.resolve())
            }
            | {"function": self.function}
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recipe whose file has been run. `function` is the user's own; call it through `build`."""

    recipe: Recipe
    function: Callable[[Any], object]
    code: Digest
    torch: bool
    """Whether the project's code mentions torch, which is then seeded before the recipe is called."""
    modules: dict[str, ModuleType] = field(default_factory=dict)

    def build(self, trial: Any) -> object:
        """Calls the user's function; whatever it raises becomes a `TrainError` that names file and line.

        Imports of files beside the recipe work inside the function too. A pruned trial is passed on.
        """
        with self.guard(f"{self.recipe.function}(trial) raised"):
            return self.function(trial)

    def guard(self, doing: str) -> AbstractContextManager[None]:
        """Runs code of the user's: project imports work, and errors become a `TrainError`."""
        return guarded(self.recipe, self.modules, doing)


@contextmanager
def guarded(recipe: Recipe, modules: dict[str, ModuleType], doing: str) -> Iterator[None]:
    """As `Loaded.guard`, for a recipe that may still be loading; `modules` are those it has imported."""
    folder = recipe.path.resolve().parent
    with project_imports(folder, modules):
        try:
            yield
        except ModelyardError:
            raise
        except (Exception, SystemExit) as error:
            if type(error).__name__ == "TrialPruned":
                raise
            raise blame(error, folder, doing=doing, path=recipe.path) from error


def load(recipe: Recipe) -> Loaded:
    """Runs the recipe's file under a module name of its own and finds its function.

    Files beside it can be imported by it; afterwards `sys.path` is as before and no module is left under
    a name that another project could use. Raises `TrainError` when the file is missing, does not parse,
    raises, imports what is not there, or has no such function that takes one argument.
    """
    path = recipe.path.resolve()
    code = _read(path)
    modules: dict[str, ModuleType] = {}
    name = f"modelyard_recipe_{short(digest_bytes(str(path).encode() + code))}"
    module = ModuleType(name)
    module.__file__ = str(path)
    try:
        compiled = compile(code, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise blame(error, path.parent, doing="the file is not Python", path=recipe.path) from error
    digest, mentions = recipe.code(), any(b"torch" in _read(file) for file in sources(path))
    # Dataclasses, pickles of the user's own and the exporter look the module up by its name.
    sys.modules[name] = module
    with guarded(recipe, modules, "running the file raised"):
        exec(compiled, module.__dict__)  # noqa: S102 - running the user's recipe is what this is for
    return Loaded(recipe, _function(recipe, module), digest, mentions, modules)


def load_build(recipe: Recipe) -> Callable[[Any], object]:
    """The user's build function, guarded: its errors are `TrainError`s. See `load`."""
    return load(recipe).build


def _function(recipe: Recipe, module: ModuleType) -> Callable[[Any], object]:
    own = [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    function = getattr(module, recipe.function, None)
    if not callable(function):
        raise TrainError(
            f"{recipe.path.name} has no function {recipe.function!r}",
            where=str(recipe.path),
            rule=f"def {recipe.function}(trial) returns an estimator or a torch module",
            fix=did_you_mean(recipe.function, own) if own else f"write def {recipe.function}(trial): ...",
        )
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise TrainError(
            f"{recipe.function} cannot be called with one argument",
            value=f"{recipe.function}{inspect.signature(function)}",
            where=f"{recipe.path}:{function.__code__.co_firstlineno}"
            if inspect.isfunction(function)
            else str(recipe.path),
            rule=f"def {recipe.function}(trial)",
            fix="take the trial and ask it for the hyper-parameters",
        ) from error
    return function  # type: ignore[no-any-return]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrainError(
            "the recipe cannot be read",
            where=str(path),
            value=error.strerror,
            fix="check the recipe's name in modelyard.toml, for example recipe.py:build",
        ) from error
