from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelyard.core.errors import StoreError, TrainError
from modelyard.train import checkpoint as checkpoint_file
from modelyard.train.checkpoint import NAME, load_checkpoint
from modelyard.train.dataset import Dataset
from modelyard.train.fit import fit
from modelyard.train.recipe import Recipe

Make = Callable[..., Recipe]
WIDTH = {"width": 8}


def test_a_module_learns_and_answers_probabilities(network: Recipe, points: Dataset) -> None:
    fitted = fit(network, WIDTH, points)
    answers = fitted.predict(points.validation)
    assert answers.shape == (40, 3)
    assert answers.dtype == np.float32
    assert np.allclose(answers.sum(axis=1), 1, atol=1e-5)
    assert (answers.argmax(axis=1) == points.validation_targets).mean() > 0.8
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3, 4]
    assert all(row["skipped_batches"] == 0 for row in fitted.history)
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]


def test_the_best_epochs_weights_are_kept(network: Recipe, points: Dataset) -> None:
    fitted = fit(network, WIDTH, points)
    best = max(row["accuracy"] for row in fitted.history)
    answers = fitted.predict(points.validation)
    assert (answers.argmax(axis=1) == points.validation_targets).mean() == pytest.approx(best)


def test_a_regression_answers_in_real_units(recipe_of: Make, prices: Dataset) -> None:
    recipe = recipe_of(
        "import torch\nfrom modelyard.train.training import Training\n"
        "def build(trial):\n"
        "    return Training(torch.nn.Linear(2, 1), learning_rate=0.1, epochs=20, batch_size=8)\n",
        task="regression",
        metric="mae",
    )
    numbers = replace(
        prices,
        train={name: prices.train[name] for name in "ab"},
        validation={name: prices.validation[name] for name in "ab"},
    )
    fitted = fit(recipe, {}, numbers)
    answers = fitted.predict(numbers.validation)
    assert answers.shape == (40, 1)
    assert np.abs(answers[:, 0] - prices.validation_targets).mean() < 1_500
    # The scale is part of the module, so the exported graph needs nothing beside it.
    assert fitted.trained.target_mean.item() == pytest.approx(numbers.train_targets.mean(), rel=1e-6)
    columns = tuple(torch.from_numpy(array) for array in numbers.validation.values())
    assert np.array_equal(fitted.trained(*columns).detach().numpy(), answers)


def test_the_same_seed_gives_the_same_weights(network: Recipe, points: Dataset) -> None:
    torch.manual_seed(1)
    one = fit(network, WIDTH, points).weights_digest()
    torch.manual_seed(2)
    assert fit(network, WIDTH, points).weights_digest() == one
    assert fit(replace(network, seed=1), WIDTH, points).weights_digest() != one


def test_torch_is_left_as_it_was(network: Recipe, points: Dataset) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fit(replace(network, epochs=1), WIDTH, points)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[1:]


def _module(forward: str, **training: Any) -> str:
    options = "".join(f", {name}={value!r}" for name, value in training.items())
    return textwrap.dedent(f"""
        import torch
        from modelyard.train.training import Training

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, 3)

            def forward(self, x):
                {forward}

        def build(trial):
            return Training(Net(){options})
    """)


def test_a_loss_that_is_not_finite_names_epoch_and_batch(recipe_of: Make, points: Dataset) -> None:
    recipe = recipe_of(_module("return self.layer(x) * 1e38 * 10 if self.training else self.layer(x)"))
    with pytest.raises(TrainError, match=r"the loss is (nan|inf) in epoch 1, batch 1.*lower the learning"):
        fit(recipe, {}, points)


def test_nan_inputs_are_counted(network: Recipe, points: Dataset) -> None:
    holes = {**points.train, "a": points.train["a"].copy()}
    holes["a"][:, 0] = np.nan
    with pytest.raises(TrainError, match=r"'nan_inputs': 16.*fill missing values"):
        fit(network, WIDTH, replace(points, train=holes))


def test_gradients_that_are_not_finite_are_skipped_and_counted(recipe_of: Make, points: Dataset) -> None:
    forward = """
                y = self.layer(x)
                if self.training and x[0, 0] > 0:
                    y = y + 0 * torch.sqrt((y * 0).sum())  # an infinite slope at 0
                return y"""
    fitted = fit(recipe_of(_module(forward.strip(), epochs=2, batch_size=8)), {}, points)
    assert 0 < fitted.history[0]["skipped_batches"] < 11
    assert np.isfinite(fitted.predict(points.validation)).all()


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        ("return self.layer(x)[:, :2]", r"wrong shape: got \(2, 2\).*logits \[2, 3\]"),
        ("return {'logits': x}", "wrong shape: got 'dict'"),
        ("return self.layer(x[:, :1])", r"recipe\.py:11: .*RuntimeError: mat1 and mat2"),
        ("return self.layer(x).detach()", "RuntimeError: element 0 of tensors does not require grad"),
    ],
)
def test_a_wrong_module_is_explained(recipe_of: Make, points: Dataset, forward: str, words: str) -> None:
    with pytest.raises(TrainError, match=words):
        fit(recipe_of(_module(forward)), {}, points)


def test_text_cannot_go_into_torch(recipe_of: Make, prices: Dataset) -> None:
    recipe = recipe_of(_module("return self.layer(x)"), task="regression", metric="mae")
    with pytest.raises(TrainError, match=r"text columns: got \['color'\]"):
        fit(recipe, {}, prices)


def test_early_stopping_ends_it(recipe_of: Make, points: Dataset) -> None:
    recipe = recipe_of(_module("return self.layer(x)", epochs=50, patience=2, learning_rate=1e-9))
    assert len(fit(recipe, {}, points).history) < 20


