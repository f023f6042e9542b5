"""A small convolutional network for digits: one function for tuning and for the final training."""

import torch
from torch import Tensor, nn

from modelyard import Training


class Shift(nn.Module):
    """Moves each training image by up to `pixels` in both directions; does nothing in evaluation."""

    def __init__(self, pixels: int):
        super().__init__()
        self.pixels = pixels

    def forward(self, images: Tensor) -> Tensor:
        if not self.training or self.pixels == 0:
            return images
        size, reach = images.shape[-1], self.pixels
        padded = nn.functional.pad(images, (reach,) * 4)
        down, right = torch.randint(0, 2 * reach + 1, (2, len(images), 1), device=images.device)
        line = torch.arange(size, device=images.device)
        every = torch.arange(len(images), device=images.device)
        return padded[every[:, None, None], 0, (down + line)[:, :, None], (right + line)[:, None, :]][:, None]


def build(trial) -> Training:
    """Two strided convolutions and two linear layers; the trial chooses how they learn."""
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    hidden = trial.suggest_categorical("hidden", [128, 256])
    shift = trial.suggest_int("shift", 0, 2)
    learning_rate = trial.suggest_float("learning_rate", 1e-3, 2e-2, log=True)
    network = nn.Sequential(
        Shift(shift),
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(32 * 7 * 7, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )
    return Training(network, learning_rate=learning_rate, epochs=7, batch_size=64, weight_decay=1e-3)
