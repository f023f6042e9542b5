"""An exception of the user's code as a `TrainError` that names the file, the line and the next step."""

from __future__ import annotations

import traceback
from pathlib import Path

from modelyard.core.errors import TrainError


def blame(error: BaseException, folder: Path, *, doing: str, path: Path) -> TrainError:
    """What went wrong, at the last line of the project in the folder that was running.

    `path` is named when no line of the project was reached (an error inside a library, called by us).
    """
    if isinstance(error, SyntaxError) and error.filename and _inside(error.filename, folder):
        return TrainError(
            f"{Path(error.filename).name} is not Python: {error.msg}",
            where=f"{error.filename}:{error.lineno}",
            value=(error.text or "").strip() or None,
            fix="correct this line and run again",
        )
    where, line = str(path), None
    for frame in traceback.extract_tb(error.__traceback__):
        if _inside(frame.filename, folder):
            where, line = f"{frame.filename}:{frame.lineno}", frame.line or None
    text = str(error).strip().partition("\n")[0]
    kind = type(error).__name__
    return TrainError(
        f"{doing} {kind}: {text}" if text else f"{doing} {kind}", where=where, value=line, fix=_fix(error)
    )


def _fix(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install {error.name.partition('.')[0]!r} or correct the import"
    if isinstance(error, ImportError):
        return "correct the import"
    if isinstance(error, SystemExit):
        return "a recipe must not end the process: raise an error that says what is wrong"
    if isinstance(error, ValueError) and "FixedTrial" in str(error):
        return "the recipe asks for a hyper-parameter that was not searched: run the search again"
    return "correct the recipe and run again"


def _inside(name: str, folder: Path) -> bool:
    # Libraries are no code of the user's, even where the environment lies in the project's folder.
    path = Path(name)
    return path.is_relative_to(folder) and "site-packages" not in path.parts
