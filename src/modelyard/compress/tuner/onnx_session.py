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
from modelyard.model.chosen_runtime import Settings
from modelyard.model.onnx_runtime import open_engine
from modelyard.model.runtime import RuntimeOptions

if TYPE_CHECKING:
    from modelyard.model.model import Model

_TOLERANCE = 1e-3


def session_space(machine: Machine, most_threads: int | None = None) -> TuningSpace:
    """The options that change the speed and not the answers; the defaults are what serving uses."""
    most = max(1, machine.cores if most_threads is None else most_threads)
    threads = tuple(count for count in (1, 2, 4, 8, 16) if count <= most)
    return TuningSpace(
        {
            "threads": threads,
            "optimize": ("all", "extended", "basic"),
            "arena": (False, True),
            "pattern": (True, False),
            "prepack": (True, False),
            "spin": (False, True),
        },
        # One thread has nobody to wait for.
        allowed=lambda setting: not (setting["threads"] == 1 and setting["spin"]),
    )


def open_tuned(onnx: bytes, setting: Setting) -> Any:
    """onnxruntime's own session with these options; raises `ModelError` when refused."""
    return open_engine(onnx, as_runtime_options(setting))


def as_runtime_options(setting: Setting) -> RuntimeOptions:
    """A setting as a session takes it."""
    given: dict[str, Any] = dict(setting)
    return RuntimeOptions(**given)


def as_settings(tuned: Tuned) -> Settings:
    """What a release has to carry of the best setting: that which is not the default."""
    default = as_runtime_options({})
    chosen: dict[str, Any] = dict(tuned.best)
    return {key: value for key, value in chosen.items() if value != getattr(default, key)}


def tune_session(
    model: Model, rows: Tensors, *, folder: Path | None = None, trials: int = 12, budget: float = 30.0,
    seconds: float = 0.6, seed: int = 0, most_threads: int | None = None, progress: Progress = quiet,
) -> Tuned:  # fmt: skip
    """Tunes the session options for a model on rows of the size that it is asked with.

    What is learned is kept under this kind of machine (in `folder`, else beside the roof's probe), where a
    second tuning begins. A setting whose answers differ from the default's is a failed trial. Each trial
    times pairs for about `seconds`. With `most_threads` fewer threads are tried than there are cores: a
    service with several workers sets their number itself.
    """
    import onnxruntime

    machine = this_machine()
    space = session_space(machine, most_threads)
    journal = TuningJournal(
        folder or kept_folder() / "tuning", machine.fingerprint, f"onnxruntime-{space.key}"
    )
    facts = graph_facts(model, rows)
    batch = len(next(iter(rows.values())))
    workload = {
        "macs": float(facts.macs), "bytes": float(facts.parameters), "nodes": float(len(facts.nodes)),
        "rows": float(batch),
    }  # fmt: skip
    wanted = [model.output]
    truth = open_tuned(model.onnx, space.default).run(wanted, rows)[0]

    def measure(setting: Setting) -> Measurement:
        # Both loaded anew: where its memory happens to lie makes a session a few hundredths faster.
        base, other = open_tuned(model.onnx, space.default), open_tuned(model.onnx, setting)
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
