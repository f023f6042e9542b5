from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)

from modelyard.core.errors import ConversionError
from modelyard.core.spec import Tensors
from modelyard.model.convert import convert
from modelyard.model.convert.frame import frame
from modelyard.model.convert.splits import float32_below
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict
from modelyard.model.reader import read_model

ROWS = 300
LABELS = ("low", "mid", "high")
NUMBERS = ["age", "petal width (cm)", "z"]


def data(*, missing: bool = True, text: bool = True) -> Tensors:
    r = np.random.default_rng(0)
    columns = {
        "age": r.normal(50, 12, ROWS),
        "petal width (cm)": r.exponential(3, ROWS),
        "z": r.normal(size=ROWS),
    }
    tensors: Tensors = {name: value.astype(np.float32).reshape(-1, 1) for name, value in columns.items()}
    if missing:
        for name in ("age", "z"):
            tensors[name][r.random(ROWS) < 0.1] = np.nan
    if text:
        tensors["city"] = np.array(["bern", "basel", "chur", ""], object)[r.integers(0, 4, ROWS)].reshape(
            -1, 1
        )
    return tensors


def truth() -> tuple[np.ndarray, np.ndarray]:
    tensors = data(missing=False)
    value = tensors["age"][:, 0] + 5 * tensors["z"][:, 0]
    return np.digitize(value, [45, 55]), value.astype(np.float64)


CLASSES, VALUES = truth()
ONE_HOT = OneHotEncoder(handle_unknown="ignore")
ORDINAL = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
FILLED = make_pipeline(SimpleImputer(missing_values="", strategy="most_frequent"), ONE_HOT)


def pipeline(last: Any, encoder: Any = ONE_HOT) -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return make_pipeline(ColumnTransformer([("n", numbers, NUMBERS), ("c", encoder, ["city"])]), last)


