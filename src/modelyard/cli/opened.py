"""The project and its store, opened for one command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.core.errors import ProjectError

if TYPE_CHECKING:
    from modelyard.lifecycle.project import Project
    from modelyard.store.store import Store


def the_project(folder: str | None) -> Project:
    """The project of a folder, or of the current one and those above."""
    from modelyard.lifecycle.project_file import find_project, read_project

    if folder is not None and not Path(folder).is_dir():
        # A mistyped folder inside of a project must not reach the project around it.
        raise ProjectError("-C names a folder that is not there", value=folder)
    return read_project(find_project(Path(folder or ".").resolve()))


@contextmanager
def the_store(project: Project) -> Iterator[Store]:
    """The project's store, closed afterwards."""
    from modelyard.lifecycle.project import expand
    from modelyard.store.store import open_store

    try:
        records, objects = expand(project.store.records), expand(project.store.objects)
    except KeyError as error:
        raise ProjectError(
            "an environment variable that [store] names is not set",
            value=str(error.args[0]),
            fix=f"set it, for example: export {error.args[0]}=...",
        ) from error
    store = open_store(project.store_root, records=records, objects=objects)
    try:
        yield store
    finally:
        store.close()
