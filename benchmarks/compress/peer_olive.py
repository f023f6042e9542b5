"""Runs in the peer's own environment: Olive's static quantization of an ONNX model, its defaults."""

import shutil
import sys
import tempfile
from pathlib import Path

source, rows, target = sys.argv[1:]
SCRIPT = """
import numpy as np
from olive.data.registry import Registry

@Registry.register_dataset()
def bench_rows(data_dir=None, **kwargs):
    data = np.load({rows!r})
    names = list(data.files)
    class Rows:
        def __len__(self):
            return len(data[names[0]])
        def __getitem__(self, index):
            if index >= len(self):
                raise IndexError(index)
            return {{name: data[name][index] for name in names}}, 0
    return Rows()
"""
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "rows.py").write_text(SCRIPT.format(rows=rows))
    from olive.workflows import run

    config = {
        "input_model": {"type": "OnnxModel", "model_path": source},
        "data_configs": [
            {
                "name": "bench",
                "user_script": str(folder / "rows.py"),
                "load_dataset_config": {"type": "bench_rows"},
                "pre_process_data_config": {"type": "skip_pre_process"},
                "post_process_data_config": {"type": "skip_post_process"},
                "dataloader_config": {"batch_size": 1},
            }
        ],
        "passes": {"quantize": {"type": "OnnxStaticQuantization", "data_config": "bench"}},
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder / "cache"),
        "log_severity_level": 3,
    }
    run(config)
    made = sorted((folder / "out").rglob("*.onnx"), key=lambda path: path.stat().st_size)
    if not made:
        sys.exit("Olive wrote no model")
    shutil.copy(made[0], target)
