"""The serving process in the foreground, for the benchmark to pin and to measure."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from modelyard.serve.options import LogOptions, ServeOptions
from modelyard.serve.process import bind
from modelyard.serve.worker import main

given = json.loads(sys.argv[1])
options = ServeOptions(
    state=Path(given["state"]),
    root=Path(given["root"]),
    keys=Path(given["keys"]),
    endpoints=tuple(given.get("endpoints", ("mlp", "cnn"))),
    port=given["port"],
    log=LogOptions(sample=given.get("sample", 1.0)),
)
with tempfile.TemporaryDirectory() as folder:
    stored = Path(folder) / "options.json"
    stored.write_text(json.dumps(options.to_json()))
    listening = bind(options.host, options.port, 1024)
    code = main([str(stored), "--fd", str(listening.detach())])
os._exit(code)
