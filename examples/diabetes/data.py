"""The real diabetes study of 442 patients that scikit-learn carries, in its original units."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa

COLUMNS = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]


def load() -> pa.Table:
    """One row a patient: `id`, age in years, sex, body-mass index, blood pressure, six blood serum
    measurements (`s1` to `s6`), and the `target`: how far the disease progressed within a year."""
    # The same files as sklearn.datasets.load_diabetes(scaled=False), without the seconds of importing it.
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            "the study comes with scikit-learn: pip install scikit-learn", name="sklearn"
        )
    folder = Path(package.origin).parent / "datasets" / "data"
    values = np.loadtxt(folder / "diabetes_data_raw.csv.gz")
    table = {"id": np.arange(len(values))} | dict(zip(COLUMNS, values.T, strict=True))
    table["age"] = table["age"].astype(np.int64)
    # The study codes the sexes 1 and 2 and does not say which is which.
    table["sex"] = np.where(table["sex"] == 1, "sex-1", "sex-2")
    table["target"] = np.loadtxt(folder / "diabetes_target.csv.gz")
    return pa.table(table)


def age_group(age: float) -> str:
    """The group of an age in years, for slices.

    >>> age_group(39.0), age_group(40.0), age_group(60.0)
    ('under 40', '40 to 59', '60 and over')
    """
    if age < 40:
        return "under 40"
    return "40 to 59" if age < 60 else "60 and over"
