"""A small convolutional network for digits: one function for tuning and for the final training."""

import torch
from torch import Tensor, nn

from modelyard.train.training import Training


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


def block(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution with batch normalisation and rectifier."""
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def build(trial) -> Training:
    """Three convolution blocks and a linear layer; the trial chooses their width and how they learn."""
    channels = trial.suggest_categorical("channels", [8, 12, 16])
    dropout = trial.suggest_float("dropout", 0.0, 0.4)
    shift = trial.suggest_int("shift", 0, 2)
    learning_rate = trial.suggest_float("learning_rate", 2e-3, 3e-2, log=True)
    network = nn.Sequential(
        Shift(shift),
        *block(1, channels, size=5, stride=2),
        *block(channels, 2 * channels, size=3, stride=2),
        *block(2 * channels, 2 * channels, size=3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * channels * 3 * 3, 10),
    )
    # Channels last is how a CPU likes small convolutions: a quarter less time.
    network.to(memory_format=torch.channels_last)
    return Training(network, learning_rate=learning_rate, epochs=8, batch_size=128, weight_decay=1e-3)
