"""`modelyard completion SHELL`: the script that makes a shell complete our commands."""

from __future__ import annotations

import click

from modelyard.cli.output import give, json_option, say


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=f'{about} For example: eval "$(modelyard completion bash)"')
    @click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
    @json_option
    def completion(shell: str, as_json: bool) -> None:
        from click.shell_completion import get_completion_class

        from modelyard.cli.main import root

        made = get_completion_class(shell)
        if made is None:
            raise click.ClickException(f"no completion is known for {shell}")
        source = made(root, {}, "modelyard", "_MODELYARD_COMPLETE").source()
        if as_json:
            give({"shell": shell, "script": source})
        else:
            say(source)

    return completion
