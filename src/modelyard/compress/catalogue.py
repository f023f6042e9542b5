"""The passes that are known by name, built in and from plugins, through one door."""

from __future__ import annotations

from modelyard.compress.pass_protocol import Pass
from modelyard.compress.passes.graph import GraphPass
from modelyard.compress.passes.half import Half
from modelyard.compress.passes.int4_weights import Int4Weights
from modelyard.compress.passes.int8_dynamic import DynamicInt8
from modelyard.compress.passes.int8_static import StaticInt8
from modelyard.compress.passes.low_rank import LowRank
from modelyard.compress.passes.prune import MagnitudePrune
from modelyard.compress.passes.prune_structured import StructuredPrune
from modelyard.compress.passes.weight_sharing import WeightSharing
from modelyard.core.names import Plugins

PASSES: Plugins[tuple[Pass, ...]] = Plugins(
    "modelyard.passes",
    {
        "graph": (GraphPass(),),
        "int8-static": (StaticInt8("s8"), StaticInt8("u8")),
        "int8-static:entropy": (StaticInt8("s8", "entropy"), StaticInt8("u8", "entropy")),
        "int8-static:percentile": (StaticInt8("s8", "percentile"), StaticInt8("u8", "percentile")),
        "int8-static:sensitive": (StaticInt8("s8", floats=0.25), StaticInt8("u8", floats=0.25)),
        "int8-dynamic": (DynamicInt8(),),
        "int4-weights": (Int4Weights(), Int4Weights(arithmetic="int8")),
        "float16": (Half("float16"), Half("float16", "all")),
        "bfloat16": (Half("bfloat16"),),
        "prune": (MagnitudePrune(0.5), MagnitudePrune(pattern="2:4")),
        "prune-units": (StructuredPrune(0.25), StructuredPrune(0.5)),
        "low-rank": (LowRank(0.95), LowRank(0.9), LowRank(0.8)),
        "share": (WeightSharing(), WeightSharing(bits=4, conv_bits=6)),
    },
)
"""Each name stands for one or more alternatives, of which the gate keeps the best. What trains needs more
than rows: see `plan.py`, whose steps are these passes, any options of theirs, and those that train."""
