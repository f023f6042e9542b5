"""`modelyard endpoint show|set|promote|rollback`: who answers, changed by ledger entries only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say, table
from modelyard.core.errors import ReleaseError

if TYPE_CHECKING:
    from modelyard.lifecycle.project import Project
    from modelyard.release.endpoint_law import Change, EndpointState
    from modelyard.store.store import Store


def command(name: str, about: str) -> click.Command:
    group = click.Group(name, help=about)

    @group.command("show", help="What the endpoint serves, and how it came to that.")
    @json_option
    @click.pass_context
    def show(ctx: click.Context, as_json: bool) -> None:
        from modelyard.release.endpoint import Endpoints

        project = the_project(ctx.obj)
        with the_store(project) as store:
            endpoints = Endpoints(store)
            _print(
                store,
                endpoints.show(project.endpoint_name),
                endpoints.history(project.endpoint_name),
                as_json,
            )

    @group.command("set", help="Put a release before traffic: alone, as a canary, or as a shadow.")
    @click.argument("version", type=int)
    @click.option("--canary", type=click.FloatRange(0, 1), help="Give it this share of the traffic.")
    @click.option("--shadow", is_flag=True, help="Ask it too, without being heard.")
    @click.option("--why", default="set by hand", help="A word for the ledger.")
    @json_option
    @click.pass_context
    def set_policy(
        ctx: click.Context, version: int, canary: float | None, shadow: bool, why: str, as_json: bool
    ) -> None:
        from modelyard.release.endpoint import Endpoints

        project = the_project(ctx.obj)
        with the_store(project) as store:
            endpoints = Endpoints(store)
            policy = _policy(project, store, endpoints, version, canary, shadow)
            endpoints.set(project.endpoint_name, policy, why=why, by="modelyard endpoint set")
            _print(store, endpoints.show(project.endpoint_name), [], as_json)

    @group.command("promote", help="Make the candidate the champion; its canary must have passed.")
    @click.option("--why", default="", help="A word for the ledger.")
    @json_option
    @click.pass_context
    def promote(ctx: click.Context, why: str, as_json: bool) -> None:
        from modelyard.release.endpoint import Endpoints

        project = the_project(ctx.obj)
        with the_store(project) as store:
            state = Endpoints(store).promote(project.endpoint_name, why=why, by="modelyard endpoint promote")
            _print(store, state, [], as_json)

    @group.command("rollback", help="Back to the release that served before; takes effect within a second.")
    @click.option("--why", default="rolled back by hand", help="A word for the ledger.")
    @json_option
    @click.pass_context
    def rollback(ctx: click.Context, why: str, as_json: bool) -> None:
        from modelyard.release.endpoint import Endpoints

        project = the_project(ctx.obj)
        with the_store(project) as store:
            state = Endpoints(store).rollback(
                project.endpoint_name, why=why, by="modelyard endpoint rollback"
            )
            _print(store, state, [], as_json)

    return group


def _policy(
    project: Project, store: Store, endpoints: Any, version: int, canary: float | None, shadow: bool
) -> Any:
    from modelyard.release.policy import Canary, Shadow, Single
    from modelyard.release.registry import Registry

    if canary is not None and shadow:
        raise ReleaseError(
            "a release is either a canary or a shadow", fix="give one of --canary and --shadow"
        )
    release = Registry(store, ()).get(project.name, version).digest
    if canary is None and not shadow:
        return Single(release)
    champion = endpoints.show(project.endpoint_name).champion
    if shadow:
        return Shadow(champion, release)
    return Canary(champion, release, float(canary or 0.0), salt=release[-8:])


def _print(store: Store, state: EndpointState, history: list[Change], as_json: bool) -> None:
    from modelyard.release.policy import Canary
    from modelyard.release.registry import Registry

    registry = Registry(store, ())

    def named(digest: str) -> str:
        release = registry.by_digest(digest)
        return f"{release.name} {release.version}"

    if as_json:
        give(
            {
                "endpoint": state.name,
                "generation": state.generation,
                "since": state.since,
                "policy": state.policy.to_json(),
                "history": [
                    {
                        "index": item.index,
                        "time": item.time,
                        "claim": item.claim,
                        "policy": item.policy.to_json(),
                        "by": item.by,
                        "why": item.why,
                        "refused": item.refused,
                    }
                    for item in history
                ],
            }
        )
        return
    served = ", ".join(named(digest) for digest in state.policy.releases)
    share = f", {state.policy.fraction:.0%} to the candidate" if isinstance(state.policy, Canary) else ""
    say(f"{state.name}: {state.policy.kind} · {served}{share} · since {state.since[:19]}")
    rows = [
        (
            item.time[:19],
            item.claim.removeprefix("endpoint."),
            ", ".join(named(digest) for digest in item.policy.releases),
            item.by,
            f"refused: {item.refused}" if item.refused else item.why,
        )
        for item in reversed(history)
    ]
    if rows:
        say()
        table(("when", "change", "to", "by", "why"), rows)
