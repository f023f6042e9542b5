"""Disease progression from ten measurements: one function for tuning and for the final training."""

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS = ["age", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
CATEGORIES = ["sex"]


def build(trial) -> Pipeline:
    """Scaled numbers and a one-hot sex into a ridge regression or boosted trees, as the trial chooses."""
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), NUMBERS),
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), CATEGORIES),
        ]
    )
    if trial.suggest_categorical("model", ["ridge", "boosting"]) == "ridge":
        model = Ridge(alpha=trial.suggest_float("alpha", 1e-2, 1e3, log=True))
    else:
        model = GradientBoostingRegressor(
            n_estimators=trial.suggest_int("trees", 20, 150),
            max_depth=trial.suggest_int("depth", 1, 3),
            learning_rate=trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
            subsample=0.7,
        )
    return Pipeline([("columns", columns), ("model", model)])
