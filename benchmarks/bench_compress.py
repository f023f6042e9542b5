"""Compression against onnxruntime's own defaults, OpenVINO with NNCF, and Olive, on four networks.

    make bench-compress                      all networks and peers: half an hour
    .venv/bin/python benchmarks/bench_compress.py --quick        the same in under a quarter of an hour
    .venv/bin/python benchmarks/bench_compress.py --networks "digits CNN" --budget 60 --peers onnxruntime

Everything that is compared on a network runs in this process, one after the other in rounds whose order is
drawn, one thread each; a ratio is the median over rounds of original over candidate, with a bootstrap
interval. Accuracy is on rows that neither search nor calibration saw. Peers are installed into environments
of their own below `build/`; one that will not install, or fails, is a row that says so. The tables of papers
are scripts in `benchmarks/compress/`, run with `--tables`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

sys.path.insert(0, str(Path(__file__).parent / "compress"))

from networks import FOLDER, NETWORKS, Network, network

from modelyard.compress.gate import Held
from modelyard.compress.machine import this_machine
from modelyard.compress.search.default_space import default_space
from modelyard.compress.search.search import search_plans
from modelyard.measure.compare import difference
from modelyard.model.chosen_runtime import DEFAULT_RUNTIME, ChosenRuntime
from modelyard.model.model import Model
from modelyard.model.openvino_runtime import Engine, OpenVinoSession
from modelyard.model.predict import predict
from modelyard.model.reader import read_model
from modelyard.model.runtime import Session
from modelyard.model.runtimes import RUNTIMES
from modelyard.store.store import open_store

HERE = Path(__file__).parent / "compress"
PEERS = ("onnxruntime", "nncf", "olive")
PACKAGES = {"nncf": "nncf", "olive": "olive-ai"}
TABLES = ("hinton_2015", "deep_compression", "distilbert_small", "curves")
MARGIN = 0.01
CALIBRATION = 256
LOADS = 4


@dataclass
class Row:
    """One line of the table."""

    network: str
    who: str
    what: str
    speed: float | None = None
    low: float | None = None
    high: float | None = None
    accuracy: float | None = None
    worse: float | None = None
    bytes: int | None = None
    seconds: float | None = None
    note: str = ""


@dataclass
class Contender:
    who: str
    what: str
    load: Callable[[], Session]
    bytes: int
    seconds: float


def ours(found: Network, budget: float) -> tuple[Contender, str]:
    """What our search keeps, with the time that it took, set-up included."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        engines = ["onnxruntime"]
        try:
            RUNTIMES.get("openvino").load(found.model).close()
            engines.append("openvino")
        except Exception as error:
            print(f"  openvino is not searched: {error}", file=sys.stderr)
        kept = search_plans(
            found.model, default_space(None, engines),
            {name: values[:CALIBRATION] for name, values in found.train.items()},
            Held(found.validation, found.validation_targets), records=store.records, objects=store.objects,
            metric="accuracy", margin=2 * MARGIN, budget=budget, tuning=FOLDER / "tuning",
            progress=lambda done, text: print(f"\r  {done:4.0%} {text[:70]:<70}", end="", file=sys.stderr),
        )  # fmt: skip
        store.close()
    print(file=sys.stderr)
    name = "float" if kept.chosen is None else kept.chosen.name
    chosen = ChosenRuntime(kept.runtime, kept.settings)
    name = name if chosen.name in name or chosen == DEFAULT_RUNTIME else f"{name} on {chosen}"
    load = loader(kept.model, chosen)
    return Contender("modelyard", name, load, kept.model.size, time.perf_counter() - began), kept.why


def defaults(found: Network) -> Contender:
    """onnxruntime's static quantization with its own defaults, after its own preparation."""
    began = time.perf_counter()

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            values = {name: rows[:CALIBRATION] for name, rows in found.train.items()}
            count = len(next(iter(values.values())))
            self._rows = iter(
                [{name: item[i : i + 1] for name, item in values.items()} for i in range(count)]
            )

        def get_next(self) -> Any:
            return next(self._rows, None)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(found.model.onnx)
        quant_pre_process(str(folder / "model.onnx"), str(folder / "ready.onnx"))
        quantize_static(str(folder / "ready.onnx"), str(folder / "int8.onnx"), Reader())
        made = read_model(
            (folder / "int8.onnx").read_bytes(), task="classification", labels=found.model.labels
        )
    return Contender(
        "onnxruntime", "static, its defaults", loader(made), made.size, time.perf_counter() - began
    )


