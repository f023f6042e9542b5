"""`modelyard inspect MODEL`: what a model is made of, and where its time goes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say, table
from modelyard.core.errors import ModelError

if TYPE_CHECKING:
    from modelyard.compress.inspect.inspection import Inspection
    from modelyard.model.model import Model


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=f"{about} MODEL is an ONNX file, or the version of a release.")
    @click.argument("model")
    @click.option("--runtime", default="onnxruntime", show_default=True, help="The engine to look into.")
    @click.option(
        "--html", type=click.Path(dir_okay=False, path_type=Path), help="Draw the graph into a page."
    )
    @click.option("--no-machine", is_flag=True, help="Do not measure what the machine can do.")
    @json_option
    @click.pass_context
    def inspect(
        ctx: click.Context, model: str, runtime: str, html: Path | None, no_machine: bool, as_json: bool
    ) -> None:
        from modelyard.compress.inspect.inspection import inspect_model
        from modelyard.compress.inspect.roofline import roof
        from modelyard.model.runtimes import RUNTIMES

        engine = RUNTIMES.get(runtime).name
        title, found, notes = _the_model(ctx.obj, model)
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


def _the_model(folder: str | None, text: str) -> tuple[str, Model, tuple[str, ...]]:
    """The model of a file or a release, what to call it, and what is to be said of it."""
    from modelyard.compress.inspect.foreign import read_any

    path = Path(text)
    if path.is_file():
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError("the model file cannot be read", value=text, rule=error.strerror) from error
        model, notes = read_any(data)
        return path.name, model, notes
    if not text.isdecimal():
        raise ModelError(
            "there is no such file", value=text, rule="an ONNX file, or the number of a release",
            fix="list the releases with: modelyard releases",
        )  # fmt: skip
    from modelyard.release.key import trusted_keys
    from modelyard.release.load import load_release
    from modelyard.release.registry import Registry

    project = the_project(folder)
    with the_store(project) as store:
        registry = Registry(store, trusted_keys(project.keys))
        release = registry.get(project.name, int(text))
        return f"{release.name} {release.version}", load_release(registry.fetch(release)).model, ()


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
