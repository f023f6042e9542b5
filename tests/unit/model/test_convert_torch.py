from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from modelyard.core.errors import ConversionError
from modelyard.core.spec import Tensors
from modelyard.model.convert import convert
from modelyard.model.trace import intermediate

ROWS = 40
R = np.random.default_rng(0)
IMAGE: Tensors = {"image": R.normal(size=(ROWS, 1, 8, 8)).astype(np.float32)}
TABLE: Tensors = {name: R.normal(size=(ROWS, 1)).astype(np.float32) for name in "abc"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).flatten(1))


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x)[:, 0]


class Decides(Line):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x) if x.sum() > 0 else -self.line(x)


class Counts(Line):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.line(x) * self.calls


class Drops(Line):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.line(x), 0.5)


class Mixes(Line):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x) - x.mean()


def test_a_network_with_batch_norm_and_dropout() -> None:
    torch.manual_seed(0)
    net = Net().train()
    net.body[1].eval()  # a part that the user froze stays frozen
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    made = convert(net, IMAGE, task="classification", labels=("a", "b", "c"))
    assert made.parity.passed and made.parity.details["disagreeing_labels"] == 0
    assert net.training and not net.body[1].training and net.body[3].training
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    assert made.model.signature.inputs[0].shape == (-1, 1, 8, 8)
    assert b".py" not in made.model.onnx and b"stack" not in made.model.onnx
    again = convert(net, IMAGE, task="classification", labels=("a", "b", "c"))
    assert again.model.digest == made.model.digest
    inside = intermediate(made.model, IMAGE)
    assert inside["probabilities"].shape == (ROWS, 3) and len(inside) > 5


def test_numeric_columns_side_by_side() -> None:
    made = convert(Line(), TABLE, task="regression")
    assert [spec.to_json() for spec in made.model.signature.inputs] == [
        {"name": name, "datatype": "FP32", "shape": [-1, 1]} for name in "abc"
    ]
    assert made.model.signature.outputs[0].shape == (-1, 1)


def test_code_that_decides_by_values_is_named_with_its_cure() -> None:
    with pytest.raises(ConversionError) as caught:
        convert(Decides(), TABLE, task="regression")
    assert "torch.where" in str(caught.value) and len(str(caught.value)) < 700
    assert "test_convert_torch.py" in (caught.value.where or "")


@pytest.mark.parametrize(
    ("module", "words"), [(Counts(), "asked twice"), (Drops(), "asked twice"), (Mixes(), "when it is alone")]
)
def test_what_is_no_function_of_its_row(module: nn.Module, words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        convert(module, TABLE, task="regression")


def test_wrong_width_and_text() -> None:
    with pytest.raises(ConversionError, match="wrong shape"):
        convert(Net(), IMAGE, task="classification", labels=("a", "b"))
    with pytest.raises(ConversionError, match="text columns"):
        convert(Line(), {**TABLE, "c": np.array([["x"]] * ROWS, object)}, task="regression")
    with pytest.raises(ConversionError, match="raises on the sample"):
        convert(Line(), IMAGE, task="regression")
