"""Random numbers and numerics that are the same in every run, without disturbing the caller's."""

from __future__ import annotations

import importlib
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def derive(seed: int, *parts: int) -> int:
    """A seed for a part of the work (an epoch, a trial), so that parts do not depend on each other.

    >>> derive(0, 1) != derive(0, 2), derive(7, 3) == derive(7, 3)
    (True, True)
    """
    return int(np.random.SeedSequence([seed, *parts]).generate_state(1)[0])


@contextmanager
def seeded(seed: int, *, torch: bool = False) -> Iterator[None]:
    """Seeds Python's, numpy's and torch's global generators and gives them back as they were.

    `torch` imports it when it is not loaded yet, so that a recipe that imports it late is seeded too.
    """
    library: Any = importlib.import_module("torch") if torch else sys.modules.get("torch")
    before = random.getstate(), np.random.get_state()
    before_torch = library.get_rng_state() if library else None
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if library:
        library.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if library:
            library.set_rng_state(before_torch)


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Torch with deterministic algorithms on that many threads, and afterwards as it was.

    An operator that has no deterministic form raises. The number of threads is fixed because a sum that
    is split otherwise rounds otherwise.
    """
    # cuBLAS reads this once, before its first use; without it torch refuses deterministic products.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch = importlib.import_module("torch")
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # Filling every new tensor with NaN only serves programs that read memory which they never wrote.
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = filled
