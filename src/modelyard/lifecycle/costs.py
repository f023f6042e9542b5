"""What one answer of the model costs on this machine: latency, throughput, memory, size."""

from __future__ import annotations

from modelyard.compress.search.memory_probe import PROBE, payload
from modelyard.core.spec import Tensors
from modelyard.data.tensors import take
from modelyard.measure.cost import latency, peak_memory, size, throughput
from modelyard.measure.measurement import Measurement
from modelyard.model.answer import opened
from modelyard.model.chosen_runtime import ChosenRuntime
from modelyard.model.model import Model

_BATCH = 32


def model_costs(model: Model, tensors: Tensors, runtime: ChosenRuntime) -> dict[str, Measurement]:
    """Latency of one row and throughput of batches of 32 in the runtime alone, the file's size, and
    the peak memory of a process that does nothing but load the model and answer once.
    """
    with opened(model, runtime) as session:
        one, many = take(tensors, slice(0, 1)), take(tensors, slice(0, _BATCH))
        rows = len(next(iter(many.values())))
        median, tail = latency(lambda: session.run(one), repeats=500, of="one row")
        rate = throughput(lambda: session.run(many), rows, budget_seconds=0.5, of=f"batches of {rows}")
    given = payload(model.onnx, model.signature.to_json(), runtime)
    memory = peak_memory(PROBE, stdin=given, of="a process that answers")
    measured = (median, tail, rate, size(model.onnx), memory)
    return {item.metric: item for item in measured}
