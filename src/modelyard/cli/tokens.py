"""`modelyard tokens add|list|remove`: who may use the project's service."""

from __future__ import annotations

import click

from modelyard.cli.opened import the_project
from modelyard.cli.output import give, json_option, say, table

ROLES = ("predict", "feedback", "operate")


def command(name: str, about: str) -> click.Command:
    group = click.Group(name, help=about)

    @group.command("add", help="Make a token and show it, this once.")
    @click.argument("token_name", metavar="NAME")
    @click.option("--role", "roles", type=click.Choice(ROLES), multiple=True, default=("predict",),
                  show_default=True, help="What it allows; may be given more than once.")  # fmt: skip
    @click.option(
        "--rate", type=click.FloatRange(min=0, min_open=True), help="Requests a second (default: no limit)."
    )
    @click.option("--burst", type=click.IntRange(1), help="Requests at once (default: a second's worth).")
    @json_option
    @click.pass_context
    def add(
        ctx: click.Context,
        token_name: str,
        roles: tuple[str, ...],
        rate: float | None,
        burst: int | None,
        as_json: bool,
    ) -> None:
        from modelyard.core.clock import SYSTEM_CLOCK, iso
        from modelyard.serve.access.token import Role, new_token
        from modelyard.serve.access.token_file import add_token, token_path

        path = token_path(the_project(ctx.obj).state)
        given: tuple[Role, ...] = tuple(dict.fromkeys(roles))  # type: ignore[arg-type]
        token, text = new_token(token_name, given, created=iso(SYSTEM_CLOCK.now()), rate=rate, burst=burst)
        add_token(path, token)
        if as_json:
            give({"name": token.name, "roles": list(token.roles), "token": text})
            return
        say(text)
        click.echo(
            "This is the only time it is shown: only its hash is kept. Send it as: "
            "Authorization: Bearer TOKEN",
            err=True,
        )

    @group.command("list", help="The tokens by name; the tokens themselves are nowhere kept.")
    @json_option
    @click.pass_context
    def list_(ctx: click.Context, as_json: bool) -> None:
        from modelyard.serve.access.token_file import read_tokens, token_path

        tokens = read_tokens(token_path(the_project(ctx.obj).state))
        if as_json:
            facts = ("name", "roles", "created", "rate", "burst")
            give([{key: token.to_json()[key] for key in facts} for token in tokens])
        elif not tokens:
            say("there is no token; make one with: modelyard tokens add NAME --role predict")
        else:
            rows = [
                (
                    token.name,
                    ", ".join(token.roles),
                    "-" if token.rate is None else f"{token.rate:g}/s, {token.burst} at once",
                    token.created[:19],
                )
                for token in tokens
            ]
            table(("token", "roles", "rate", "made"), rows)

    @group.command("remove", help="Take a token back; a running service refuses it within a second.")
    @click.argument("token_name", metavar="NAME")
    @json_option
    @click.pass_context
    def remove(ctx: click.Context, token_name: str, as_json: bool) -> None:
        from modelyard.serve.access.token_file import remove_token, token_path

        remove_token(token_path(the_project(ctx.obj).state), token_name)
        give({"removed": token_name}) if as_json else say(f"{token_name} is removed")

    return group
