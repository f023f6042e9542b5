"""The four networks of the bar, trained here in a minute each at most, and kept below `build/`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_classification
from torch import nn

from modelyard.core.spec import Tensors
from modelyard.model.convert.conversion import convert
from modelyard.model.model import Model
from modelyard.model.reader import read_model

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "bench-compress"
LABELS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class Network:
    """A trained float model and its rows: to calibrate and train with, to decide on, to report on."""

    name: str
    model: Model
    train: Tensors
    train_targets: np.ndarray[Any, Any]
    validation: Tensors
    validation_targets: np.ndarray[Any, Any]
    test: Tensors
    test_targets: np.ndarray[Any, Any]


def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The 5,000 real MNIST images of examples/digits, shuffled by a fixed seed."""
    spec = importlib.util.spec_from_file_location("digits_data", ROOT / "examples" / "digits" / "data.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table = module.load()
    images = table.column("image").combine_chunks().to_numpy_ndarray()
    labels = table.column("label").to_numpy()
    order = np.random.default_rng(0).permutation(len(labels))
    return np.ascontiguousarray(images[order]), labels[order].astype(np.int64)


def tabular() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A table with ten classes, made by scikit-learn (no real one of this size is at hand offline)."""
    rows, labels = make_classification(
        6000, 64, n_informative=32, n_redundant=16, n_classes=10, class_sep=2.0, random_state=3
    )
    return rows.astype(np.float32), labels.astype(np.int64)


def digits_cnn() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def wider_cnn() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.BatchNorm2d(128), nn.ReLU(),
        nn.Conv2d(128, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def mlp() -> Any:
    return nn.Sequential(
        nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
        nn.Linear(512, 10),
    )  # fmt: skip


def transformer(layers: int = 2, width: int = 96, heads: int = 4) -> Any:
    """Digits read row by row: 28 tokens of 28 numbers, pre-norm blocks, the mean of the tokens."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.out = nn.Linear(width, width)
            self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            y = self.before(x)
            q, k, v = (
                part(y).reshape(-1, 28, heads, width // heads).transpose(1, 2)
                for part in (self.query, self.key, self.value)
            )
            weights = torch.softmax(q @ k.transpose(2, 3) / (width // heads) ** 0.5, dim=-1)
            x = x + self.out((weights @ v).transpose(1, 2).reshape(-1, 28, width))
            return x + self.narrow(nn.functional.gelu(self.wide(self.between(x))))

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(28, width)
            self.place = nn.Parameter(torch.randn(1, 28, width) * 0.02)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

        def forward(self, images: Any) -> Any:
            x = self.embed(images.reshape(-1, 28, 28)) + self.place
            return self.head(self.norm(self.blocks(x)).mean(dim=1))

    return Rows()


NETWORKS: dict[str, tuple[Callable[[], Any], Callable[[], Any], int]] = {
    "digits CNN": (digits_cnn, digits, 8),
    "wider CNN": (wider_cnn, digits, 6),
    "MLP, tabular": (mlp, tabular, 12),
    "transformer": (transformer, digits, 10),
}
"""Name: what builds it, its rows, its epochs."""


def fitted(
    module: Any, rows: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], epochs: int, *, seed: int = 0,
    rate: float = 2e-3, batch: int = 64, loss: Callable[[Any, Any, Any], Any] | None = None,
) -> Any:  # fmt: skip
    """The module after plain training on one thread; `loss(logits, targets, indices)` may take over."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    x, y = torch.from_numpy(rows), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=1e-3)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(batch):
            if len(chosen) < 2:
                schedule.step()
                continue
            optimizer.zero_grad()
            logits = module(x[chosen])
            if loss is None:
                value = torch.nn.functional.cross_entropy(logits, y[chosen])
            else:
                value = loss(logits, y[chosen], chosen)
            value.backward()
            optimizer.step()
            schedule.step()
    return module.eval()


def answers(module: Any, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logits of a module, in pieces."""
    module.eval()
    with torch.inference_mode():
        parts = [module(part) for part in torch.from_numpy(rows).split(512)]
    return torch.cat(parts).numpy()


def exported(module: Any, rows: np.ndarray[Any, Any], labels: tuple[str, ...] = LABELS) -> Model:
    """The module as ONNX, through the project's own door."""
    return convert(module, {"x": rows[:200]}, task="classification", labels=labels).model


def network(name: str) -> Network:
    """The network of that name, trained at its first use and kept (delete `build/` to train again)."""
    build, data, epochs = NETWORKS[name]
    rows, labels = data()
    third, half = int(0.7 * len(rows)), int(0.82 * len(rows))
    path = FOLDER / f"{name.replace(' ', '-').replace(',', '')}.onnx"
    if not path.exists():
        torch.manual_seed(0)
        print(f"  training the {name} ({epochs} epochs)", file=sys.stderr, flush=True)
        made = exported(fitted(build(), rows[:third], labels[:third], epochs), rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made.onnx)
    model = read_model(path.read_bytes(), task="classification", labels=LABELS)
    return Network(
        name, model, {"x": rows[:third]}, labels[:third], {"x": rows[third:half]}, labels[third:half],
        {"x": rows[half:]}, labels[half:],
    )  # fmt: skip
