"""onnxruntime's session options, tuned: threads, graph level (layout included), arena, patterns, spinning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.compress.inspect.facts import graph_facts
from modelyard.compress.inspect.roofline import kept_folder
from modelyard.compress.machine import Machine, this_machine
from modelyard.compress.tuner.space import Setting, TuningSpace
from modelyard.compress.tuner.tune import Tuned, tune
from modelyard.compress.tuner.tuning_journal import TuningJournal
from modelyard.core.errors import ModelError
from modelyard.core.progress import Progress, quiet
from modelyard.core.spec import Tensors
from modelyard.measure.cost import speedup
from modelyard.measure.measurement import Measurement
from modelyard.model.runtime import RuntimeOptions

if TYPE_CHECKING:
    from modelyard.model.model import Model

_LEVELS = {"all": "ORT_ENABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "basic": "ORT_ENABLE_BASIC"}
_TOLERANCE = 1e-3


def session_space(machine: Machine) -> TuningSpace:
    """The options that change the speed and not the answers; the defaults are what serving uses."""
    threads = tuple(count for count in (1, 2, 4, 8, 16) if count <= max(1, machine.cores))
    return TuningSpace(
        {
            "threads": threads,
            "optimize": ("all", "extended", "basic"),
            "arena": (True, False),
            "pattern": (True, False),
            "prepack": (True, False),
            "spin": (False, True),
        },
        # One thread has nobody to wait for.
        allowed=lambda setting: not (setting["threads"] == 1 and setting["spin"]),
    )


def open_tuned(onnx: bytes, setting: Setting) -> Any:
    """onnxruntime's own session with these options; raises `ModelError` when refused."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = int(setting["threads"])
    options.inter_op_num_threads = 1
    level = _LEVELS[str(setting["optimize"])]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.enable_cpu_mem_arena = bool(setting["arena"])
    options.enable_mem_pattern = bool(setting["pattern"])
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if setting["spin"] else "0")
    options.add_session_config_entry("session.disable_prepacking", "0" if setting["prepack"] else "1")
    try:
        return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own that share no root.
        raise ModelError(
            "onnxruntime refuses the graph with these options", value=str(error)[:200]
        ) from error


def as_runtime_options(setting: Setting) -> RuntimeOptions:
    """The part of a setting that `RuntimeOptions` can carry to a service."""
    optimize = "basic" if setting["optimize"] == "basic" else "all"
    return RuntimeOptions(int(setting["threads"]), optimize, bool(setting["arena"]))


def tune_session(
    model: Model, rows: Tensors, *, folder: Path | None = None, trials: int = 12, budget: float = 30.0,
    seconds: float = 0.6, seed: int = 0, progress: Progress = quiet,
) -> Tuned:  # fmt: skip
    """Tunes the session options for a model on rows of the size that it is asked with.

    What is learned is kept under this kind of machine (in `folder`, else beside the roof's probe), where a
    second tuning begins. A setting whose answers differ from the default's is a failed trial. Each trial
    times pairs for about `seconds`.
    """
    import onnxruntime

    machine = this_machine()
    space = session_space(machine)
    journal = TuningJournal(
        folder or kept_folder() / "tuning", machine.fingerprint, f"onnxruntime-{space.key}"
    )
    facts = graph_facts(model, rows)
    batch = len(next(iter(rows.values())))
    workload = {
        "macs": float(facts.macs), "bytes": float(facts.parameters), "nodes": float(len(facts.nodes)),
        "rows": float(batch),
    }  # fmt: skip
    base = open_tuned(model.onnx, space.default)
    wanted = [model.output]
    truth = base.run(wanted, rows)[0]

    def measure(setting: Setting) -> Measurement:
        other = open_tuned(model.onnx, setting)
        answer = other.run(wanted, rows)[0]
        if not np.allclose(answer, truth, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
            raise ModelError("the answers are not the default's", value=float(np.abs(answer - truth).max()))
        return speedup(
            lambda: base.run(wanted, rows), lambda: other.run(wanted, rows), pairs=400,
            budget_seconds=seconds, seed=seed,
        )  # fmt: skip

    task = f"{model.digest} x{batch} onnxruntime {onnxruntime.__version__}"
    return tune(
        space, measure, journal, task=task, workload=workload, trials=trials, budget=budget, seed=seed,
        progress=progress,
    )  # fmt: skip
