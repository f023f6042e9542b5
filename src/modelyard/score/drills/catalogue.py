"""The drills by the test of the score that they prove: built-ins and entry points of `modelyard.drills`."""

from __future__ import annotations

from modelyard.core.names import Plugins
from modelyard.score.check import Check
from modelyard.score.drills.monitoring_2 import InvariantDrill
from modelyard.score.drills.monitoring_3 import SkewDrill
from modelyard.score.drills.monitoring_4 import StalenessDrill
from modelyard.score.drills.monitoring_5 import NumericsDrill
from modelyard.score.drills.monitoring_6 import SlowDownDrill
from modelyard.score.drills.monitoring_7 import QualityDrill

_BUILT_IN: tuple[Check, ...] = (
    InvariantDrill(),
    SkewDrill(),
    StalenessDrill(),
    NumericsDrill(),
    SlowDownDrill(),
    QualityDrill(),
)
DRILLS: Plugins[Check] = Plugins("modelyard.drills", {drill.id: drill for drill in _BUILT_IN})
