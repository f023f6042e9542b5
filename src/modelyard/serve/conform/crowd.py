"""Cases under load: every caller gets its own answer, and the server stays well."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from modelyard.serve.conform.case import Case, need, skip
from modelyard.serve.conform.client import Client
from modelyard.serve.conform.exchange import Exchange
from modelyard.serve.conform.message import Answer, answered, infer_json, read_answer, sample, steady
from modelyard.serve.conform.model import ModelInfo
from modelyard.serve.conform.tensor import Sample, same

CALLERS = 16
DISTINCT = 32
ROUNDS = 4
_HEALTH_SECONDS = 2.0


def _crowd(client: Client, model: ModelInfo, inputs: list[Sample], rounds: int) -> list[tuple[int, Exchange]]:
    """Each input asked `rounds` times, `CALLERS` at once, in an order that mixes them; the order is fixed."""
    step = next(s for s in (7, 5, 3, 1) if len(inputs) % s or len(inputs) == 1)
    order = [(turn * step) % len(inputs) for turn in range(len(inputs) * rounds)]
    requests = [infer_json(model, item, id=f"crowd-{index}") for index, item in enumerate(inputs)]
    with ThreadPoolExecutor(CALLERS) as pool:
        return list(zip(order, pool.map(lambda index: client.send(requests[index]), order), strict=True))


def _own(client: Client, model: ModelInfo) -> str:
    inputs = [
        sample(model, items=1 + seed % 3 if model.batched else 1, seed=seed) for seed in range(DISTINCT)
    ]
    steady(client, model, inputs[0])
    expected = [answered(client, infer_json(model, item)) for item in inputs]
    distinct = len({_print(answer) for answer in expected})
    if distinct < 2:
        skip("every input gives the same answer, so a swap would not be seen; give others with --inputs FILE")
    for index, exchange in _crowd(client, model, inputs, ROUNDS):
        if exchange.status in (429, 503):
            continue  # a server may refuse load; answering wrongly is what matters
        answer = read_answer(exchange)
        need(
            answer.head.get("id") == f"crowd-{index}",
            f"the id of another: {answer.head.get('id')!r}",
            exchange,
        )
        whose = _whose(answer, expected, index)
        kind = "nobody's" if whose is None else f"that of caller {whose}, not of caller {index}"
        need(whose == index, f"the answer is {kind}", exchange)
    return f"{DISTINCT * ROUNDS} requests, {distinct} different answers, {CALLERS} at once"


def _print(answer: Answer) -> str:
    return repr([output.values.tolist() for output in answer.outputs])


def _whose(answer: Answer, expected: list[Answer], index: int) -> int | None:
    """Whose answer it is: the caller's own when it agrees with it."""
    places = (index, *range(len(expected)))
    return next((other for other in places if _equal(answer, expected[other])), None)


def _equal(left: Answer, right: Answer) -> bool:
    if [output.name for output in left.outputs] != [output.name for output in right.outputs]:
        return False
    pairs = zip(left.outputs, right.outputs, strict=True)
    return all(same(mine.values, yours.values, mine.datatype) for mine, yours in pairs)


def _healthy(client: Client, model: ModelInfo) -> str:
    """Health is asked again and again while the model is busy."""
    inputs = [sample(model, seed=seed) for seed in range(8)]
    ended = threading.Event()
    slow: list[tuple[str, Exchange]] = []
    asked = [0]

    def watch() -> None:
        while not ended.is_set():
            for path in ("/v2/health/live", "/v2/health/ready"):
                exchange = client.get(path)
                asked[0] += 1
                took = client.timeout if exchange.response is None else exchange.response.seconds
                if exchange.status != 200 or took > _HEALTH_SECONDS:
                    slow.append((f"{path} under load: {exchange.said()} after {took:.2f} s", exchange))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        _crowd(client, model, inputs, rounds=16)
    finally:
        ended.set()
        watcher.join()
    need(not slow, slow[0][0] if slow else "", slow[0][1] if slow else None)
    return f"asked {asked[0]} times"


def _after(client: Client, model: ModelInfo) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", f"{model.path}/ready"):
        exchange = client.get(path)
        need(exchange.status == 200, f"after all cases {path}: {exchange.said()}", exchange)
    answered(client, infer_json(model, sample(model)))


_checks: tuple[tuple[str, str, Callable[[Client, ModelInfo], str | None]], ...] = (
    ("crowd.own-answers", "many callers at once: each gets its own answer", _own),
    ("crowd.health", "health answers while the model is busy", _healthy),
    ("server.after", "after all this the server is live, ready and answers", _after),
)

CROWD = tuple(Case(name, title, "Inference", "required", check) for name, title, check in _checks)
