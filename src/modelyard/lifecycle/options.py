"""The sections of `modelyard.toml`, one frozen dataclass each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelyard.lifecycle.option import (
    Margin,
    byte_size,
    duration,
    flag,
    fractions,
    function,
    maybe,
    name,
    number,
    one_of,
    option,
    project_path,
    read_margin,
    scalar,
    searching,
    source,
    text,
    texts,
    whole,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """`[data]`: where rows come from and how they are split."""

    source: str = option("a function (data.py:load) or a file (.csv, .parquet, .arrow, .npz)", source)
    label: str = option("the column to predict", text)
    key: str | None = option("the column that names a row; a key's rows stay in one part", maybe(text), None)
    order: str | None = option(
        "the column that orders rows in time; needed by split = 'time'", maybe(text), None
    )
    contract: str = option(
        "the contract's file, written by `modelyard data`, edited by people", project_path, "contract.toml"
    )
    split: str = option("how rows are dealt: by hash of the key, or by time", one_of("hash", "time"), "hash")
    fractions: tuple[float, float, float] = option(
        "shares of train, validation and test", fractions, (0.7, 0.15, 0.15)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """`[train]`: the recipe and its budget."""

    recipe: str = option(
        "the function that builds an estimator or a torch module", function, "recipe.py:build"
    )
    metric: str = option("what the search and the gate optimise", text)
    trials: int = option("how many settings the search tries", whole(1, 100_000), 20)
    budget: float | None = option("the search stops after this long", maybe(duration), None)
    seed: int = option("of everything random in training", whole(0, 2**31 - 1), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressOptions:
    """`[compress]`: what is tried to make the model smaller and faster."""

    passes: tuple[str, ...] = option(
        "passes, tried in order; none keeps the model as trained",
        texts,
        ("graph", "int8-static", "int8-dynamic"),
    )
    margin: Margin | None = option(
        "how much a compressed model may lose; by default 0.02, of an error 10%", read_margin, None
    )
    goal: str = option("what a pass must improve to be kept", one_of("speed", "size"), "speed")
    search: bool | float = option(
        "use the plan that `modelyard compress --search` chose; a duration lets the loop search for one",
        searching,
        True,
    )
    targets: tuple[str, ...] = option(
        "the engines that a search chooses from: cpu, openvino", texts, ("cpu",)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementOptions:
    """`[[requirement]]`: one line of good enough; exactly one of at_least and at_most."""

    metric: str = option("accuracy, rmse, latency_p99, model_size, ...", text)
    at_least: Any = option("the lower bound, a number or one with its unit", scalar, None)
    at_most: Any = option("the upper bound, a number or one with its unit: 5ms, 300kB", scalar, None)
    slice: str = option("the [[slice]] it holds for; all rows without it", text, "")
    strict: bool = option("hold the interval's edge against the bound, not the value", flag, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceOptions:
    """`[[slice]]`: a part of the data that must be good enough on its own."""

    name: str = option("what the slice is called", name)
    column: str = option("the column that decides", text)
    equals: Any = option("rows where the column is this", scalar, None)
    at_least: Any = option("rows where the column is at least this", scalar, None)
    below: Any = option("rows where the column is below this", scalar, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """`[gate]`: what a candidate must show before it may be released."""

    margin: Margin | None = option(
        "how much worse than the champion it may be; by default as above", read_margin, None
    )
    slide: Margin | None = option(
        "how much the last five releases may lose together; by default as above", read_margin, None
    )
    simpler_margin: float = option(
        "how much better than every baseline the model must be", number(-1e9, 1e9), 0.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """`[endpoint]`: the name that clients call, and where."""

    name: str | None = option("what clients call; the project's name without it", maybe(name), None)
    host: str = option("the address to listen on", text, "127.0.0.1")
    port: int = option("the port to listen on; 0 takes a free one", whole(0, 65535), 8080)
    workers: int = option("how many server processes", whole(1, 256), 1)
    exposed: bool = option("listen beyond this machine without TLS; a gateway stands before it", flag, False)
    tls_certificate: str | None = option("a PEM file; TLS is spoken with it", maybe(text), None)
    tls_key: str | None = option("the certificate's private key, a PEM file", maybe(text), None)
    grpc_port: int | None = option("speak the protocol over gRPC on this port too", whole(0, 65535), None)
    queue: int | None = option("items that may wait for a release; beyond, 503", maybe(whole(1, 10**7)), None)
    batch: int | None = option("items that the model gets at a time, at most", maybe(whole(1, 65536)), None)
    wait: float | None = option("longest wait for the model; beyond, 503 at once", maybe(duration), None)
    memory: float | None = option(
        "what all models of a worker may hold; three quarters of the machine without it",
        maybe(byte_size),
        None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryOptions:
    """`[canary]`: how a candidate meets traffic before it takes all of it."""

    fraction: float = option("the candidate's share of traffic", number(0.01, 0.9), 0.5)
    requests: int = option("how many requests are replayed at most", whole(100, 10_000_000), 3000)
    margin: float = option("how much worse in quality a candidate may be", number(0, 1), 0.05)
    error_margin: float = option("how many more of its requests a candidate may fail", number(0, 1), 0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorOptions:
    """`[monitor]`: what may happen in production before somebody is told."""

    false_alarms: float = option(
        "probability of any false alarm in a release's life", number(1e-6, 0.5), 0.05
    )
    window: int = option("rows a window is judged on", whole(20, 100_000_000), 500)
    detectors: tuple[str, ...] = option("what looks for drift, by name", texts, ("ks", "fisher", "missing"))
    stale_after: float = option("a release older than this is stale", duration, 30 * 86400.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOptions:
    """`[policy]`: rules about the data itself (ML Test Score data.4 and model.7)."""

    owner: str = option("who answers for the data", text, "")
    allowed_sources: tuple[str, ...] = option("sources a column may come from; any without it", texts, ())
    personal_features: tuple[str, ...] = option(
        "personal columns that may be features, each knowingly", texts, ()
    )
    feature_budget: float = option("what one feature may cost a request in time", duration, 0.01)
    groups: tuple[str, ...] = option("columns whose groups are compared for equal treatment", texts, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """`[score]`: how long evidence counts."""

    expires: float = option("evidence older than this no longer counts", duration, 30 * 86400.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """`[store]`: where everything is kept. `${NAME}` takes a value from the environment."""

    root: str = option("the embedded store's folder", project_path, ".modelyard")
    records: str | None = option("a database URL instead: postgresql://...", maybe(text), None)
    objects: str | None = option("an object store instead: s3://bucket/prefix", maybe(text), None)


SECTIONS: dict[str, type[Any]] = {
    "data": DataOptions,
    "train": TrainOptions,
    "compress": CompressOptions,
    "gate": GateOptions,
    "endpoint": EndpointOptions,
    "canary": CanaryOptions,
    "monitor": MonitorOptions,
    "policy": PolicyOptions,
    "score": ScoreOptions,
    "store": StoreOptions,
}
LISTS: dict[str, type[Any]] = {"requirement": RequirementOptions, "slice": SliceOptions}
