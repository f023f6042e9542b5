"""The serving plane against the HTTP ceiling, a bare loop and today's servers, interleaved in one run.

    make bench-serve                             every line of the bar that needs no other server, 6 minutes
    make bench-serve ARGS=--peers                the servers of `serve/peers.py` too, 14 minutes
    make bench-serve ARGS="--peers fastapi,ray"  some of them
    make bench-serve ARGS=--quick                short runs, FastAPI if it is installed, 2 minutes

Needs `wrk`, a C compiler for the open loop of `serve/openloop.c` (without one its lines are not measured),
and two cores: the server with all its processes on core 0, the load on core 1. The first run with a peer
installs it, which takes minutes that do not count above. Beside requests a second it counts the server's CPU
time a request, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import serve_yard as yard
from serve import peers
from serve.ask import asks
from serve.bar import Bar, number, rows_of, script
from serve.found import BARE, CEILING, DOOR, OURS, SILENT, Bench
from serve.found import beside as beside_name
from serve.loops import Tail, on_core, overload, tails
from serve.server import Failed, Server, free_port
from serve.turns import loss, shares

from modelyard.release.policy import Single
from modelyard.serve.load.schedule import Arrivals

HERE = Path(__file__).parent
CHANNELS = 96
"""Of the convolutional network: about 5.6 ms an item on the machine whose figures the bar starts from."""
LOADS = (("mlp", 1), ("mlp", 64), ("cnn", 64))
"""What every server is asked."""


def prepare(bench: Bench) -> None:
    """Releases behind endpoints, and the same graphs for everybody else."""
    made = yard.Yard.make(bench.folder / "yard")
    made.serve(("mlp",))
    made.set("cnn", Single(made.release("cnn", yard.cnn(channels=CHANNELS)).digest))
    made.store.close()
    graphs = {"mlp": yard.mlp(), "cnn": yard.cnn(channels=CHANNELS)}
    for model, graph in graphs.items():
        bench.files[model] = bench.folder / f"{model}.onnx"
        bench.files[model].write_bytes(graph)
    bench.known = asks(bench.folder, graphs)
    bench.yard = made


def ours(bench: Bench, name: str, **options: Any) -> Server:
    """Our server in the foreground."""
    port = free_port()
    given = {"state": str(bench.folder / f"state-{name}"), "root": str(bench.yard.folder / "store"),
             "keys": str(bench.yard.keys), "port": port} | options  # fmt: skip
    return Server(name, [sys.executable, str(HERE / "serve_ours.py"), json.dumps(given)], port)


def begin(bench: Bench) -> None:
    """Ours with everything on, ours without its log, the HTTP ceilings, and a bare loop."""
    started = [ours(bench, OURS), ours(bench, SILENT, sample=0.0)]
    files = [str(bench.files[model]) for model in ("mlp", "cnn")]
    for name in (CEILING, BARE):
        port = free_port()
        started.append(
            Server(name, [sys.executable, str(HERE / "serve_bare.py"), name, str(port), *files], port)
        )
    port = free_port()
    engine = [sys.executable, str(HERE / "serve" / "engines.py"), "--serve", "modelyard", "--port", str(port)]
    started.append(Server(DOOR, engine, port))
    bench.running += started
    for server in started:
        try:
            server.wait(server.listens, 30)
        except Failed as error:
            if server.name != DOOR:
                raise
            bench.note(error)
            bench.running.remove(server)
            server.stop()
            continue
        for model in () if server.name in (CEILING, DOOR) else ("mlp", "cnn"):
            server.wait(_right(bench, server, model))


def _right(bench: Bench, server: Server, model: str) -> Callable[[], bool]:
    return lambda: bench.known[model, server.form.body].answered(server.port, server.form.path)


def rounds(bench: Bench) -> None:
    """Every server in turn within each round, so that what disturbs one disturbs all."""
    for _ in range(bench.rounds):
        for model, connections in LOADS:
            for server in bench.running:
                if server.name != SILENT:
                    bench.run(server, model, "json", connections)
            if connections == 64:
                for server in (bench.of(OURS), bench.of(CEILING)):
                    bench.run(server, model, "binary", connections)
    for server in bench.running:
        if server.name != SILENT:
            bench.memory[server.name] = server.memory


def variants(bench: Bench, peer: peers.Peer) -> Iterator[Server]:
    """A peer in each of its variants, started and right in its answers; what does not start is noted."""
    for variant in peer.variants:
        try:
            server, took = peers.begin(peer, variant, bench.files, bench.known)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            bench.note(error)
            continue
        bench.starts[server.name] = took
        yield server


def beside(bench: Bench, peer: peers.Peer) -> None:
    """A peer in each of its variants, ours asked in turn with it and the peer stopped meanwhile."""
    for server in variants(bench, peer):
        try:
            for model, connections in LOADS:
                server.pause()
                bench.run(bench.of(OURS), model, "json", connections, name=beside_name(server.name))
                server.resume()
                bench.run(server, model, peer.form.body, connections, max(peer.seconds, bench.seconds))
                server.settle()
            bench.memory[server.name] = server.memory
        finally:
            server.stop()


def start_and_memory(bench: Bench, times: int = 3) -> tuple[float, float]:
    """Seconds from starting the process to its first right answer, and its resident MB, one small model."""
    took = []
    memory = 0.0
    for _ in range(times):
        server = ours(bench, "start", endpoints=["mlp"])
        try:
            took.append(server.wait(_right(bench, server, "mlp"), 30))
            server.load(bench.known["mlp", "json"].script, "/v2/models/mlp/infer", 8, 1)
            memory = server.memory
        finally:
            server.stop()
    return statistics.median(took), memory


def judge(bench: Bench, models: int) -> Bar:
    """Every line of the bar."""
    bar = Bar()
    _http(bench, bar)
    _log(bench, bar)
    _network(bench, bar)
    capacity = _fresh(bench, "mlp", "json")
    _tail(bench, bar, capacity)
    _overload(bench, bar)
    for server in bench.running:
        server.stop()
    seconds, memory = start_and_memory(bench)
    bench.starts[OURS] = seconds
    bar.most("start to the first right answer", 1.2, seconds, " s")
    bar.most("RSS with one small model", 200, memory, " MB")
    _workers(bar)
    _many(bar, models)
    return bar


def _http(bench: Bench, bar: Bar) -> None:
    names = [name for name in bench.memory if name.startswith("fastapi")]
    best = max(names, key=lambda name: bench.figure("mlp-json", 64, name, "rps"), default=None)
    if best is None:
        bar.least("mlp c=64 against FastAPI", 5, None, "x", "run with --peers")
    else:
        said = f"its quickest way, {best}: {bench.figure('mlp-json', 64, best, 'rps'):.0f}/s"
        bar.least("mlp c=64 against FastAPI", 5, bench.ratio("mlp-json", 64, OURS, best), "x", said)
        for name in names:
            if name != best and (ratio := bench.ratio("mlp-json", 64, OURS, name)):
                bar.beside(f"  against {name}", f"{ratio:.3g}x")
    bar.least("mlp c=64 of the HTTP ceiling", 0.6, bench.ratio("mlp-json", 64, OURS, CEILING))
    cpu = bench.ratio("mlp-json", 64, CEILING, OURS, "cpu_us")
    bar.beside("  the same by CPU time a request", "" if cpu is None else f"{cpu:.3g}")
    door = bench.ratio("mlp-json", 64, OURS, DOOR)
    bar.beside(
        "  of a constant answer through our own door", "not measured" if door is None else f"{door:.3g}"
    )
    plain = bench.ratio("mlp-json", 64, OURS, BARE)
    bar.beside("  against the bare loop", "" if plain is None else f"{plain:.3g}x")
    one = bench.ratio("mlp-json", 1, OURS, BARE, "p50_ms")
    bar.most("mlp c=1 p50 against the bare loop", 1.3, one, "x")


def _log(bench: Bench, bar: Bar) -> None:
    found = loss(bench.of(OURS), bench.of(SILENT), bench.known["mlp", "json"], turns=6 * bench.rounds)
    bar.most("the log at c=64, of throughput", 0.03, statistics.median(found.throughput), note=str(found))
    bar.beside("  the same of CPU time a request", f"{statistics.median(found.cpu):.3g}")


def _network(bench: Bench, bar: Bar) -> None:
    server = bench.of(OURS)
    asked = [bench.known["cnn", form] for form in ("binary", "json")]
    with on_core():
        found = shares(server, asked, bench.files["cnn"], turns=4 * bench.rounds)
    for form, target, shared in zip(("binary", "json"), (0.97, 0.92), found, strict=True):
        bar.least(f"cnn-{form} c=64 of onnxruntime alone, CPU", target, shared.share, note=str(shared))


def _fresh(bench: Bench, model: str, form: str) -> float:
    """The capacity now: other work on the machine may have changed it since the rounds."""
    server, ask = bench.of(OURS), bench.known[model, form]
    path = server.form.path.format(model=model)
    return statistics.median(server.load(ask.script, path, 64, bench.seconds)["rps"] for _ in range(3))


def _tail(bench: Bench, bar: Bar, capacity: float) -> None:
    both = [bench.of(OURS), bench.of(CEILING)]
    kinds: tuple[Arrivals, ...] = ("poisson", "constant")
    for kind in kinds:
        what = f"mlp p99 over p50 at 80 % load, {kind}"
        try:
            found = tails(both, bench.known["mlp", "json"], capacity, seconds=float(bench.seconds),
                          rounds=bench.rounds, kind=kind)  # fmt: skip
        except Failed as error:
            bar.most(what, 3, None, "x", str(error))
            continue
        mine = found[OURS]
        ratio = mine.ratio if mine.kept_up else math.inf
        value, said = (None, mine.doubt) if mine.doubt else (ratio, str(mine))
        bar.most(what, 3, value, "x", said)
        bar.beside("  the constant answer at the same rate", _said(found[CEILING]))


def _said(tail: Tail) -> str:
    return f"{tail.ratio:.3g}x ({tail})" + (f"; {tail.doubt}" if tail.doubt else "")


def _overload(bench: Bench, bar: Bar) -> None:
    capacity = _fresh(bench, "cnn", "binary")
    found = overload(bench.of(OURS), bench.known["cnn", "binary"], capacity, 2.0 * bench.seconds)
    bar.least("goodput at 3 times capacity", 0.9, found.goodput, note=f"{found.refused} refused")
    bar.most("  answers after their deadline", 0, found.late)
    bar.most("  without an answer, or with another status", 0, found.lost)


def _workers(bar: Bar) -> None:
    found = script(HERE / "serve" / "workers.py")
    value, why = number(found, "ratio", "speedup", "two_over_one")
    bar.least("two workers on two cores over one", 1.8, value, "x", why)
    if isinstance(found, dict) and "ratio_by_cpu" in found:
        calm = "" if found.get("undisturbed", True) else ", other work took part of the cores meanwhile"
        bar.beside("  the same by CPU time", f"{found['ratio_by_cpu']:.3g}x{calm}")


def _many(bar: Bar, models: int) -> None:
    if not models:
        return
    found = script(HERE / "serve" / "many.py", str(models), str(models // 2))
    for what, target, unit, names in (
        (f"{models} models: RSS", 1500, " MB", ("rss_mb",)),
        ("  a cold model's first answer, p99", 50, " ms", ("cold_ms_p99",)),
        ("  p99 of a warm one among them", 1.2, "x", ("warm_p99_ratio",)),
        ("  slope a cycle of load, infer, unload", 5, " kB", ("slope_kb_a_cycle",)),
    ):
        value, why = number(found, *names)
        bar.most(what, target, value, unit, why)


def show(bench: Bench, rows: list[dict[str, Any]]) -> None:
    """All figures, then the table of servers."""
    print(f"{'body':<11} {'c':>3} {'server':<16} {'req/s':>8} {'of ceiling':>10} {'p50 ms':>8} {'p99 ms':>9} "
          f"{'CPU us':>9}")  # fmt: skip
    ceiling = {(row["body"], row["c"]): row["rps"] for row in rows if row["server"] == CEILING}
    for row in rows:
        top = ceiling.get((row["body"], row["c"]))
        share = f"{row['rps'] / top:.0%}" if top else "-"
        print(f"{row['body']:<11} {row['c']:>3} {row['server']:<16} {row['rps']:>8.0f} {share:>10} "
              f"{row['p50_ms']:>8.2f} {row['p99_ms']:>9.2f} {row['cpu_us']:>9.1f}")  # fmt: skip
    print(f"\n{'server':<16} {'mlp c=1 (p50 ms)':>18} {'mlp c=64 (p99 ms)':>19} {'cnn c=64':>9} "
          f"{'start s':>8} {'RSS MB':>7}  ours over it: mlp, cnn c=64")  # fmt: skip
    names = [name for name in bench.memory if name != OURS]
    for name in (OURS, *names):
        print(_row(bench, name))


def _row(bench: Bench, name: str) -> str:
    def body(model: str) -> str:
        forms = [form for form in ("json", "array", "binary") if (f"{model}-{form}", name, 64) in bench.runs]
        return f"{model}-{forms[0]}" if forms else f"{model}-json"

    def value(model: str, connections: int, key: str) -> float:
        return bench.figure(body(model), connections, name, key)

    over = [bench.over(name, model, body(model)) for model in ("mlp", "cnn")]
    small, cnn = body("mlp"), value("cnn", 64, "rps")
    kind = "" if small.endswith("json") else f", {small.partition('-')[2]}"
    ratios = ", ".join("-" if ratio is None else f"{ratio:.3g}x" for ratio in over)
    started = bench.starts.get(name)
    return (
        f"{name:<16} {value('mlp', 1, 'rps'):>10.0f} ({value('mlp', 1, 'p50_ms'):.2f}) "
        f"{value('mlp', 64, 'rps'):>11.0f} ({value('mlp', 64, 'p99_ms'):.1f}) {cnn:>9.0f} "
        f"{'-' if started is None else f'{started:.1f}':>8} {bench.memory[name]:>7.0f}  {ratios}{kind}"
    )


def measure(bench: Bench, wanted: Iterable[peers.Peer], models: int) -> Bar:
    """The whole run; every process that it started has ended when it returns."""
    held: list[peers.Peer] = []
    try:
        prepare(bench)
        begin(bench)
        for peer in wanted:
            if not peer.quick:
                held.append(peer)
                continue
            bench.running.extend(variants(bench, peer))
        rounds(bench)
        for peer in held:
            beside(bench, peer)
        return judge(bench, models)
    finally:
        for server in bench.running:
            server.stop()
        shutil.rmtree(bench.folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=2, help="of each run of load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=int, default=1000, help="0 leaves the many models out")
    parser.add_argument("--peers", nargs="?", const="all", help="measure today's servers too: all, or a,b,c")
    parser.add_argument("--quick", action="store_true", help="one second a run, two rounds, 100 models")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    if given.quick:
        given.seconds, given.rounds, given.models = 1, 2, min(given.models, 100)
    wanted = list(peers.chosen(given.peers)) if given.peers else []
    if given.quick and not wanted and (peers.HOMES / "fastapi" / "ready").exists():
        wanted = list(peers.chosen("fastapi"))
    bench = Bench(Path(tempfile.mkdtemp(prefix="bench-serve-")), given.seconds, given.rounds)
    bar = measure(bench, wanted, given.models)
    rows = rows_of({key: runs for key, runs in bench.runs.items() if " beside " not in key[1]})
    if given.json:
        print(json.dumps({"rows": rows, "start_s": bench.starts, "rss_mb": bench.memory, "notes": bench.notes,
                          "bar": [asdict(line) for line in bar.lines]}))  # fmt: skip
        return
    show(bench, rows)
    print("\nwith", ", ".join(map(peers.versions, wanted)) or "no peers")
    print("load average", Path("/proc/loadavg").read_text().strip(), end="\n\n")
    print(*bar.lines, sep="\n")
    if bench.notes:
        print("\nnotes:", *bench.notes, sep="\n  ")


if __name__ == "__main__":
    main()
