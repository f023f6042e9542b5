"""Every command: its name, the file it lives in and one line about it. Nothing is imported to list them."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """Where a command lives and what it is for."""

    module: str
    about: str
    group: str


_START, _LOOP, _TRAFFIC, _WATCH, _STORE = (
    "Start here",
    "The loop, step by step",
    "Releases and traffic",
    "Watch",
    "The store",
)

COMMANDS: dict[str, Command] = {
    "init": Command("init", "Write a project that runs as it is.", _START),
    "check": Command("check", "Check the project without running it.", _START),
    "run": Command("run", "Run the loop: data to a monitored service.", _START),
    "why": Command("why", "Say which steps would run, and why.", _START),
    "data": Command("step", "Load, check, split and profile the data.", _LOOP),
    "train": Command("step", "Search the hyper-parameters and fit.", _LOOP),
    "compress": Command("compress", "Make the model smaller and faster, on evidence.", _LOOP),
    "validate": Command("step", "Hold the model against every requirement.", _LOOP),
    "release": Command("step", "Build and sign an immutable release.", _LOOP),
    "serve": Command("serve", "Start, stop or look at the prediction service.", _TRAFFIC),
    "releases": Command("releases", "List the releases.", _TRAFFIC),
    "endpoint": Command("endpoint", "Show or change who answers: set, promote, roll back.", _TRAFFIC),
    "tokens": Command("tokens", "Make, list and take back the service's tokens.", _TRAFFIC),
    "monitor": Command("monitor", "Judge the live predictions.", _WATCH),
    "debug": Command("debug", "Take one prediction apart, by its id.", _WATCH),
    "report": Command("report", "Write the report, one HTML page.", _WATCH),
    "score": Command("score", "The ML Test Score, from evidence.", _WATCH),
    "ledger": Command("ledger", "Verify, show or export the evidence.", _STORE),
    "inspect": Command("inspect", "Look into a model: operators, bytes, memory, time.", _STORE),
    "conform": Command("conform", "Hold any server against the Open Inference Protocol.", _WATCH),
    "bench": Command("bench", "Load a service and plot latency against load.", _WATCH),
    "export": Command("export", "Write a release for use elsewhere.", _STORE),
    "completion": Command("completion", "Print the shell completion script.", _STORE),
}
