"""The checks by the test of the score that they serve: built-ins and entry points of `modelyard.checks`."""

from __future__ import annotations

from modelyard.core.names import Plugins
from modelyard.score.check import Check
from modelyard.score.checks.data_1 import SchemaCheck
from modelyard.score.checks.data_2 import BenefitCheck
from modelyard.score.checks.data_3 import CostCheck
from modelyard.score.checks.data_4 import PolicyCheck
from modelyard.score.checks.model_1 import SpecCheck
from modelyard.score.checks.model_3 import TuningCheck
from modelyard.score.checks.model_5 import BaselineCheck
from modelyard.score.checks.model_6 import SliceCheck
from modelyard.score.checks.model_7 import InclusionCheck

_BUILT_IN: tuple[Check, ...] = (
    SchemaCheck(),
    BenefitCheck(),
    CostCheck(),
    PolicyCheck(),
    SpecCheck(),
    TuningCheck(),
    BaselineCheck(),
    SliceCheck(),
    InclusionCheck(),
)
CHECKS: Plugins[Check] = Plugins("modelyard.checks", {check.id: check for check in _BUILT_IN})
