"""The plans that a search tries when nobody says otherwise, written as plans are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modelyard.compress.search.space import HOME, Family, Options, Space, Value, as_trained

if TYPE_CHECKING:
    from modelyard.compress.pass_protocol import Pass
    from modelyard.compress.plan_trainable import Trainable

_SIGNED = ("int8-static", "int8-static:percentile", "int8-static:entropy")
_UNSIGNED = ("int8-static-u8", "int8-static-u8:percentile", "int8-static-u8:entropy")
_STATIC = "{kind}(floats={floats}, per_channel={per_channel})"
# One scale a tensor runs up to twice as fast as one a channel; where it costs too much the gate says so.
_SCALES: Mapping[str, tuple[Value, ...]] = {"per_channel": ("false", "true"), "floats": (0.0, 0.25)}
_FINAL = ("int8-static(per_channel=false)", "int8-static-u8(per_channel=false)", "int8-static")

TEMPLATES: Mapping[str, tuple[str, Mapping[str, tuple[Value, ...]]]] = {
    "graph": ("graph", {}),
    # Which sign is faster depends on the processor and the model: both are begun with.
    "int8-static": (_STATIC, {"kind": _SIGNED, **_SCALES}),
    "int8-static-u8": (_STATIC, {"kind": _UNSIGNED, **_SCALES}),
    # Narrow convolutions lose in eight bits what the products behind them win.
    "int8-products": (
        "{kind}(per_channel=false, layers=products)",
        {"kind": ("int8-static-u8", "int8-static")},
    ),
    "int8-dynamic": ("int8-dynamic", {}),
    "int4-weights": ('int4-weights(block="{block}")', {"block": (32, 128)}),
    "float16": ("float16", {}),
    "share": ("share(bits={bits})", {"bits": (5, 4)}),
    "low-rank": ("low-rank(energy={energy})", {"energy": (0.95, 0.9, 0.8)}),
    "low-rank>int8": ("low-rank(energy={energy}) > {kind}", {"energy": (0.95, 0.9), "kind": _FINAL}),
    "prune-units": ("prune-units(sparsity={sparsity})", {"sparsity": (0.25, 0.5)}),
    "prune-units>int8": (
        "prune-units(sparsity={sparsity}) > {kind}",
        {"sparsity": (0.25, 0.5), "kind": _FINAL},
    ),
}
"""Plans that train nothing: each a text with options to fill in, and their values, the first ones first."""

TRAINED: Mapping[str, tuple[str, Mapping[str, tuple[Value, ...]]]] = {
    "prune-units>tune": (
        "prune-units(sparsity={sparsity}) > tune(epochs={epochs})",
        {"sparsity": (0.5, 0.25, 0.75), "epochs": (2, 4)},
    ),
    "prune-units>distil>int8": (
        "prune-units(sparsity={sparsity}) > distil(epochs={epochs}) > {kind}",
        {"sparsity": (0.5, 0.25, 0.75), "epochs": (2, 4), "kind": _FINAL},
    ),
    "low-rank>tune>int8": (
        "low-rank(energy={energy}) > tune(epochs=2) > {kind}", {"energy": (0.9, 0.8), "kind": _FINAL},
    ),
    "qat": ("qat(activations={activations})", {"activations": ("s8", "u8")}),
}  # fmt: skip
"""Plans that train between their steps; tried when there is something to train on."""

_KEEP_SHAPE = ("tune", "distil", "prune-gradually")
"""Steps that train and leave every tensor as large as it was."""


def default_space(
    plans: Sequence[str] | None = None, runtimes: Sequence[str] = (HOME,), trainable: Trainable | None = None
) -> Space:
    """The space of the plans given, each a text, or of every template that can be run, on these engines.

    On another engine the model as trained is tried too. Raises `CompressError` that names the step for a plan
    that cannot be read, and for one that trains where there is nothing to train on.
    """
    families = [] if tuple(runtimes) == (HOME,) else [as_trained()]
    if plans is not None:
        texts = {text.strip(): None for text in plans}
        families += [
            planned(text.replace("{", "{{").replace("}", "}}"), text, {}, trainable) for text in texts
        ]
    else:
        found = {**TEMPLATES, **(TRAINED if trainable is not None else {})}
        families += [planned(text, name, options, trainable) for name, (text, options) in found.items()]
    return Space(tuple(families), tuple(runtimes))


def planned(
    text: str, name: str, options: Mapping[str, tuple[Value, ...]], trainable: Trainable | None = None
) -> Family:
    """The family of a plan's text with `{option}` where a value goes; its first values are tried at once.

    Where a plan trains without changing a shape, the same plan without training is its sketch.
    """

    def make(chosen: Options) -> Pass:
        from modelyard.compress.plan import PlanPass, parse

        return PlanPass(parse(text.format(**chosen)), trainable)

    def sketch(chosen: Options) -> Pass:
        from modelyard.compress.plan import PlanPass, parse

        return PlanPass(parse(_untrained(text.format(**chosen))))

    from modelyard.compress.plan import parse
    from modelyard.core.errors import CompressError

    first = parse(text.format(**{key: values[0] for key, values in options.items()}))
    if first.trains and trainable is None:
        raise CompressError(
            "the plan trains, and there is nothing to train on",
            value=first.text,
            fix="search within a project",
        )
    kinds = [step.kind for step in first.steps if step.trains]
    told = set(kinds) <= {*_KEEP_SHAPE, "qat"} and "student" not in text
    return Family(name, make, dict(options), sketch if kinds and told and _untrained(text) else None)


def _untrained(text: str) -> str:
    """The plan's text without the steps that only train; a trained quantization becomes an untrained one."""
    parts = [part.strip() for part in text.split(">")]
    kept = [part for part in parts if part.partition("(")[0].strip() not in _KEEP_SHAPE]
    return " > ".join("int8-static" if part.partition("(")[0].strip() == "qat" else part for part in kept)
