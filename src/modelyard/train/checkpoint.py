"""Checkpoints that run no code: one safetensors file, its state as JSON in the header, whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modelyard.core.digest import Digest
from modelyard.core.files import write_atomic

FORMAT = 1
"""Raised whenever a reader of the old number would continue wrongly. A checkpoint of another number is
ignored: it only saves time."""

NAME = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training between two epochs.

    `identity` is the digest of everything that decides the result (code, parameters, data, seed, limits,
    torch's version): only a training of the same identity may continue. Random numbers need no place
    here, since every epoch seeds its own from the recipe's seed and its number; nor does the learning
    rate, a function of the step; nor what early stopping remembers, which the history says.
    """

    identity: Digest
    epoch: int
    """Epochs done."""
    weights: Mapping[str, torch.Tensor]
    best: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, Any]
    history: tuple[Mapping[str, float], ...]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the checkpoint; a crash at any moment leaves the one before. Raises `StoreError` (disk full)."""
    from safetensors.torch import save

    tensors = {f"weights/{name}": tensor for name, tensor in checkpoint.weights.items()}
    tensors |= {f"best/{name}": tensor for name, tensor in checkpoint.best.items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, slots in checkpoint.optimizer["state"].items():
        for key, value in slots.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    header = {
        "format": FORMAT,
        "identity": checkpoint.identity,
        "epoch": checkpoint.epoch,
        "optimizer": {"plain": plain, "groups": checkpoint.optimizer["param_groups"]},
        "history": [dict(row) for row in checkpoint.history],
    }
    # safetensors refuses views and shared memory; Python's JSON keeps floats exactly, NaN included.
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(folder / NAME, save(whole, metadata={"modelyard": json.dumps(header)}))


def load_checkpoint(folder: Path, identity: Digest) -> Checkpoint | None:
    """The checkpoint of that training, or `None` where there is none, it is damaged, or of another one."""
    from safetensors import SafetensorError, safe_open

    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("modelyard", "{}"))
            if header.get("format") != FORMAT or header.get("identity") != identity:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError):
        return None
    parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "best": {}}
    slots: dict[int, dict[str, Any]] = {
        int(index): dict(value) for index, value in header["optimizer"]["plain"].items()
    }
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        if part == "optimizer":
            index, _, key = rest.partition("/")
            slots.setdefault(int(index), {})[key] = tensor
        else:
            parts[part][rest] = tensor
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()}
        for group in header["optimizer"]["groups"]
    ]
    return Checkpoint(
        identity,
        int(header["epoch"]),
        parts["weights"],
        parts["best"],
        {"state": slots, "param_groups": groups},
        tuple(header["history"]),
    )
