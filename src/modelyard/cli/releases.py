"""`modelyard releases`: every version, and which one answers."""

from __future__ import annotations

import click

from modelyard.cli.opened import the_project, the_store
from modelyard.cli.output import give, json_option, say, table


def command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @click.option("--verify", is_flag=True, help="Check every bundle's signature again.")
    @json_option
    @click.pass_context
    def releases(ctx: click.Context, verify: bool, as_json: bool) -> None:
        from modelyard.core.digest import short
        from modelyard.release.endpoint import Endpoints
        from modelyard.release.key import trusted_keys
        from modelyard.release.registry import Registry

        project = the_project(ctx.obj)
        with the_store(project) as store:
            registry = Registry(store, trusted_keys(project.keys))
            found = registry.list(project.name)
            endpoints = Endpoints(store)
            serving = {
                digest: endpoint
                for endpoint in endpoints.names()
                for digest in endpoints.show(endpoint).policy.releases
            }
            if verify:
                for release in found:
                    registry.fetch(release)
        if as_json:
            give(
                [
                    {
                        "name": item.name,
                        "version": item.version,
                        "digest": item.digest,
                        "created": item.created,
                        "lineage": dict(item.lineage),
                        "endpoint": serving.get(item.digest),
                    }
                    for item in found
                ]
            )
            return
        if not found:
            say("no release yet; make one with: modelyard run")
        rows = [
            (
                f"{item.name} {item.version}",
                short(item.digest),
                item.created[:19],
                serving.get(item.digest, ""),
            )
            for item in reversed(found)
        ]
        table(("release", "digest", "created", "answers at"), rows)
        if verify:
            say(f"{len(found)} signatures verified")

    return releases
