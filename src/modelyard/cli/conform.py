"""`modelyard conform URL`: what of the Open Inference Protocol a server holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelyard.cli.output import give, json_option, say, table
from modelyard.core.progress import Progress, quiet

if TYPE_CHECKING:
    from modelyard.serve.conform.kit import Line, Report
    from modelyard.serve.conform.tensor import Sample

_WORDS = {"holds": "holds", "fails": "FAILS", "not applicable": "-"}


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.argument("url")
    @click.option("--model", "models", multiple=True, help="Test this model (default: all that are listed).")
    @click.option("--grpc", metavar="HOST:PORT", help="Test the server's gRPC door too.")
    @click.option("--inputs", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                  help='Valid inputs, as {"inputs": [...]}; else made up from the metadata.')  # fmt: skip
    @click.option(
        "--header", "headers", multiple=True, metavar="NAME:VALUE", help="Send this with all requests."
    )
    @click.option("--control", is_flag=True, help="Allow the cases that unload and load the model.")
    @click.option("--timeout", type=click.FloatRange(0.1), default=10.0, show_default=True,
                  help="Seconds for one request.")  # fmt: skip
    @click.option("--budget", type=click.FloatRange(1), default=300.0, show_default=True,
                  help="Seconds for everything.")  # fmt: skip
    @click.option("--all", "everything", is_flag=True, help="List what holds too, with remarks.")
    @json_option
    @click.pass_context
    def conform(
        ctx: click.Context,
        url: str,
        models: tuple[str, ...],
        grpc: str | None,
        inputs: Path | None,
        headers: tuple[str, ...],
        control: bool,
        timeout: float,
        budget: float,
        everything: bool,
        as_json: bool,
    ) -> None:
        from modelyard.serve.conform.client import Client
        from modelyard.serve.conform.kit import conform as run

        sent = dict(header(text) for text in headers)
        client = Client(url.rstrip("/"), timeout, headers=sent, grpc=grpc, control=control)
        with told(as_json) as progress:
            report = run(client, models=models, sample=_sample(inputs), budget=budget, progress=progress)
        if as_json:
            give(report.to_json())
        else:
            _show(report, everything)
        ctx.exit(0 if report.conforms else 1)

    return conform


def header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not value.strip() or not text.isprintable():
        raise click.BadParameter(f"{name!r} is not NAME:VALUE")
    return name.strip(), value.strip()


def _sample(path: Path | None) -> Sample | None:
    from modelyard.serve.conform.tensor import read_sample

    if path is None:
        return None
    try:
        return read_sample(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{path} is no JSON: {error}") from None


@contextmanager
def told(as_json: bool) -> Iterator[Progress]:
    """A line of progress on a terminal; nothing where the output is read by a machine."""
    if as_json or not sys.stderr.isatty():
        yield quiet
        return

    def tell(fraction: float, text: str) -> None:
        click.echo(f"\r\x1b[K{fraction:4.0%} {text}", nl=False, err=True)

    yield tell
    click.echo("\r\x1b[K", nl=False, err=True)


def _show(report: Report, everything: bool) -> None:
    for model in dict.fromkeys(line.model for line in report.lines):
        lines = [line for line in report.lines if line.model == model]
        shown = lines if everything else [line for line in lines if line.outcome.result != "not applicable"]
        say(f"{model} at {report.url}")
        rows = [(line.case.id, line.case.level, _word(line), _remark(line)) for line in shown]
        table(("case", "level", "result", "what"), rows)
        say()
    for line in report.failures():
        say(f"{line.case.id} ({line.case.level}; the protocol: {line.case.section}): {line.outcome.why}")
        if request := report.request(line):
            say(f"    {request}")
    say(
        f"{report.count('holds')} hold, {report.count('fails')} fail, "
        f"{report.count('not applicable')} do not apply"
        + ("" if report.complete else "; the time ran out before the last case")
    )
    say("it conforms: every required case holds" if report.conforms else "it does not conform")


def _word(line: Line) -> str:
    word = _WORDS[line.outcome.result]
    return click.style(word, fg="red", bold=True) if word == "FAILS" else word


def _remark(line: Line) -> str:
    why = line.outcome.why if line.outcome.result == "not applicable" else ""
    return f"{line.case.title} ({why})" if why else line.case.title