def fitted(estimator: Any, tensors: Tensors, targets: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(frame(tensors), targets)


def lgbm(kind: str, **options: Any) -> Any:
    return getattr(lightgbm, f"LGBM{kind}")(n_estimators=15, verbose=-1, num_threads=1, **options)


@pytest.mark.parametrize(
    "estimator",
    [
        pipeline(LogisticRegression()),
        pipeline(LogisticRegression(), ORDINAL),
        pipeline(LogisticRegression(), FILLED),
        pipeline(RandomForestClassifier(10, random_state=0)),
        pipeline(GradientBoostingClassifier(n_estimators=10)),
        pipeline(HistGradientBoostingClassifier(max_iter=10)),
        pipeline(KNeighborsClassifier()),
        pipeline(MLPClassifier(max_iter=20, random_state=0)),
        pipeline(lgbm("Classifier")),
    ],
    ids=lambda estimator: type(estimator[-1]).__name__,
)
def test_classifiers_over_mixed_columns(estimator: Any) -> None:
    tensors = data()
    trained = fitted(estimator, tensors, CLASSES)
    made = convert(trained, tensors, task="classification", labels=LABELS)
    assert made.parity.passed and made.parity.claim == "model.parity"
    assert made.parity.details["disagreeing_labels"] == 0
    assert made.parity.details["rows_beyond"] == 0
    assert [spec.name for spec in made.model.signature.inputs] == list(tensors)
    assert [spec.shape for spec in made.model.signature.outputs] == [(-1, 3)]
    unseen = {**{name: array[:2].copy() for name, array in tensors.items()}}
    unseen["city"] = np.array([["atlantis"], [""]], object)
    got = predict(OnnxRuntime().load(made.model), unseen)
    np.testing.assert_allclose(got, trained.predict_proba(frame(unseen)), atol=1e-5)


@pytest.mark.parametrize(
    "estimator",
    [
        pipeline(Ridge()),
        pipeline(RandomForestRegressor(10, random_state=0)),
        pipeline(GradientBoostingRegressor(n_estimators=10)),
        pipeline(HistGradientBoostingRegressor(max_iter=10)),
        pipeline(KNeighborsRegressor()),
        pipeline(MLPRegressor(max_iter=20, random_state=0)),
        pipeline(lgbm("Regressor")),
    ],
    ids=lambda estimator: type(estimator[-1]).__name__,
)
def test_regressors_over_mixed_columns(estimator: Any) -> None:
    tensors = data()
    made = convert(fitted(estimator, tensors, VALUES), tensors, task="regression")
    assert [spec.to_json() for spec in made.model.signature.outputs] == [
        {"name": "prediction", "datatype": "FP32", "shape": [-1, 1]}
    ]
    assert made.parity.details["rows_beyond"] == 0


@pytest.mark.parametrize(
    "estimator",
    [
        lgbm("Classifier"),
        HistGradientBoostingClassifier(max_iter=10),
        RandomForestClassifier(10, random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
@pytest.mark.parametrize("binary", [False, True])
def test_trees_that_take_missing_numbers_themselves(estimator: Any, binary: bool) -> None:
    tensors = data(text=False)
    targets, labels = (CLASSES > 0, ("no", "yes")) if binary else (CLASSES, LABELS)
    trained = fitted(estimator, tensors, targets.astype(np.int64))
    made = convert(trained, tensors, task="classification", labels=labels)
    assert made.parity.details["rows_beyond"] == 0
    nothing = {name: np.full((1, 1), np.nan, np.float32) for name in tensors}
    got = predict(OnnxRuntime().load(made.model), nothing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(got, trained.predict_proba(frame(nothing)), atol=1e-5)


def test_rows_exactly_on_a_lightgbm_threshold_go_the_right_way() -> None:
    tensors = data(missing=False, text=False)
    trained = fitted(lgbm("Regressor"), tensors, VALUES)
    edges: dict[str, list[float]] = {name: [] for name in tensors}

    def walk(node: dict[str, Any]) -> None:
        if "threshold" in node:
            near = np.float32(node["threshold"])
            for value in (np.nextafter(near, np.float32(-1e9)), near, np.nextafter(near, np.float32(1e9))):
                for name in tensors:
                    edges[name].append(float(value))
            walk(node["left_child"])
            walk(node["right_child"])

    for tree in trained.booster_.dump_model()["tree_info"]:
        walk(tree["tree_structure"])
    rows = {name: np.array(values, np.float32).reshape(-1, 1) for name, values in edges.items()}
    made = convert(trained, rows, task="regression")
    assert made.parity.details["rows_beyond"] == 0 and made.parity.details["rows"] > 100


def test_the_float32_below() -> None:
    for value in np.random.default_rng(0).normal(size=200):
        below = float32_below(float(value))
        assert below <= value < float(np.nextafter(np.float32(below), np.float32(np.inf)))


def test_plain_matrices_and_images() -> None:
    tensors = data(missing=False, text=False)
    made = convert(fitted(LogisticRegression(max_iter=500), tensors, CLASSES), tensors, task="classification",
                   labels=LABELS)  # fmt: skip
    assert [spec.name for spec in made.model.signature.inputs] == list(tensors)
    image: Tensors = {"image": np.random.default_rng(0).integers(0, 255, (60, 4, 4)).astype(np.uint8)}
    trained = fitted(make_pipeline(MinMaxScaler(), KNeighborsClassifier()), image, CLASSES[:60])
    made = convert(trained, image, task="classification", labels=LABELS)
    assert made.model.signature.inputs[0].to_json() == {
        "name": "image",
        "datatype": "UINT8",
        "shape": [-1, 4, 4],
    }


def test_text_columns_without_a_column_transformer() -> None:
    tensors = {"city": data()["city"], "town": data()["city"][::-1].copy()}
    trained = fitted(make_pipeline(ONE_HOT, LogisticRegression()), tensors, CLASSES)
    assert convert(trained, tensors, task="classification", labels=LABELS).parity.passed


def test_columns_that_are_not_used_stay_inputs() -> None:
    tensors = data()
    trained = fitted(
        make_pipeline(ColumnTransformer([("n", "passthrough", ["petal width (cm)"])]), Ridge()),
        tensors,
        VALUES,
    )
    made = convert(trained, tensors, task="regression")
    assert [spec.name for spec in made.model.signature.inputs] == list(tensors)


def test_classes_that_were_never_seen_are_zero() -> None:
    tensors = data(missing=False, text=False)
    trained = fitted(LogisticRegression(max_iter=500), tensors, CLASSES * 2)
    made = convert(trained, tensors, task="classification", labels=("a", "b", "c", "d", "e"))
    answer = predict(OnnxRuntime().load(made.model), tensors)
    assert answer.shape == (ROWS, 5)
    assert not answer[:, [1, 3]].any()
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)


def test_feature_names_that_are_names_inside_the_graph() -> None:
    plain = data(missing=False, text=False)
    tensors = dict(zip(("variable", "matrix", "answer_cast"), plain.values(), strict=True))
    assert convert(fitted(Ridge(), tensors, VALUES), tensors, task="regression").parity.passed
    taken = dict(zip(("prediction", "b", "c"), plain.values(), strict=True))
    with pytest.raises(ConversionError, match="name of the output"):
        convert(fitted(Ridge(), taken, VALUES), taken, task="regression")


def test_what_cannot_be_converted_says_why() -> None:
    tensors = data(missing=False, text=False)
    with pytest.raises(ConversionError, match="predict_proba"):
        convert(fitted(RidgeClassifier(), tensors, CLASSES), tensors, task="classification", labels=LABELS)
    with pytest.raises(ConversionError, match="does not become ONNX"):
        own = make_pipeline(FunctionTransformer(lambda frame: frame * 2), Ridge())
        convert(fitted(own, tensors, VALUES), tensors, task="regression")
    with pytest.raises(ConversionError, match="other classes"):
        convert(fitted(LogisticRegression(max_iter=500), tensors, np.array(LABELS)[CLASSES]), tensors,
                task="classification", labels=LABELS)  # fmt: skip
    with pytest.raises(ConversionError, match="real rows"):
        convert(Ridge(), {}, task="regression")
    with pytest.raises(ConversionError, match="needs labels"):
        convert(Ridge(), tensors, task="classification")
    with pytest.raises(ConversionError, match="neither"):
        convert(object(), tensors, task="regression")
    ridge = fitted(Ridge(), tensors, VALUES)
    with pytest.raises(ConversionError, match=r"same order|other columns"):
        convert(ridge, dict(reversed(tensors.items())), task="regression")
    with pytest.raises(ConversionError, match="beside others"):
        convert(ridge, {**tensors, "image": np.zeros((ROWS, 2, 2), np.float32)}, task="regression")
    mixed = data()
    with pytest.raises(ConversionError):
        convert(fitted(KNeighborsRegressor(), {"age": tensors["age"]}, VALUES), mixed, task="regression")


class Shifted(Ridge):
    """Answers one more than the Ridge that skl2onnx takes it for."""

    def predict(self, X: Any) -> Any:  # noqa: N803
        return super().predict(X) + 1


def test_a_difference_is_refused_with_numbers_and_a_row() -> None:
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes
    from skl2onnx.operator_converters.linear_regressor import convert_sklearn_linear_regressor

    update_registered_converter(
        Shifted, "Shifted", calculate_linear_regressor_output_shapes, convert_sklearn_linear_regressor
    )
    tensors = data(missing=False, text=False)
    trained = fitted(Shifted(), tensors, VALUES)
    with pytest.raises(ConversionError) as caught:
        convert(trained, tensors, task="regression")
    assert f"{ROWS} of {ROWS} rows" in str(caught.value)
    assert "row 0" in str(caught.value) and "apart" in str(caught.value)
    assert convert(trained, tensors, task="regression", tolerance=1.0).parity.passed


SCRIPT = """
import sys, json
sys.path.insert(0, sys.argv[1])
from test_convert_sklearn import *
tensors = data()
made = [convert(fitted(pipeline(last), tensors, CLASSES), tensors, task="classification", labels=LABELS)
        for last in (LogisticRegression(), lgbm("Classifier"), RandomForestClassifier(5, random_state=0))]
print(json.dumps([item.model.digest for item in made]))
"""


def test_two_processes_give_the_same_bytes() -> None:
    here = str(Path(__file__).parent)
    run = subprocess.Popen([sys.executable, "-c", SCRIPT, here], stdout=subprocess.PIPE, text=True)
    tensors = data()
    mine = [
        convert(fitted(pipeline(last), tensors, CLASSES), tensors, task="classification", labels=LABELS)
        for last in (LogisticRegression(), lgbm("Classifier"), RandomForestClassifier(5, random_state=0))
    ]
    theirs = json.loads(run.communicate(timeout=100)[0])
    assert theirs == [item.model.digest for item in mine] and len(set(theirs)) == 3


def test_the_reader_takes_what_the_converter_made_as_it_is() -> None:
    tensors = data()
    made = convert(fitted(pipeline(Ridge()), tensors, VALUES), tensors, task="regression")
    again = read_model(made.model.onnx, task="regression")
    assert again == made.model and again.digest == made.model.digest
