"""What git says of a project's folder; nothing is changed, and no git at all is a fact too."""

from __future__ import annotations

import subprocess
from pathlib import Path

from modelyard.score.context import GitFacts


def git_facts(root: Path) -> GitFacts | None:
    """The commit, what differs from it below `root`, what is tracked, and the review; nothing without git."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    status = _git(root, "status", "--porcelain", "--untracked-files=all", "-z", "--", ".") or ""
    tracked = _git(root, "ls-files", "-z") or ""
    trailers = _git(root, "log", "-1", "--format=%(trailers:key=Reviewed-by,valueonly)") or ""
    merge = _git(root, "log", "-1", "--merges", "--format=%H", "HEAD") or ""
    return GitFacts(
        commit=commit.strip(),
        changed=tuple(entry[3:] for entry in status.split("\0") if len(entry) > 3),
        tracked=frozenset(name for name in tracked.split("\0") if name),
        review=trailers.strip() or (f"merge {merge.strip()[:12]}" if merge.strip() else ""),
    )


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
