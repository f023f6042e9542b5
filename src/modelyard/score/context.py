"""What a check may know: plain facts, filled in by the caller, missing where unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from modelyard.core.spec import Tensors
from modelyard.measure.measurement import Verdict
from modelyard.measure.requirement import Requirement
from modelyard.monitor.options import MonitorOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.data.contract import Contract
    from modelyard.data.profile import Profile


@dataclass(frozen=True, slots=True)
class GitFacts:
    """What git says of the project's folder: the commit, changed paths, which files it tracks, the review."""

    commit: str = ""
    changed: tuple[str, ...] = ()
    """Paths of the project that differ from the commit, untracked ones included."""
    tracked: frozenset[str] = frozenset()
    """Paths, relative to the project's folder."""
    review: str = ""
    """The `Reviewed-by` trailer or the merge that brought the commit in; empty when there is none."""


@dataclass(frozen=True, slots=True)
class FeatureCost:
    """What one feature costs in serving: seconds and bytes a row, and the share of rows that lack it."""

    seconds: float
    bytes: float
    missing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckContext:
    """The facts of one release. A field left at its default is unknown, and a check that needs it says so."""

    contract: Contract | None = None
    findings: Mapping[str, Verdict] = field(default_factory=dict)
    """Of each split, and of live batches: the verdict of `Findings.to_verdict`."""
    labels: tuple[str, ...] = ()
    tensors: Tensors = field(default_factory=dict)
    """The held-out rows."""
    targets: npt.NDArray[Any] | None = None
    predict: Callable[[Tensors], npt.NDArray[Any]] | None = None
    """The released model's answers: probabilities `[N, K]` or predictions `[N, 1]`."""
    metric: str = ""
    margin: float = 0.0
    """In the metric's unit: how much better than every simpler model the model must be (`model.5`)."""
    requirements: tuple[Requirement, ...] = ()
    requirement_verdicts: tuple[Verdict, ...] = ()
    slices: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Declared slices: a boolean mask over the held-out rows."""
    slice_bound: float | None = None
    """What every slice must reach; the requirement on the metric where it is `None`."""
    groups: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Declared groups (`sex`, `age band`): each held-out row's value as text."""
    group_gap: float | None = None
    """The largest gap between groups that the project accepts, in the metric's unit."""
    baselines: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Answers of simpler models (`majority`, `linear`, `shallow tree`) on the held-out rows."""
    study: Verdict | None = None
    """From training: every declared hyper-parameter covered, importance, convergence."""
    git: GitFacts | None = None
    specs: tuple[str, ...] = ("modelyard.toml", "contract.toml", "recipe.py")
    """Files, relative to the project, that specify the model."""
    review_required: bool = False
    """Whether `model.1` fails without a review."""
    owner: str = ""
    """Who answers for columns of a contract that names nobody."""
    allowed_sources: tuple[str, ...] | None = None
    """Where features may come from; `None` allows all that are named."""
    allowed_personal: tuple[str, ...] = ()
    """Personal or sensitive columns that the project declares as features on purpose."""
    useless_share: float = 0.5
    """Share of features that may have no measured benefit (`data.2`)."""
    costs: Mapping[str, FeatureCost] = field(default_factory=dict)
    cost_budget: float | None = None
    """Seconds that one feature may take."""
    log: pa.Table | None = None
    """A window of the prediction log, known to be clean."""
    feedback: pa.Table | None = None
    reference: Profile | None = None
    options: MonitorOptions = MonitorOptions()  # noqa: RUF009 - frozen
    endpoint: str = ""
    released: float | None = None
    now: float | None = None
    offline: pa.Table | None = None
    """Features recomputed offline, with the contract's columns and the log's `id`."""
    seed: int = 0
