"""Every pass that a plan may name, built in or brought by a plugin, with the options it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.compress.catalogue import PASSES
from modelyard.compress.passes.distil import Distil
from modelyard.compress.passes.fine_tune import FineTune
from modelyard.compress.passes.graph import GraphPass
from modelyard.compress.passes.half import Half
from modelyard.compress.passes.int4_weights import Int4Weights
from modelyard.compress.passes.int8_dynamic import DynamicInt8
from modelyard.compress.passes.int8_static import StaticInt8
from modelyard.compress.passes.low_rank import LowRank
from modelyard.compress.passes.low_rank_gated import GatedLowRank
from modelyard.compress.passes.prune import MagnitudePrune
from modelyard.compress.passes.prune_gradual import GradualPrune
from modelyard.compress.passes.prune_structured import StructuredPrune
from modelyard.compress.passes.qat import QuantizationAware
from modelyard.compress.passes.separable import Separable
from modelyard.compress.passes.weight_sharing import WeightSharing
from modelyard.compress.plan_option import Option, Value, made, options_of
from modelyard.core.errors import CompressError, ModelyardError
from modelyard.core.names import did_you_mean


@dataclass(frozen=True, slots=True)
class Kind:
    """A pass by name: its class, the options that the name stands for, and what matters for its place."""

    make: Any
    preset: Mapping[str, Value] = field(default_factory=dict)
    trains: bool = False
    quantizes: bool = False

    def options(self) -> dict[str, tuple[Option, Value]]:
        """The options that may still be given, by name, each with its default."""
        return {name: item for name, item in options_of(self.make).items() if name not in self.preset}


def _static(activations: str, calibration: str) -> Kind:
    return Kind(StaticInt8, {"activations": activations, "calibration": calibration}, quantizes=True)


KINDS: Mapping[str, Kind] = {
    "graph": Kind(GraphPass),
    "prune": Kind(MagnitudePrune),
    "prune-units": Kind(StructuredPrune),
    "prune-gradually": Kind(GradualPrune, trains=True),
    "low-rank": Kind(LowRank),
    "low-rank:gated": Kind(GatedLowRank, trains=True),
    "separable": Kind(Separable, trains=True),
    "share": Kind(WeightSharing),
    "tune": Kind(FineTune, trains=True),
    "distil": Kind(Distil, trains=True),
    "float16": Kind(Half, {"kind": "float16"}),
    "bfloat16": Kind(Half, {"kind": "bfloat16"}),
    "int4-weights": Kind(Int4Weights, quantizes=True),
    "int8-dynamic": Kind(DynamicInt8, quantizes=True),
    "int8-static": _static("s8", "minmax"),
    "int8-static:entropy": _static("s8", "entropy"),
    "int8-static:percentile": _static("s8", "percentile"),
    "int8-static-u8": _static("u8", "minmax"),
    "int8-static-u8:entropy": _static("u8", "entropy"),
    "int8-static-u8:percentile": _static("u8", "percentile"),
    "qat": Kind(QuantizationAware, trains=True, quantizes=True),
}
"""The built-in steps. A plan may also name any pass of a plugin, without options."""


def kind_of(name: str) -> Kind | None:
    """The built-in step of that name; `None` for a plugin's pass, `CompressError` for a name nobody knows."""
    if name in KINDS:
        return KINDS[name]
    if name in PASSES.names():
        return None
    raise CompressError(f"no pass is called {name!r}", fix=did_you_mean(name, {*KINDS, *PASSES.names()}))


def step_of(name: str, given: Mapping[str, Value]) -> Any:
    """The pass of that name with these options, checked; raises `CompressError` for what is not known."""
    kind = kind_of(name)
    if kind is None:
        return _plugin(name, given)
    said = sorted(set(given) & set(kind.preset))
    if said:
        raise CompressError(f"{name} has the option {said[0]!r} in its name", value=given[said[0]])
    return made(kind.make, {**kind.preset, **given}, called=name)


def _plugin(name: str, given: Mapping[str, Value]) -> Any:
    if given:
        raise CompressError(f"the plugin's pass {name} takes no options in a plan", value=sorted(given))
    try:
        alternatives = PASSES.get(name)
    except ModelyardError as error:
        raise CompressError(f"the pass {name} cannot be loaded", value=str(error)) from error
    if len(alternatives) != 1:
        raise CompressError(
            f"{name} stands for {len(alternatives)} alternatives", rule="one pass a step",
            value=[step.name for step in alternatives],
        )  # fmt: skip
    return alternatives[0]
