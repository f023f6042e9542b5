"""`modelyard bench URL|ENDPOINT`: load a server and say how it answers, with the HTTP ceiling beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.conform import header, told
from modelyard.cli.opened import the_project
from modelyard.cli.output import give, json_option, say, table
from modelyard.core.names import is_name
from modelyard.core.unit import seconds as duration
from modelyard.core.unit import show_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelyard.serve.load.bench import Bench
    from modelyard.serve.load.result import LoadResult


def time_of(text: str | float) -> float:
    """A time such as 5ms or 10s, in seconds."""
    found = duration(text)
    if not (math.isfinite(found) and found >= 0):
        raise ValueError(f"{text!r} is not a time")
    return found


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.argument("server", metavar="URL|ENDPOINT")
    @click.argument("endpoint", required=False)
    @click.option("--rate", type=click.FloatRange(0.1), help="Open loop at this many requests a second.")
    @click.option("--sweep", is_flag=True, help="Open loop at rates up to and past the capacity.")
    @click.option(
        "-c", "--connections", type=click.IntRange(1, 20_000), default=64, show_default=True,
        help="Connections kept open at once.",
    )  # fmt: skip
    @click.option("-t", "--time", "measured", type=time_of, default="10s", help="Time of each run.")
    @click.option("--warmup", type=time_of, default="1s", help="Time before each run that does not count.")
    @click.option("--arrivals", type=click.Choice(["poisson", "constant"]), default="poisson",
                  show_default=True, help="How an open loop's requests come.")  # fmt: skip
    @click.option("--deadline", type=time_of, help="An answer counts as good within this time.")
    @click.option("--items", type=click.IntRange(1, 65_536), default=1, help="Items of each request.")
    @click.option("--binary", is_flag=True, help="Send binary tensors.")
    @click.option("--body", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                  help="A JSON file of bodies or rows; made up from the metadata otherwise.")  # fmt: skip
    @click.option("--path", help="Post to this path instead of the endpoint's.")
    @click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Send with all requests.")
    @click.option("--ceiling/--no-ceiling", default=True, help="Load a constant answer too, for comparison.")
    @click.option(
        "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Sweep, and write a .svg or .png."
    )
    @click.option(
        "--seed",
        type=int,
        default=0,
        show_default=True,
        help="Of arrival times and of the rows that are sent.",
    )
    @json_option
    @click.pass_context
    def bench(ctx: click.Context, /, server: str, endpoint: str | None, as_json: bool, **given: Any) -> None:
        from modelyard.serve.load.bench import run
        from modelyard.serve.load.generator import LoadOptions

        plan = _plan(ctx, server, endpoint, given)
        options = LoadOptions(
            given["measured"], given["warmup"], given["connections"],
            given["deadline"] or math.inf, seed=given["seed"],
        )  # fmt: skip
        with told(as_json) as progress:
            found = run(plan, options, progress=progress)
        if given["plot"]:
            _draw(given["plot"], found)
        if as_json:
            give(found.to_json())
        else:
            _show(found)
        ctx.exit(0 if found.answered else 1)

    return bench


def _plan(ctx: click.Context, server: str, endpoint: str | None, given: dict[str, Any]) -> Any:
    from modelyard.core.errors import ServeError
    from modelyard.serve.load.bench import Plan

    if given["plot"] and given["plot"].suffix not in (".svg", ".png"):
        raise click.BadParameter("the plot is a .svg or .png file")
    if not given["measured"]:
        raise click.BadParameter("the time must be more than nothing")
    if given["rate"] and (given["sweep"] or given["plot"]):
        raise click.BadParameter("--rate asks for one rate; --sweep and --plot measure several")
    # What cannot be an endpoint's name is an address: localhost:8080.
    url = server if "://" in server or is_name(server) else f"http://{server}"
    if "://" not in url:
        from modelyard.serve.service import running

        service = running(the_project(ctx.obj).state)
        if service is None:
            raise ServeError("no service is running", value=server, fix="modelyard serve, or give a URL")
        url, endpoint = service.url, server
    return Plan(
        url.rstrip("/"), endpoint, rate=given["rate"], sweep=given["sweep"] or bool(given["plot"]),
        arrivals=given["arrivals"], items=given["items"], binary=given["binary"], body=_body(given["body"]),
        path=given["path"], headers=dict(header(text) for text in given["headers"]),
        ceiling=given["ceiling"],
    )  # fmt: skip


def _body(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{path} is no JSON: {error}") from None


def _draw(path: Path, found: Bench) -> None:
    from modelyard.serve.load.chart import draw

    named = {"server": found.server.sweep, "ceiling": found.ceiling and found.ceiling.sweep}
    draw(path, {name: swept for name, swept in named.items() if swept}, title=found.path)


def _show(found: Bench) -> None:
    from modelyard.serve.load.chart import text_chart

    say(f"{found.path} at {found.url}: requests of {found.body} bytes, answers of {found.answer} bytes")
    head = ("what", "asked/s", "answered/s", "good/s", "p50", "p90", "p99", "p99.9", "failed")
    sides = [("", found.server), *([("ceiling ", found.ceiling)] if found.ceiling else [])]
    rows = [_row(name + label, result) for name, side in sides for label, result in side.results()]
    table(head, rows)
    if found.server.sweep:
        say()
        say(text_chart(found.server.sweep))
        knee = found.server.sweep.knee
        say(f"it keeps up with {knee:.0f} a second" if knee else "it keeps up with none of these rates")
    if found.share is not None:
        say(f"the server answers {found.share:.0%} of what its HTTP engine alone would")
    _warn(found, sides, say)


def _warn(found: Bench, sides: list[tuple[str, Any]], tell: Callable[[str], None]) -> None:
    for name, side in sides:
        for label, result in side.results():
            what = f"{name}{label}" + (f" {result.rate:.0f}/s" if result.rate else "")
            if result.errors and not result.answered:
                tell(f"{what}: nothing was answered that was asked in the measured time; ask for less")
            if result.limited:
                tell(f"{what}: {result.limited}")
            for why, count in result.errors.items():
                tell(f"{what}: {count} times {why}")
            for status, count in result.statuses.items():
                if not 200 <= status < 300:
                    tell(f"{what}: {count} times status {status}")


def _row(label: str, result: LoadResult) -> tuple[str, ...]:
    asked = f"{result.rate:.0f}" if result.mode == "open" else "-"
    known = result.latency.total > 0
    shown = [
        show_seconds(result.latency.quantile(part)) if known else "-" for part in (0.5, 0.9, 0.99, 0.999)
    ]
    return (label, asked, f"{result.throughput:.0f}", f"{result.goodput:.0f}", *shown, str(result.failed))
