"""The process's own copy of what it serves, on disk: it starts from here when the store is away.

<state>/routing/trusted/*.pem              the keys that may sign
<state>/routing/releases/<hex>/...         bundles, as signed
<state>/routing/endpoints/<name>.json      generation and policy, written after the bundles it names
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

import orjson

from modelyard.core.digest import Digest
from modelyard.core.errors import ModelyardError, ReleaseError, ServeError
from modelyard.core.files import write_atomic
from modelyard.release.bundle import Bundle, read_bundle, write_bundle
from modelyard.release.key import TRUSTED, TrustedKey, trusted_keys
from modelyard.release.policy import Policy, policy_from_json

FORMAT = 1
"""Version of `endpoints/<name>.json`; raise it when an older reader would misread a field."""

_LOG = logging.getLogger("modelyard.serve")


class Shelf:
    """Bundles and routing on disk. Every bundle is verified at every reading."""

    def __init__(self, state: Path, keys: Path) -> None:
        self._folder = state / "routing"
        self._keys = self._trust(keys)

    @property
    def keys(self) -> tuple[TrustedKey, ...]:
        """The keys whose releases are believed."""
        return self._keys

    def policy(self, endpoint: str) -> tuple[int, Policy] | None:
        """What the endpoint served last, `None` when it never did or the file cannot be read."""
        path = self._path(endpoint)
        try:
            value = orjson.loads(path.read_bytes())
            if value["format"] != FORMAT:
                raise ValueError(f"format {value['format']}")  # noqa: TRY301 - one handler for all that is wrong
            return int(value["generation"]), policy_from_json(value["policy"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, ModelyardError) as error:
            _LOG.warning("the routing snapshot %s is not read: %s", path.name, error)
            return None

    def bundle(self, release: Digest) -> Bundle | None:
        """A release's verified files, `None` when they are not here; a damaged copy is thrown away."""
        folder = self._release(release)
        if not folder.exists():
            return None
        try:
            bundle = read_bundle(folder, self._keys)
        except ReleaseError as error:
            _LOG.warning("the copy of release %s is thrown away: %s", release, error)
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return bundle if bundle.digest == release else None

    def has(self, release: Digest) -> bool:
        """Whether there is a copy of a release, right or damaged."""
        return self._release(release).exists()

    def put(self, bundle: Bundle) -> None:
        """Keeps a verified bundle."""
        write_bundle(self._release(bundle.digest), bundle)

    def route(self, endpoint: str, generation: int, policy: Policy) -> None:
        """Keeps a policy, whose bundles must be here already."""
        value = {"format": FORMAT, "generation": generation, "policy": policy.to_json()}
        write_atomic(self._path(endpoint), orjson.dumps(value))

    def keep(self, releases: Collection[Digest]) -> None:
        """Throws away every bundle but these."""
        wanted = {self._release(release).name for release in releases}
        for folder in (self._folder / "releases").glob("*"):
            if folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def _path(self, endpoint: str) -> Path:
        return self._folder / "endpoints" / f"{endpoint}.json"

    def _release(self, release: Digest) -> Path:
        return self._folder / "releases" / release.removeprefix("sha256:")

    def _trust(self, folder: Path) -> tuple[TrustedKey, ...]:
        """The keys in the folder, copied; when the folder is gone with the store, the copies."""
        found = trusted_keys(folder)
        if found:
            for key in found:
                write_atomic(self._folder / TRUSTED / f"{key.hint[:16]}.pem", key.pem)
            for path in (self._folder / TRUSTED).glob("*.pem"):
                # A key that is trusted no more must not live on here.
                if path.stem not in {key.hint[:16] for key in found}:
                    path.unlink()
            return found
        if (folder / TRUSTED).exists() or not (copied := trusted_keys(self._folder)):
            raise ServeError(
                "no key is trusted to sign releases",
                value=str(folder / TRUSTED),
                rule="one public key or more, as *.pem",
                fix="make a release first, or name the keys' folder",
            )
        return copied
