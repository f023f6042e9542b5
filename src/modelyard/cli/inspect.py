"""`modelyard inspect MODEL`: what a model is made of, and where its time goes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say, table
from modelyard.core.errors import ModelError, ProjectError
from modelyard.core.names import did_you_mean

if TYPE_CHECKING:
    from modelyard.compress.inspect.inspection import Inspection
    from modelyard.model.model import Model
    from modelyard.release.registry import Registry, Release

HOME = "onnxruntime"
_RULE = "an ONNX file, or a release: NAME, NAME@VERSION, VERSION or a digest"
_SHORT = 6
"""Hex digits that may stand for a digest, at least."""


def command(name: str, about: str) -> click.Command:
    @click.command(
        name, help=f"{about} MODEL is an ONNX file, a release (NAME, NAME@VERSION, VERSION) or its digest."
    )
    @click.argument("model")
    @click.option("--runtime", help="The engine to look into; a release's own, else onnxruntime.")
    @click.option(
        "--html", type=click.Path(dir_okay=False, path_type=Path), help="Draw the graph into a page."
    )
    @click.option("--no-machine", is_flag=True, help="Do not measure what the machine can do.")
    @json_option
    @click.pass_context
    def inspect(
        ctx: click.Context,
        model: str,
        runtime: str | None,
        html: Path | None,
        no_machine: bool,
        as_json: bool,
    ) -> None:
        from modelyard.compress.inspect.inspection import inspect_model
        from modelyard.compress.inspect.roofline import roof
        from modelyard.model.runtimes import RUNTIMES

        if runtime is not None:
            RUNTIMES.get(runtime)
        title, found, notes, own = _the_model(ctx.obj, model)
        engine = RUNTIMES.get(runtime or own).name
        seen = inspect_model(found, runtime=engine, roof=None if no_machine else roof())
        if html is not None:
            _draw(html, seen, title)
        if as_json:
            document = seen.to_json()
            give({"model": title, **document} if isinstance(document, dict) else document)
            return
        _show(seen, title, notes)
        if html is not None:
            say(f"\ndrawn in {html}")

    return inspect


def _the_model(folder: str | None, text: str) -> tuple[str, Model, tuple[str, ...], str]:
    """The model of a file or a release, what to call it, what is to be said of it, and its runtime."""
    path = Path(text)
    if path.is_file():
        model, notes = _of_file(path)
        return path.name, model, notes, HOME
    from modelyard.release.key import trusted_keys
    from modelyard.release.load import load_release
    from modelyard.release.registry import Registry

    if path.is_dir():
        raise ModelError("this is a folder", value=text, rule=_RULE, fix="name the model's file in it")
    try:
        project = the_project(folder)
    except ProjectError as error:
        raise _unknown(path, []) from error
    with the_store(project) as store:
        registry = Registry(store, trusted_keys(project.keys))
        release = _the_release(registry, project.name, path)
        loaded = load_release(registry.fetch(release))
        title = f"{release.name} {release.version}"
        return title, loaded.model, (f"runs on {loaded.info.runtime}",), loaded.info.runtime.name


def _of_file(path: Path) -> tuple[Model, tuple[str, ...]]:
    from modelyard.compress.inspect.foreign import read_any
    from modelyard.model.limits import DEFAULT_LIMITS

    try:
        size = path.stat().st_size
        if size > DEFAULT_LIMITS.bytes:
            rule = f"at most {DEFAULT_LIMITS.bytes} bytes"
            raise ModelError("the model file is too large", value=size, rule=rule)
        return read_any(path.read_bytes())
    except OSError as error:
        raise ModelError("the model file cannot be read", value=str(path), rule=error.strerror) from error


def _the_release(registry: Registry, own: str, path: Path) -> Release:
    """The release that a text names: a version of the project's own, NAME, NAME@VERSION, or a digest."""
    text, every = str(path), registry.list()
    if text.isdecimal():
        return registry.get(own, int(text))
    digits = text.removeprefix("sha256:")
    if len(digits) >= _SHORT and set(digits) <= set("0123456789abcdef"):
        found = [item for item in every if item.digest.removeprefix("sha256:").startswith(digits)]
        if len(found) == 1:
            return found[0]
    name, at, version = text.partition("@")
    names = sorted({item.name for item in every})
    if name not in names or (at and not version.isdecimal()):
        raise _unknown(path, [*names, *(f"{item.name}@{item.version}" for item in every)])
    return registry.get(name, int(version) if at else None)


def _unknown(path: Path, releases: list[str]) -> ModelError:
    folder = path.parent
    files = [str(folder / item.name) for item in folder.glob("*.onnx")] if folder.is_dir() else []
    known = [*files, *releases]
    return ModelError(
        "there is no such model", value=str(path), rule=_RULE,
        fix=did_you_mean(str(path), known) if known else "list the releases with: modelyard releases",
    )  # fmt: skip


def _draw(path: Path, seen: Inspection, title: str) -> None:
    from modelyard.compress.inspect.page import page
    from modelyard.core.files import write_atomic

    write_atomic(path, page(seen, title).encode())


def _show(seen: Inspection, title: str, notes: tuple[str, ...]) -> None:
    from modelyard.compress.inspect.page import operator_rows, roof_text, summary_rows
    from modelyard.core.unit import show_seconds

    say(click.style(title, bold=True))
    for label, text in summary_rows(seen):
        say(f"{label:<12} {text}")
    say()
    table(("operator", "how many", "time", "share", ""), operator_rows(seen))
    dearest = sorted(seen.times.items(), key=lambda item: -item[1].seconds)[:10]
    rows = [
        (seen.facts.nodes[index].name, time.operator, show_seconds(time.seconds), roof_text(time))
        for index, time in dearest
        if time.seconds
    ]
    if rows:
        say()
        table(("node", "ran as", "time", "under the roof"), rows)
    fused = [
        f"{seen.facts.nodes[index].name} in {time.into}"
        for index, time in seen.times.items()
        if time.into not in ("", "folded")
    ]
    if fused:
        say(f"\nfused: {', '.join(fused)}")
    for note in (*notes, *seen.notes):
        say(f"note: {note}")