def peer(found: Network, name: str, most: float) -> Contender:
    """A peer's model, made in its own environment in at most so many seconds; raises with its last words."""
    python = installed(name)
    began = time.perf_counter()
    slug = found.name.replace(" ", "-").replace(",", "")
    source, rows = FOLDER / f"{slug}.onnx", FOLDER / f"{slug}.npz"
    np.savez(rows, **{key: values[:CALIBRATION] for key, values in found.train.items()})
    suffix = ".xml" if name == "nncf" else ".onnx"
    target = FOLDER / f"{slug}-{name}{suffix}"
    target.unlink(missing_ok=True)
    call([str(python), str(HERE / f"peer_{name}.py"), str(source), str(rows), str(target)], most)
    seconds = time.perf_counter() - began
    if name == "nncf":
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}

        def load() -> Session:
            made = importlib.import_module("openvino").Core().compile_model(str(target), "CPU", settings)
            return OpenVinoSession(Engine(made, {}), found.model.signature)

        size = target.stat().st_size + target.with_suffix(".bin").stat().st_size
        return Contender("OpenVINO + NNCF", "int8, preset of its guide", load, size, seconds)
    model = read_model(target.read_bytes(), task="classification", labels=found.model.labels)
    return Contender("Olive", "OnnxStaticQuantization", loader(model), model.size, seconds)


def loader(model: Model, runtime: ChosenRuntime = DEFAULT_RUNTIME) -> Callable[[], Session]:
    """What loads a model anew: where a load puts its buffers is luck, which several loads even out."""
    return lambda: runtime.load(model)


def installed(name: str) -> Path:
    """The Python of a peer's environment, made at its first use; it sees what is here (torch)."""
    folder = FOLDER / f"venv-{name}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"  installing {PACKAGES[name]} into {folder.name}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True)
        place = next((folder / "lib").glob("python3*/site-packages"))
        ours_too = next(path for path in sys.path if path.endswith("site-packages"))
        (place / "shared.pth").write_text(ours_too + "\n")
        call([str(python), "-m", "pip", "install", "--quiet", PACKAGES[name]], 900)
        (folder / "ready").touch()
    return python


