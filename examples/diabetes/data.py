"""The real diabetes study of 442 patients that scikit-learn carries, in its original units."""

import pandas as pd
from sklearn.datasets import load_diabetes


def load() -> pd.DataFrame:
    """One row a patient: `id`, age in years, sex, body-mass index, blood pressure, six blood serum
    measurements (`s1` to `s6`), and the `target`: the progression of the disease one year later."""
    study = load_diabetes(as_frame=True, scaled=False)
    table = study.frame
    # The study codes the sexes 1 and 2 and does not say which is which.
    table["sex"] = table["sex"].map({1.0: "sex-1", 2.0: "sex-2"})
    table["age"] = table["age"].astype(int)
    table.insert(0, "id", range(len(table)))
    return table


def age_group(age: float) -> str:
    """The group of an age in years, for slices.

    >>> age_group(39.0), age_group(40.0), age_group(60.0)
    ('under 40', '40 to 59', '60 and over')
    """
    if age < 40:
        return "under 40"
    return "40 to 59" if age < 60 else "60 and over"
