"""Which pass may not follow which: where it is known that the later undoes what the earlier did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

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
from modelyard.core.errors import CompressError

Asked: TypeAlias = Callable[[Any], bool]

_QUANTIZERS = (Int4Weights, DynamicInt8, StaticInt8, QuantizationAware)
_LOW_RANK = (LowRank, GatedLowRank)
_BUILT_IN = (
    *_QUANTIZERS, *_LOW_RANK, Distil, FineTune, GradualPrune, GraphPass, Half, MagnitudePrune, Separable,
    StructuredPrune, WeightSharing,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """Two passes that may not come in this order, whatever stands between them, and why."""

    earlier: Asked
    later: Asked
    why: str
    fix: str


def _is(*kinds: Any) -> Asked:
    return lambda step: isinstance(step, kinds)


def _codebook(step: Any) -> bool:
    return isinstance(step, WeightSharing) and step.store == "codebook"


def _plain_sharing(step: Any) -> bool:
    return isinstance(step, WeightSharing) and step.store == "plain"


def _narrow_graph(step: Any) -> bool:
    return isinstance(step, Half) and step.only == "all"


def _another_student(step: Any) -> bool:
    return isinstance(step, Distil) and step.student == "recipe"


def _keeps_codebooks(step: Any) -> bool:
    return isinstance(step, FineTune | Distil)


def _in_groups(step: Any) -> bool:
    return isinstance(step, MagnitudePrune) and step.pattern != "free"


RULES: Sequence[Rule] = (
    Rule(
        _is(*_QUANTIZERS), _is(*(kind for kind in _BUILT_IN if kind not in (*_QUANTIZERS, GraphPass))),
        "quantization comes last", "put {later} before {earlier}",
    ),
    Rule(
        _is(*_QUANTIZERS), _is(QuantizationAware), "one trained quantization", "leave one of them out",
    ),
    Rule(
        _narrow_graph, _is(*_BUILT_IN), "its weights are float32 no more, and other passes leave them alone",
        "put {earlier} last, or leave it out",
    ),
    Rule(
        _is(Half), _is(*_BUILT_IN), "constants folded for {later} would be float32 again",
        "put {earlier} last, or leave it out",
    ),
    Rule(
        _codebook, lambda step: isinstance(step, _BUILT_IN) and not _keeps_codebooks(step),
        "constants folded for {later} would be plain weights again",
        'put {earlier} last, or take share(store="plain")',
    ),
    Rule(
        _plain_sharing, _is(FineTune, Distil, GradualPrune, Separable, QuantizationAware, *_LOW_RANK),
        "every weight would get a value of its own again",
        "put {later} before {earlier}, or let a codebook be trained: share > tune",
    ),
    Rule(
        _is(MagnitudePrune, GradualPrune), _is(Separable, *_LOW_RANK),
        "factors of a sparse matrix are dense: its zeros would be lost", "put {later} before {earlier}",
    ),
    Rule(
        _in_groups, _is(StructuredPrune), "where inputs leave, N of every M are so no more",
        "put {later} before {earlier}",
    ),
    Rule(
        _is(*_BUILT_IN), _another_student, "a student from a recipe keeps nothing of the graph before it",
        "put {later} first",
    ),
)  # fmt: skip
"""The first that fits is told. Passes of plugins are not known, so they may stand anywhere."""


def require_order(steps: Sequence[tuple[str, Any]]) -> None:
    """Raises `CompressError` for the first pair of passes, each with its name, that undo each other."""
    for place, (later, run) in enumerate(steps):
        for earlier, before in steps[:place]:
            for rule in RULES:
                if rule.earlier(before) and rule.later(run):
                    names = {"earlier": earlier, "later": later}
                    raise CompressError(
                        f"{later} cannot follow {earlier}", rule=rule.why.format(**names),
                        fix=rule.fix.format(**names),
                    )  # fmt: skip
