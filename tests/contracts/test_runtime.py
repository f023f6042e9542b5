"""What every `Runtime` keeps, whoever brings it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelyard.core.errors import ModelError
from modelyard.model.model import Model
from modelyard.model.predict import predict
from modelyard.model.reader import read_model
from modelyard.model.runtime import RuntimeOptions, Session
from modelyard.model.runtimes import RUNTIMES

X = np.arange(6, dtype=np.float32).reshape(2, 3)
CITY = np.array([["bern"], ["basel"]], object)


def model() -> Model:
    """prediction = sum of x, echo = city, twice = 2 x."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x", "axis"], ["prediction"]),
            helper.make_node("Identity", ["city"], ["echo"]),
            helper.make_node("Add", ["x", "x"], ["twice"]),
        ],
        "g",
        [value("x", TensorProto.FLOAT, ["N", 3]), value("city", TensorProto.STRING, ["N", 1])],
        [
            value("twice", TensorProto.FLOAT, ["N", 3]),
            value("prediction", TensorProto.FLOAT, ["N", 1]),
            value("echo", TensorProto.STRING, ["N", 1]),
        ],
        [onnx.numpy_helper.from_array(np.array([1], np.int64), "axis")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return read_model(proto.SerializeToString(), task="regression")


@pytest.fixture(params=RUNTIMES.names())
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    loaded = RUNTIMES.get(request.param).load(model(), RuntimeOptions(threads=1))
    yield loaded
    loaded.close()


def test_it_answers_in_the_order_of_the_signature(session: Session) -> None:
    answer = session.run({"x": X, "city": CITY})
    assert list(answer) == ["twice", "prediction", "echo"]
    np.testing.assert_array_equal(answer["prediction"], [[3], [12]])
    assert answer["echo"].dtype == object and answer["echo"].tolist() == CITY.tolist()


def test_it_gives_the_outputs_that_are_asked_for(session: Session) -> None:
    assert list(session.run({"x": X, "city": CITY}, ["echo", "prediction"])) == ["echo", "prediction"]
    np.testing.assert_array_equal(predict(session, {"x": X, "city": CITY}, batch=1), [[3], [12]])
    assert predict(session, {"x": X[:0], "city": CITY[:0]}).shape == (0, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": X.astype(np.float64)}, "datatype"),
        ({"x": X[:, :2]}, "shape"),
        ({"x": X[0]}, "shape"),
        ({"x": X[:1]}, "differ in their number"),
        ({"x": X[:0], "city": CITY[:0]}, "no item"),
        ({"x": X.tolist()}, "not an array"),
        ({"y": X}, "no input of this name"),
        ({"x": None}, "missing"),
        ({"city": np.array([[1], [2]], object)}, "not text"),
        ({"city": np.array([["a"], ["b"]])}, "datatype"),
    ],
)
def test_wrong_inputs_are_named(session: Session, change: dict[str, object], words: str) -> None:
    inputs = {"x": X, "city": CITY, **change}
    if words == "missing":
        del inputs["x"]
    with pytest.raises(ModelError, match=words):
        session.run(inputs)  # type: ignore[arg-type]


def test_unknown_outputs_answer_with_the_nearest(session: Session) -> None:
    with pytest.raises(ModelError, match="did you mean 'prediction'"):
        session.run({"x": X, "city": CITY}, ["predictoin"])


def test_inputs_are_left_as_they_were(session: Session) -> None:
    x = X.copy()
    x.flags.writeable = False
    session.run({"x": x, "city": CITY})
    session.run({"x": np.asfortranarray(X), "city": CITY})
    np.testing.assert_array_equal(x, X)


def test_threads_may_share_a_session(session: Session) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for step in range(50):
            x = np.full((1 + step % 3, 3), number, np.float32)
            city = np.full((len(x), 1), str(number), object)
            answer = session.run({"x": x, "city": city})
            if not (answer["prediction"] == 3 * number).all() or not (answer["echo"] == str(number)).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", RUNTIMES.names())
def test_a_graph_that_the_engine_refuses(name: str) -> None:
    good = model()
    with pytest.raises(ModelError):
        RUNTIMES.get(name).load(Model(b"rubbish", good.signature, "regression"))
