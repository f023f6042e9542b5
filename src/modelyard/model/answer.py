"""A model's answers without keeping a session: load, ask, give the memory back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from modelyard.core.spec import Tensors
from modelyard.model.chosen_runtime import DEFAULT_RUNTIME, ChosenRuntime
from modelyard.model.model import Model
from modelyard.model.predict import predict
from modelyard.model.runtime import Session


@contextmanager
def opened(model: Model, runtime: ChosenRuntime = DEFAULT_RUNTIME) -> Iterator[Session]:
    """A session for as long as the block runs; closed however it ends."""
    session = runtime.load(model)
    try:
        yield session
    finally:
        session.close()


def answer(model: Model, tensors: Tensors, runtime: ChosenRuntime = DEFAULT_RUNTIME) -> npt.NDArray[Any]:
    """The main output for all rows, as `predict` gives it."""
    with opened(model, runtime) as session:
        return predict(session, tensors)
