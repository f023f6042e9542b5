"""TensorFlow Serving's REST interface over HTTP.

POST /v1/models/{endpoint}[/versions/{v}]:predict | :classify | :regress
GET  /v1/models/{endpoint}[/versions/{v}][/metadata]
"""

from __future__ import annotations

from collections.abc import Collection

from modelyard.core.errors import RequestError
from modelyard.core.names import did_you_mean
from modelyard.core.spec import Tensors
from modelyard.data.rows import from_rows
from modelyard.serve.codec.tfserving import (
    Examples,
    Predict,
    read_examples,
    read_predict,
    tensors_of,
    write_classify,
    write_metadata,
    write_predict,
    write_regress,
    write_status,
)
from modelyard.serve.dialect import Ask, Read, Spoken, Tell
from modelyard.serve.exchange import Headers, Written
from modelyard.serve.options import Limits
from modelyard.serve.pool import Served
from modelyard.serve.router import Endpoint

VERBS = ("predict", "classify", "regress")


class SpokenPredict:
    """A `:predict` request."""

    __slots__ = ("_limits", "_predict", "id", "key")

    def __init__(self, predict: Predict, limits: Limits) -> None:
        self._predict = predict
        self._limits = limits
        self.id = self.key = ""

    def tensors(self, served: Served) -> tuple[Tensors, int]:
        """The rows or columns as the model's inputs."""
        inputs, limits = served.signature.inputs, self._limits
        return tensors_of(self._predict, inputs, elements=limits.elements, rows=limits.rows)

    def write(self, endpoint: str, served: Served, identity: str, outputs: Tensors) -> Written:
        """All outputs, in the format of the request."""
        return Written(write_predict(self._predict.field, outputs))


class SpokenExamples:
    """A `:classify` or `:regress` request."""

    __slots__ = ("_examples", "_verb", "id", "key")

    def __init__(self, examples: Examples, verb: str) -> None:
        self._examples = examples
        self._verb = verb
        self.id = self.key = ""

    def tensors(self, served: Served) -> tuple[Tensors, int]:
        """The examples as the contract's features."""
        task = "classification" if self._verb == "classify" else "regression"
        if served.task != task:
            raise RequestError(f"the model does not {self._verb}", value=served.task, where="path",
                               fix="use :predict")  # fmt: skip
        try:
            return from_rows(self._examples.rows, served.contract), len(self._examples.rows)
        except RequestError as error:
            error.where = (error.where or "").replace("rows[", "examples[")
            raise

    def write(self, endpoint: str, served: Served, identity: str, outputs: Tensors) -> Written:
        """Labels with probabilities, or values."""
        if self._verb == "classify":
            return Written(write_classify(outputs[served.output], served.labels))
        return Written(write_regress(outputs[served.output]))


class TensorFlowServing:
    """The `Dialect`."""

    def route(
        self, method: str, parts: list[str], headers: Headers, endpoints: Collection[str]
    ) -> Ask | Tell | None:
        """Everything under `/v1/models/`."""
        if parts[:3] != ["", "v1", "models"]:
            return None
        match parts[3:]:
            case [name] if name:
                name, _, verb = name.partition(":")
                version = None
            case [name, "versions", given] if name and given:
                given, _, verb = given.partition(":")
                version = given
            case [name, "metadata"] if name:
                _only(method, "GET", "HEAD")
                return Tell(name, None, _metadata)
            case [name, "versions", version, "metadata"] if name and version:
                _only(method, "GET", "HEAD")
                return Tell(name, version, _metadata)
            case [_, "labels", label, *_]:
                raise RequestError("versions have no labels here", status=404, where="path", value=label[:64],
                                   fix="name the version: /v1/models/NAME/versions/V")  # fmt: skip
            case _:
                return None
        if not verb:
            _only(method, "GET", "HEAD")
            return Tell(name, version, _status if version is None else _version_status)
        _only(method, "POST")
        if verb not in VERBS:
            raise RequestError("there is no such method", status=404, value=verb[:64], where="path",
                               fix=did_you_mean(verb, VERBS))  # fmt: skip
        return Ask(name, version, _reader(verb))


def _reader(verb: str) -> Read:
    def read(body: bytes, headers: Headers, limits: Limits) -> Spoken:
        if verb == "predict":
            return SpokenPredict(read_predict(body), limits)
        return SpokenExamples(read_examples(body, limit=limits.rows), verb)

    return read


def _status(endpoint: Endpoint, served: Served) -> Written:
    return Written(write_status(sorted({item.version for item in endpoint.releases.values()})))


def _version_status(endpoint: Endpoint, served: Served) -> Written:
    return Written(write_status([served.version]))


def _metadata(endpoint: Endpoint, served: Served) -> Written:
    signature = served.signature
    return Written(write_metadata(endpoint.name, served.version, signature.inputs, signature.outputs))


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise RequestError("the method is not allowed here", status=405, value=method,
                           rule=" or ".join(allowed))  # fmt: skip
