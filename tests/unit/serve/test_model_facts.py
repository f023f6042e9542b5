"""Configuration and statistics in the words of Triton's own messages."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from modelyard.core.errors import RequestError
from modelyard.release.policy import Single
from modelyard.serve.grpc.messages import messages
from modelyard.serve.model_facts import CONFIG_TYPES, Statistics, model_config
from modelyard.serve.options import Limits
from modelyard.serve.plane import Plane, Question
from modelyard.serve.router import Endpoint, Router

OFFICIAL = ("ModelStreamInferResponse", "ModelConfig", "ModelInput", "ModelOutput", "ModelConfigResponse",
            "StatisticDuration", "InferStatistics", "ModelStatistics", "ModelStatisticsResponse")  # fmt: skip


@pytest.fixture
def routed(bench: Any) -> tuple[Plane, Any]:
    router = Router(("triple",))
    served = bench.served()
    router.swap(Endpoint("triple", 1, Single(served.digest), {served.digest: served}))
    return Plane(router, bench.metrics, type("R", (), {"append": bench.records.append})(), bench.clock,
                 name="p"), served  # fmt: skip


def test_what_was_asked_is_counted(bench: Any, inputs: Any, routed: tuple[Plane, Any]) -> None:
    plane, _ = routed
    for values in ((1.0, 2.0), (3.0,), (13.0,)):
        endpoint = plane.router.endpoint("triple")
        question = Question("triple", "i", inputs(*values), len(values), bench.clock.monotonic(), inf)
        plane.ask(question, plane.router.choose(endpoint, "k"), lambda outputs, error: None)
        bench.clock.advance(0.5)
        bench.executor.run()
    (told,) = Statistics(plane.router, bench.metrics).of("triple", "1")
    assert (told["name"], told["version"], told["inference_count"]) == ("triple", "1", 3)
    assert told["inference_stats"]["success"] == {"count": 2, "ns": 10**9}
    assert told["inference_stats"]["fail"] == {"count": 1, "ns": 5 * 10**8}
    assert Statistics(plane.router, bench.metrics).of(None) == [told]
    messages()["ModelStatistics"](**told)


@pytest.mark.parametrize(
    ("name", "version", "status"), [("tripel", None, 404), ("triple", "9", 404), (None, "1", 400)]
)
def test_what_is_not_served_has_none(
    bench: Any, routed: tuple[Plane, Any], name: str | None, version: str | None, status: int
) -> None:
    with pytest.raises(RequestError) as caught:
        Statistics(routed[0].router, bench.metrics).of(name, version)
    assert caught.value.status == status


def test_the_configuration_describes_one_item(routed: tuple[Plane, Any]) -> None:
    config = model_config("triple", routed[1], Limits(rows=7))
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [1]}]
    assert config["max_batch_size"] == 7 and config["dynamic_batching"] == {}


def test_the_messages_are_those_of_the_official_client() -> None:
    pytest.importorskip("tritonclient.grpc")
    from tritonclient.grpc import model_config_pb2, service_pb2

    known = {
        **service_pb2.DESCRIPTOR.message_types_by_name,
        **model_config_pb2.DESCRIPTOR.message_types_by_name,
    }
    for name in OFFICIAL:
        theirs = {field.name: (field.number, field.is_repeated) for field in known[name].fields}
        for field in messages()[name].DESCRIPTOR.fields:
            assert theirs[field.name] == (field.number, field.is_repeated), f"{name}.{field.name}"
    numbers = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name
    assert [numbers[name].number for name in CONFIG_TYPES] == list(range(len(CONFIG_TYPES)))
