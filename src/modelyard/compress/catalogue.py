"""The passes that are known by name, built in and from plugins, through one door."""

from __future__ import annotations

from modelyard.compress.pass_protocol import Pass
from modelyard.core.names import Plugins

PASSES: Plugins[tuple[Pass, ...]] = Plugins("modelyard.passes", {})
"""Each name stands for one or more alternatives of which the gate keeps the best."""
