"""What a release costs: to verify a bundle, to route a request, to ask an endpoint, to judge a canary.

    python benchmarks/bench_release.py

Verification is shown against hashing the same bytes once, which no verifier can avoid.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from modelyard.core.digest import digest_bytes
from modelyard.measure.measurement import Verdict
from modelyard.release.canary import Arm, CanaryOptions, Trial, decide, judge_canary, weigh
from modelyard.release.endpoint import Endpoints
from modelyard.release.gate import GATE
from modelyard.release.key import signing_key
from modelyard.release.policy import Canary, Shadow, Single, route
from modelyard.release.registry import ADDED
from modelyard.release.sign import sign, verify
from modelyard.store.store import open_store


def best(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the quickest of five rounds, per call."""
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(repeats):
            call()
        rounds.append((time.perf_counter() - began) / repeats)
    return min(rounds)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="modelyard-bench-release-"))
    key = signing_key(folder / "keys")
    files = {"model.onnx": bytes(64 << 20), "release.json": b"{}"}
    signature = sign(files, key, name="bench")
    hashing = best(lambda: hashlib.sha256(files["model.onnx"]).digest(), 1)
    verifying = best(lambda: verify(files, signature, [key.public]), 1)
    print(f"verify 64 MiB       {verifying * 1e3:8.1f} ms   {verifying / hashing:.2f}x hashing alone")
    a, b = digest_bytes(b"a"), digest_bytes(b"b")
    policy = Canary(a, b, 0.1, "salt")
    print(f"route a request     {best(lambda: route(policy, 'client-7'), 10_000) * 1e6:8.2f} us")
    champion = Arm(requests=1000, timed=1000, slow=20, labelled=1000, misses=20)
    options = CanaryOptions()
    trial = Trial("bench", a, b, 1.0)
    decided = best(lambda: decide(weigh(champion, champion, options), 1.0, options), 100)
    print(f"decide on a canary  {decided * 1e3:8.2f} ms")
    judged = best(lambda: judge_canary(trial, champion, champion, options), 5)
    print(f"... with intervals  {judged * 1e3:8.2f} ms")
    store = open_store(folder / "store")
    for digest in (a, b):
        store.ledger.append(digest, ADDED, body={"files": {}}, by="bench")
        store.ledger.append_verdict(digest, Verdict(GATE, True, "bench"), by="bench")
    endpoints = Endpoints(store)
    endpoints.set("bench", Single(a), why="", by="bench")
    for number in range(500):
        endpoints.set("bench", (Shadow(a, b), Single(a))[number % 2], why="", by="bench")
    again = best(lambda: endpoints.show("bench"), 100)
    print(f"show, nothing new   {again * 1e3:8.2f} ms   501 changes behind it")
    print(f"show, from scratch  {best(lambda: Endpoints(store).show('bench'), 1) * 1e3:8.2f} ms")
    store.close()


if __name__ == "__main__":
    main()
