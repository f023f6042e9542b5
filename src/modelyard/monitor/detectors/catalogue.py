"""The detectors by name: built-ins and entry points of the group `modelyard.detectors`."""

from __future__ import annotations

from modelyard.core.names import Plugins
from modelyard.monitor.detector import Detector
from modelyard.monitor.detectors.chi_square import ChiSquare
from modelyard.monitor.detectors.fisher import Fisher
from modelyard.monitor.detectors.ks import KolmogorovSmirnov
from modelyard.monitor.detectors.missing import Missing
from modelyard.monitor.detectors.psi import StabilityIndex

DETECTORS: Plugins[Detector] = Plugins(
    "modelyard.detectors",
    {
        "ks": KolmogorovSmirnov(),
        "fisher": Fisher(),
        "missing": Missing(),
        "chi-square": ChiSquare(),
        "psi": StabilityIndex(),
    },
)