def test_a_lone_last_row_does_not_break_batch_normalisation(network: Recipe, points: Dataset) -> None:
    assert points.rows % 16 == 1
    assert len(fit(replace(network, epochs=1), WIDTH, points).history) == 1


class Stop(BaseException):
    pass


def _stop_after(epochs: int, of: int = 4) -> Callable[[float, str], None]:
    def progress(fraction: float, text: str) -> None:
        if fraction >= epochs / of:
            raise Stop

    return progress


@pytest.mark.parametrize("done", [1, 3])
def test_an_interrupted_training_continues_bit_for_bit(
    network: Recipe, points: Dataset, tmp_path: Path, done: int
) -> None:
    whole = fit(network, WIDTH, points)
    with pytest.raises(Stop):
        fit(network, WIDTH, points, checkpoints=tmp_path, progress=_stop_after(done))
    epochs: list[str] = []
    resumed = fit(network, WIDTH, points, checkpoints=tmp_path, progress=lambda _, text: epochs.append(text))
    assert resumed.weights_digest() == whole.weights_digest()
    assert len(epochs) == 4 - done
    plain = [{key: row[key] for key in row if key != "seconds"} for row in whole.history]
    assert [{key: row[key] for key in row if key != "seconds"} for row in resumed.history] == plain


def test_weights_of_another_memory_layout_continue_bit_for_bit(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of(
        "import torch\nfrom modelyard.train.training import Training\n"
        "def build(trial):\n"
        "    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Conv2d(3, 4, 3),\n"
        "                                 torch.nn.Flatten(), torch.nn.Linear(64, 2))\n"
        "    module.to(memory_format=torch.channels_last)\n"
        "    return Training(module, epochs=4, batch_size=8, learning_rate=0.01)\n"
    )
    images = np.random.default_rng(0).random((40, 2, 8, 8), dtype=np.float32)
    targets = (images[:, 0].mean(axis=(1, 2)) > images[:, 1].mean(axis=(1, 2))).astype(np.int64)
    data = Dataset("classification", ("no", "yes"), {"x": images}, targets, {"x": images}, targets)
    with pytest.raises(Stop):
        fit(recipe, {}, data, checkpoints=tmp_path, progress=_stop_after(2))
    resumed = fit(recipe, {}, data, checkpoints=tmp_path)
    assert resumed.weights_digest() == fit(recipe, {}, data).weights_digest()


def test_a_checkpoint_of_something_else_is_ignored(network: Recipe, points: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        fit(network, WIDTH, points, checkpoints=tmp_path, progress=_stop_after(2))
    kept = (tmp_path / NAME).read_bytes()
    moved = replace(points, train={**points.train, "a": points.train["a"] + 1})
    edited = replace(network, seed=9)
    for recipe, params, data in (
        (network, {"width": 9}, points),
        (network, WIDTH, moved),
        (edited, WIDTH, points),
    ):
        (tmp_path / NAME).write_bytes(kept)
        resumed = fit(recipe, params, data, checkpoints=tmp_path)
        assert resumed.weights_digest() == fit(recipe, params, data).weights_digest()


def test_a_damaged_checkpoint_is_ignored(network: Recipe, points: Dataset, tmp_path: Path) -> None:
    whole = fit(network, WIDTH, points).weights_digest()
    with pytest.raises(Stop):
        fit(network, WIDTH, points, checkpoints=tmp_path, progress=_stop_after(2))
    kept = (tmp_path / NAME).read_bytes()
    for damage in (b"", b"\xff" * 64, kept[: len(kept) // 2]):
        (tmp_path / NAME).write_bytes(damage)
        assert load_checkpoint(tmp_path, "") is None
        assert fit(network, WIDTH, points, checkpoints=tmp_path).weights_digest() == whole


def test_a_full_disk_ends_the_training_with_a_reason(
    network: Recipe, points: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise StoreError(f"cannot write {path}", value="No space left on device")

    monkeypatch.setattr(checkpoint_file, "write_atomic", full)
    with pytest.raises(StoreError, match="No space left"):
        fit(network, WIDTH, points, checkpoints=tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from modelyard.train.dataset import Dataset
from modelyard.train.fit import fit
from modelyard.train.recipe import Recipe

folder, recipe, data, die = (*map(Path, sys.argv[1:4]), int(sys.argv[4]))
arrays = np.load(data)
part = lambda name: {column: arrays[name + column] for column in "ab"}
dataset = Dataset("classification", ("left", "up", "right"), part("train_"), arrays["train"],
                  part("validation_"), arrays["validation"])
def progress(fraction, text):
    if round(fraction * 4) == die:
        os.kill(os.getpid(), signal.SIGKILL)
print(fit(Recipe(recipe), {"width": 8}, dataset, checkpoints=folder, progress=progress).weights_digest())
"""


def test_a_killed_process_is_continued_by_the_next_bit_for_bit(
    network: Recipe, points: Dataset, tmp_path: Path
) -> None:
    arrays = {"train": points.train_targets, "validation": points.validation_targets}
    for name, tensors in (("train_", points.train), ("validation_", points.validation)):
        arrays |= {name + column: array for column, array in tensors.items()}
    np.savez(tmp_path / "data.npz", **arrays)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)

    def run(die: int) -> subprocess.CompletedProcess[str]:
        arguments = [tmp_path / "checkpoints", network.path, tmp_path / "data.npz", die]
        return subprocess.run(
            [sys.executable, str(script), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )

    assert run(2).returncode == -signal.SIGKILL
    last = run(0)
    assert last.returncode == 0, last.stderr
    assert last.stdout.strip() == fit(network, WIDTH, points).weights_digest()
