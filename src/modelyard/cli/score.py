"""`modelyard score [note]`: all 28 tests, each with its evidence or the command that would produce it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say

if TYPE_CHECKING:
    from modelyard.score.score import Score


def command(name: str, about: str) -> click.Command:
    @click.group(name, help=about, invoke_without_command=True)
    @json_option
    @click.pass_context
    def group(ctx: click.Context, as_json: bool) -> None:
        if ctx.invoked_subcommand is not None:
            return
        from modelyard.lifecycle.scoring import score_of

        project = the_project(ctx.obj)
        with the_store(project) as store:
            found = score_of(project, store)
        if as_json:
            give(found.to_json())
        else:
            _show(found)

    @group.command("note", help="Record a test done by hand: half a point, with a link to its document.")
    @click.argument("test")
    @click.option("--link", required=True, help="Where the documented result is.")
    @click.option("--author", required=True, help="Who did it.")
    @json_option
    @click.pass_context
    def note(ctx: click.Context, test: str, link: str, author: str, as_json: bool) -> None:
        from modelyard.lifecycle.noting import note_by_hand

        project = the_project(ctx.obj)
        with the_store(project) as store:
            entry = note_by_hand(project, store, test, link=link, author=author)
        if as_json:
            give(entry.to_json())
        else:
            say(f"noted as entry {entry.index}: half a point for {test}")

    return group


def _show(found: Score) -> None:
    section = ""
    for line in found.lines:
        if line.section != section:
            section = line.section
            say()
            say(click.style(f"{section}  {dict(found.sections)[section]:g} of 7", bold=True))
        evidence = f"entry {line.entry}: {line.why}" if line.points else f"{line.missing} → {line.command}"
        say(f"  {line.points:<4g} {line.test:<13} {line.title}")
        say(click.style(f"  {'':<4} {'':<13} {evidence}", dim=True))
    say()
    say(click.style(f"ML Test Score {found.total:g}", bold=True) + f": {found.band}")
