"""The serving process in the foreground, for the benchmark to pin and to measure."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import uvloop

from modelyard.serve.options import LogOptions, ServeOptions
from modelyard.serve.process import bind
from modelyard.serve.worker import serve

given = json.loads(sys.argv[1])
options = ServeOptions(
    state=Path(given["state"]),
    root=Path(given["root"]),
    keys=Path(given["keys"]),
    endpoints=tuple(given.get("endpoints", ("mlp", "cnn"))),
    port=given["port"],
    log=LogOptions(sample=given.get("sample", 1.0)),
)
uvloop.run(serve(options, bind(options.host, options.port, 1024)))
