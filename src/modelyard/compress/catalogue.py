"""The passes that are known by name, built in and from plugins, through one door."""

from __future__ import annotations

from modelyard.compress.pass_protocol import Pass
from modelyard.compress.passes.graph import GraphPass
from modelyard.compress.passes.int8_dynamic import DynamicInt8
from modelyard.compress.passes.int8_static import StaticInt8
from modelyard.core.names import Plugins

PASSES: Plugins[tuple[Pass, ...]] = Plugins(
    "modelyard.passes",
    {
        "graph": (GraphPass(),),
        "int8-static": (StaticInt8("s8"), StaticInt8("u8")),
        "int8-dynamic": (DynamicInt8(),),
    },
)
"""Each name stands for one or more alternatives, of which the gate keeps the best."""
