"""The curves of pruning and low rank: accuracy against what is left, untrained and after a little training.

What the papers lead one to expect (Han et al. 2015; Denton et al. 2014; Kim et al. 2016): half of the weights
go for nothing, nine tenths with training in between; accuracy falls late and then steeply; structured pruning
falls earlier than unstructured; one threshold for all layers beats the same share of each (Lee et al. 2021).
Here: the digits CNN, 3,500 images to train, 900 to test.
"""

from __future__ import annotations

import time

from networks import LABELS, network

from modelyard.compress.plan import parse, run_plan
from modelyard.compress.plan_trainable import Trainable
from modelyard.core.errors import CompressError
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict
from modelyard.train.dataset import Dataset

CURVES = {
    "magnitude, untrained": ("prune(sparsity={})", (0.5, 0.8, 0.9, 0.95)),
    "  one magnitude for all": ("prune(sparsity={}, scope=global)", (0.5, 0.8, 0.9, 0.95)),
    "  the same of each layer": ("prune(sparsity={}, scope=layer)", (0.5, 0.8, 0.9, 0.95)),
    "magnitude, then tuned": ("prune(sparsity={}) > tune(epochs=2)", (0.9, 0.95, 0.98)),
    "units, untrained": ("prune-units(sparsity={})", (0.1, 0.25, 0.5)),
    "units, then tuned": ("prune-units(sparsity={}) > tune(epochs=2)", (0.25, 0.5, 0.75)),
    "low rank, untrained": ("low-rank(energy={}, gain=1.0)", (0.95, 0.9, 0.8, 0.6)),
    "low rank, then tuned": ("low-rank(energy={}, gain=1.0) > tune(epochs=2)", (0.8, 0.6)),
    "  convolutions by CP": (
        "low-rank(energy={}, gain=1.0, layers=convolutions, method=cp)", (0.95, 0.9, 0.8, 0.6),
    ),
    "  by Tucker": ("low-rank(energy={}, gain=1.0, layers=convolutions)", (0.95, 0.9, 0.8, 0.6)),
}  # fmt: skip


def main() -> None:
    began = time.process_time()
    found = network("digits CNN")
    data = Dataset(
        "classification", LABELS, found.train, found.train_targets, found.validation, found.validation_targets
    )
    trainable = Trainable(None, {}, data)
    rows, truth = found.test, found.test_targets

    def accuracy(model: object) -> float:
        return float((predict(OnnxRuntime().load(model), rows).argmax(1) == truth).mean())  # type: ignore[arg-type]

    print(f"original: accuracy {accuracy(found.model):.4f}, {found.model.size / 1000:.0f} kB")
    for name, (text, values) in CURVES.items():
        cells = []
        for value in values:
            try:
                made = run_plan(
                    parse(text.format(value)), found.model, {"x": found.train["x"][:256]}, trainable=trainable
                )
                cells.append(f"{value:g}: {accuracy(made.model):.4f} ({made.model.size / 1000:.0f} kB)")
            except CompressError as error:
                cells.append(f"{value:g}: {error.what[:40]}")
        print(f"{name:<26}" + "   ".join(cells), flush=True)
    print(f"took {time.process_time() - began:.0f} s of one core")


if __name__ == "__main__":
    main()
