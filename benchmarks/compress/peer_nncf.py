"""Runs in the peer's own environment: OpenVINO's model, quantized by NNCF as its guide shows."""

import sys
from pathlib import Path

import nncf
import numpy as np
import openvino as ov

source, rows, target = sys.argv[1:]
data = np.load(rows)
names = list(data.files)
count = len(data[names[0]])
model = ov.Core().read_model(Path(source).read_bytes())
calibration = nncf.Dataset(
    [{name: data[name][index : index + 1] for name in names} for index in range(count)]
)
transformer = "transformer" in source
quantized = nncf.quantize(
    model,
    calibration,
    subset_size=count,
    model_type=nncf.ModelType.TRANSFORMER if transformer else None,
)
ov.save_model(quantized, target, compress_to_fp16=False)