def call(command: list[str], seconds: float) -> None:
    """Runs a command; raises `RuntimeError` with its last line when it fails or takes too long."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"did not end within {seconds:g} s") from None
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise RuntimeError(lines[-1][:200] if lines else f"exit code {done.returncode}")


def rounds(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, np.ndarray[Any, Any]]:
    """Seconds of each call, round by round, all in each round in an order that is drawn."""
    rng, names = np.random.default_rng(0), list(calls)
    batch = {}
    for name, run in calls.items():
        for _ in range(5):
            run()
        start = time.perf_counter()
        run()
        batch[name] = max(1, int(2e-4 / max(time.perf_counter() - start, 1e-7)))
    taken: dict[str, list[float]] = {name: [] for name in names}
    end = time.perf_counter() + seconds * len(names)
    while time.perf_counter() < end and len(taken[names[0]]) < 1000:
        for index in rng.permutation(len(names)):
            name = names[index]
            start = time.perf_counter()
            for _ in range(batch[name]):
                calls[name]()
            taken[name].append((time.perf_counter() - start) / batch[name])
    return {name: np.array(values) for name, values in taken.items()}


def ratio(reference: Any, candidate: Any) -> tuple[float, float, float]:
    """The median of the rounds' ratios and its 95 % bootstrap interval over blocks of rounds."""
    logs = np.log(reference / candidate)
    rng, block = np.random.default_rng(1), max(1, len(logs) // 40)
    starts = rng.integers(0, len(logs), (1000, -(-len(logs) // block)))
    picked = (starts[:, :, None] + np.arange(block)).reshape(1000, -1)[:, : len(logs)] % len(logs)
    low, high = np.quantile(np.median(logs[picked], axis=1), [0.025, 0.975])
    return float(np.exp(np.median(logs))), float(np.exp(low)), float(np.exp(high))


def compared(found: Network, budget: float, peers: list[str], seconds: float, most: float) -> list[Row]:
    """All contenders on one network: made, then timed together; a peer has `most` seconds for its model."""
    base = RUNTIMES.get("onnxruntime").load(found.model)
    contenders, rows = [Contender("original", "float32", loader(found.model), found.model.size, 0.0)], []
    try:
        mine, why = ours(found, budget)
        print(f"  {why}", file=sys.stderr)
        contenders.append(mine)
    except Exception as error:
        rows.append(Row(found.name, "modelyard", "", note=f"failed: {error}"))
    for name in peers:
        try:
            contenders.append(defaults(found) if name == "onnxruntime" else peer(found, name, most))
        except Exception as error:
            rows.append(Row(found.name, name, "", note=f"not compared: {str(error).splitlines()[0][:160]}"))
    one, wanted = {key: values[:1] for key, values in found.test.items()}, (found.model.output,)

    def calling(session: Session) -> Callable[[], object]:
        return lambda: session.run(one, wanted)

    looks = [
        rounds({item.who: calling(item.load()) for item in contenders}, seconds / LOADS) for _ in range(LOADS)
    ]
    taken = {item.who: np.concatenate([look[item.who] for look in looks]) for item in contenders}
    truth, before = found.test_targets, predict(base, found.test)
    made = []
    for item in contenders:
        after = predict(item.load(), found.test, batch=1 if item.who.startswith("OpenVINO") else 256)
        apart = difference("accuracy", truth, before, after)
        accuracy = float((after.argmax(axis=1) == truth).mean())
        made.append(
            Row(
                found.name, item.who, item.what, *ratio(taken["original"], taken[item.who]), accuracy,
                -apart.value, item.bytes, item.seconds,
                f"{np.median(taken[item.who]) * 1e6:.0f} µs a row, {len(taken[item.who])} rounds",
            )
        )  # fmt: skip
    return made + rows


def bar(rows: list[Row]) -> list[tuple[bool, str]]:
    """The lines of the bar on a network: whether each holds, and its numbers."""
    mine = next((row for row in rows if row.who == "modelyard" and row.speed), None)
    if mine is None:
        return [(False, "ours was not made")]
    own = f"ours {mine.speed:.2f}x [{mine.low:.2f}, {mine.high:.2f}]"
    lines = [((mine.high or 0) >= 1, f"never slower than its original: {own}")]
    # A point of accuracy on these rows is noise: quality within it counts as equal.
    enough = (mine.worse or 0) + MARGIN
    peers = [row for row in rows if row.who not in ("modelyard", "original") and row.speed]
    fair = [row for row in peers if (row.worse or 0) <= enough]
    if not fair:
        told = f"none of {len(peers)} peers that were compared keeps as much quality"
        return [
            *lines,
            (bool(peers), f"against the best peer: {told if peers else 'no peer to compare with'}"),
        ]
    best = max(fair, key=lambda row: row.speed or 0)
    fast = (mine.high or 0) >= (best.low or 0)
    least = min(row.bytes or 0 for row in fair)
    small = (mine.bytes or 0) <= least
    theirs = f"{best.who} {best.speed:.2f}x [{best.low:.2f}, {best.high:.2f}]"
    sides = [
        f"{'at least as fast as' if fast else 'slower than'} {theirs}",
        f"{'as small as' if small else 'larger than'} their smallest {least / 1000:.1f} kB",
    ]
    return [*lines, (fast or small, f"against the best peer at equal quality: {own}, {' and '.join(sides)}")]


def show(rows: list[Row]) -> None:
    """The rows of a network as text."""
    for row in rows:
        if row.speed is None:
            print(f"  {row.who:<16} {row.note}")
            continue
        print(
            f"  {row.who:<16} {row.speed:5.2f}x [{row.low:.2f}, {row.high:.2f}]  accuracy {row.accuracy:.4f} "
            f"({row.worse:+.4f} worse)  {(row.bytes or 0) / 1000:8.1f} kB  made in {row.seconds:5.1f} s  "
            f"{row.what} · {row.note}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--quick", action="store_true", help="40 s of search, 1 s of timing, peers in 90 s")
    parser.add_argument("--budget", type=float, help="seconds of our search, a network; 120")
    parser.add_argument("--seconds", type=float, help="of timing, a contender; 3")
    parser.add_argument("--patience", type=float, help="seconds that a peer has for its model; 600")
    parser.add_argument("--json", type=Path, default=FOLDER / "results.json")
    parser.add_argument("--tables", action="store_true", help="also the tables of papers")
    options = parser.parse_args()
    print(f"machine: {this_machine()}; load {os.getloadavg()[0]:.1f} as it begins (above 1: not alone)")
    quick = options.quick
    budget = options.budget or (40.0 if quick else 120.0)
    seconds = options.seconds or (1.0 if quick else 3.0)
    patience = options.patience or (90.0 if quick else 600.0)
    every: list[Row] = []
    held: list[bool] = []
    for name in options.networks:
        found: Network = network(name)
        print(f"\n{name}: {found.model.size / 1000:.0f} kB, {len(found.test_targets)} test rows")
        rows = compared(found, budget, options.peers, seconds, patience)
        show(rows)
        for holds, told in bar(rows):
            print(f"  {'holds' if holds else 'DOES NOT HOLD'}: {told}", flush=True)
            held.append(holds)
        every += rows
    print(f"\n{sum(held)} of {len(held)} lines of the bar hold on {len(options.networks)} networks")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps([asdict(row) for row in every], indent=2))
    print(f"\nload {os.getloadavg()[0]:.1f} as it ends; kept in {options.json}")
    if options.tables:
        for table in TABLES:
            print(f"\n== {table}", flush=True)
            subprocess.run([sys.executable, str(HERE / f"{table}.py")], check=False)


if __name__ == "__main__":
    main()
