"""`modelyard ledger verify|show|export`: the evidence itself."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, mark, say, table


def command(name: str, about: str) -> click.Command:
    group = click.Group(name, help=about)

    @group.command("verify", help="Check the whole chain, entry by entry.")
    @json_option
    @click.pass_context
    def verify(ctx: click.Context, as_json: bool) -> None:
        with the_store(the_project(ctx.obj)) as store:
            count = store.ledger.verify()
            head = store.ledger.head()
        digest = head.hash if head else ""
        if as_json:
            give({"entries": count, "head": digest, "holds": True})
        else:
            say(f"{count:,} entries, the chain holds; head {digest or 'none'}")

    @group.command("show", help="The newest entries, or those of one claim or subject.")
    @click.option("--claim", help="Only this claim, such as infra.4.")
    @click.option("--subject", help="Only this subject: a digest, or endpoint:NAME.")
    @click.option("--last", default=20, show_default=True, type=click.IntRange(1), help="How many.")
    @json_option
    @click.pass_context
    def show(ctx: click.Context, claim: str | None, subject: str | None, last: int, as_json: bool) -> None:
        with the_store(the_project(ctx.obj)) as store:
            found = store.ledger.entries(claim=claim, subject=subject, limit=last, newest_first=True)
        if as_json:
            give([entry.to_json() for entry in found])
            return
        rows = []
        for entry in found:
            why = entry.body.get("why", "") if isinstance(entry.body, dict) else ""
            subject_text = entry.subject.removeprefix("sha256:")[:20]
            rows.append(
                (str(entry.index), entry.time[:19], entry.claim, mark(entry.passed), subject_text, str(why))
            )
        table(("entry", "when", "claim", "", "subject", "why"), rows)

    @group.command("export", help="Every entry as a JSON line; verifies without Modelyard (see docs).")
    @click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file to write.")
    @json_option
    @click.pass_context
    def export(ctx: click.Context, output: Path | None, as_json: bool) -> None:
        from modelyard.core.files import write_atomic

        with the_store(the_project(ctx.obj)) as store:
            if output is None:
                for line in store.ledger.export():
                    say(line)
                return
            lines = list(store.ledger.export())
        write_atomic(output, "".join(line + "\n" for line in lines).encode())
        if as_json:
            give({"entries": len(lines), "file": str(output)})
        else:
            say(f"{len(lines):,} entries in {output}")

    return group
