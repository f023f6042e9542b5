"""Low rank whose rank is chosen by quality: the least that is not inferior on the validation part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.compress.pass_protocol import Compressed
from modelyard.compress.passes.low_rank import LowRank
from modelyard.compress.plan_option import check_options, option, spelled
from modelyard.compress.plan_trainable import Trainable
from modelyard.core.errors import CompressError
from modelyard.core.spec import Tensors
from modelyard.measure.compare import non_inferior
from modelyard.measure.measurement import Verdict

if TYPE_CHECKING:
    from modelyard.measure.metric import Array
    from modelyard.model.model import Model


@dataclass(frozen=True, slots=True)
class GatedLowRank:
    """Tries ranks as the gate would judge them, from small to large by bisection, and keeps the least.

    All ranks hang on one number, the energy that `LowRank` keeps: 5 % is tried first, then energies between
    the most that was refused and the least that was accepted (halving the logarithm of what is left out),
    `tries` in all. Accepted is what the gate takes for quality: accuracy, or r2, not inferior to the model
    given at `margin`, paired, on the validation part with its targets. Chosen on those rows, a model looks
    a little better on them than it is: the gate should judge on others.
    """

    margin: float = option(0.01, "how much accuracy, or r2, may be lost", low=1e-4, high=0.5)
    tries: int = option(8, "how many energies are tried", low=2, high=30)
    gain: float = option(0.8, "a layer is changed when at most this share of it is left", low=0.05, high=1.0)
    layers: str = option("all", "which layers", choices=("all", "matrices", "convolutions"))
    method: str = option("tucker", "how convolutions are factorised", choices=("tucker", "cp"))

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def name(self) -> str:
        return spelled("low-rank:gated", self)

    def train(self, model: Model, calibration: Tensors, trainable: Trainable) -> Compressed:
        """The factorised model, nothing trained; `CompressError` when no rank that is tried passes."""
        data = trainable.dataset
        before = _answers(model, data.validation)
        metric = "accuracy" if data.task == "classification" else "r2"
        kept: tuple[Compressed, Verdict] | None = None
        told: list[str] = []
        why = ""
        # Shares of the energy that are left out: all below the first is too little to gain by, or proved to
        # hold; the second is refused.
        holds, refused = 1e-4, 0.95
        for number in range(self.tries):
            left_out = refused if number == 0 else math.sqrt(holds * refused)
            try:
                found = LowRank(1 - left_out, self.gain, self.layers, self.method).apply(model, calibration)
            except CompressError as error:
                told.append(f"energy {1 - left_out:.4g}: no layer is worth it")
                why, holds = why or str(error), left_out
                if number == 0:
                    break
                continue
            verdict = non_inferior(
                metric, data.validation_targets, before, _answers(found.model, data.validation), self.margin,
                seed=trainable.seed,
            )  # fmt: skip
            told.append(f"energy {1 - left_out:.4g}: {verdict.why}")
            if verdict.passed:
                kept, holds = (found, verdict), left_out
                if number == 0:
                    break
            else:
                why, refused = verdict.why, left_out
        if kept is None:
            raise CompressError(f"does not apply: no rank keeps {metric} within {self.margin:g}", value=why)
        return Compressed(kept[0].model, (f"rank by quality: {kept[1].why}", *kept[0].notes, *told))


def _answers(model: Model, rows: Tensors) -> Array:
    from modelyard.model.onnx_runtime import OnnxRuntime
    from modelyard.model.predict import predict

    session = OnnxRuntime().load(model)
    try:
        return predict(session, rows)
    finally:
        session.close()
