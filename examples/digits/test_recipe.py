"""The project's own tests of its data and its recipe."""

import numpy as np
import optuna
import pytest
import torch
from data import load
from recipe import Shift, build

PARAMS = {"hidden": 128, "dropout": 0.1, "shift": 1, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def table():
    return load()


def test_there_are_500_images_of_each_digit(table):
    digits, counts = np.unique(table["label"].to_numpy(), return_counts=True)
    assert digits.tolist() == list(range(10))
    assert counts.tolist() == [500] * 10


def test_images_are_scaled_and_ids_differ(table):
    images = table["image"].combine_chunks().to_numpy_ndarray()
    assert images.shape == (5000, 1, 28, 28)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    assert len(set(table["id"].to_pylist())) == 5000


def test_the_network_answers_ten_logits():
    training = build(optuna.trial.FixedTrial(PARAMS))
    assert training.module(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_shift_moves_the_whole_image_and_only_in_training():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 10:18, 10:18] = 1.0
    shift = Shift(2)
    torch.manual_seed(0)
    moved = shift(image)
    assert moved.sum() == image.sum()
    assert not torch.equal(moved, image)
    assert torch.equal(shift.eval()(image), image)
