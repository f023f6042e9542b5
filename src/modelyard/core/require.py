"""The one door for heavy, optional libraries."""

from __future__ import annotations

import importlib
from typing import Any

from modelyard.core.errors import MissingExtra


def require(module: str, *, extra: str) -> Any:
    """Imports a module, or raises `MissingExtra` that names the extra to install.

    >>> require("json", extra="train").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and module.partition(".")[0] == error.name.partition(".")[0]:
            raise MissingExtra(module, extra) from error
        raise
