"""The 28 tests of the ML Test Score, what counts as their evidence here, and the command that makes it.

Source: Breck, Cai, Nielsen, Salib, Sculley, "The ML Test Score: A Rubric for ML Production Readiness and
Technical Debt Reduction", IEEE Big Data 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.core.errors import ModelyardError
from modelyard.core.names import did_you_mean

SECTIONS = ("data", "model", "infra", "monitoring")
"""The four sections in the paper's order."""


@dataclass(frozen=True, slots=True)
class ScoreTest:
    """One of the 28: its title in the paper, the evidence it needs, the command, its days of life."""

    id: str
    title: str
    evidence: str
    command: str
    expires_days: float = 30.0

    @property
    def section(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]

    @property
    def drilled(self) -> bool:
        """Whether only a drill counts as evidence."""
        return self.section == "monitoring"

    @property
    def claim(self) -> str:
        """The claim of the ledger entry that counts: the id, or `drill.<id>` for a monitoring test."""
        return f"drill.{self.id}" if self.drilled else self.id


def score_test(id: str) -> ScoreTest:
    """The test of that id; raises `ModelyardError` with "did you mean".

    >>> score_test("monitoring.2").claim
    'drill.monitoring.2'
    """
    for test in TESTS:
        if test.id == id:
            return test
    raise ModelyardError(
        f"the ML Test Score has no test {id!r}", fix=did_you_mean(id, [test.id for test in TESTS])
    )


def _note(id: str) -> str:
    return f"modelyard score note {id} --link URL --author NAME"


TESTS: tuple[ScoreTest, ...] = (
    ScoreTest(
        "data.1",
        "Feature expectations are captured in a schema",
        "the contract held against every split and live batch; what was not checked is listed",
        "modelyard run",
    ),
    ScoreTest(
        "data.2",
        "All features are beneficial",
        "each feature's effect on held-out quality with its interval; those that cover zero are named",
        "modelyard run",
    ),
    ScoreTest(
        "data.3",
        "No feature's cost is too much",
        "measured milliseconds, bytes and missing rate a feature costs, against its benefit and a budget",
        "modelyard run",
    ),
    ScoreTest(
        "data.4",
        "Features adhere to meta-level requirements",
        "policy rules over the contract: owner, source, deprecation, retention, personal columns",
        "modelyard run",
    ),
    ScoreTest(
        "data.5",
        "The data pipeline has appropriate privacy controls",
        "personal-data scan, redacted logs, and the deletion of one subject proved everywhere",
        _note("data.5"),
        180.0,
    ),
    ScoreTest(
        "data.6",
        "New features can be added quickly",
        "a drill that adds a feature to a copy of the project, end to end, with its time and lines",
        _note("data.6"),
        180.0,
    ),
    ScoreTest(
        "data.7",
        "All input feature code is tested",
        "coverage of the project's own feature code, and batch, online and stream agree",
        _note("data.7"),
        90.0,
    ),
    ScoreTest(
        "model.1",
        "Model specs are reviewed and submitted",
        "recipe, contract and configuration are committed, the tree is clean, the commit and its review",
        "modelyard run",
    ),
    ScoreTest(
        "model.2",
        "Offline and online metrics correlate",
        "rank correlation of offline quality and quality on labelled live traffic over releases",
        _note("model.2"),
        90.0,
    ),
    ScoreTest(
        "model.3",
        "All hyper-parameters have been tuned",
        "a study that covers each declared hyper-parameter, with importance and convergence",
        "modelyard run",
    ),
    ScoreTest(
        "model.4",
        "The impact of model staleness is known",
        "the staleness curve: quality of models trained on older windows against today's data",
        _note("model.4"),
        90.0,
    ),
    ScoreTest(
        "model.5",
        "A simpler model is not better",
        "simple baselines on the same held-out rows, compared row by row",
        "modelyard run",
    ),
    ScoreTest(
        "model.6",
        "Model quality is sufficient on all important data slices",
        "declared and automatically found slices, each with its interval, against the bound",
        "modelyard run",
    ),
    ScoreTest(
        "model.7",
        "The model has been tested for considerations of inclusion",
        "group rates and error gaps over declared groups with intervals",
        "modelyard run",
    ),
    ScoreTest(
        "infra.1",
        "Training is reproducible",
        "two runs with one seed agree; the sources of any difference are named",
        "modelyard run",
    ),
    ScoreTest(
        "infra.2",
        "Model specification code is unit tested",
        "overfits a batch, loss falls, shapes hold, save and resume bit for bit",
        "modelyard run",
    ),
    ScoreTest(
        "infra.3",
        "The full ML pipeline is integration tested",
        "the whole loop on a small sample, from raw data to an answered request",
        "modelyard run",
    ),
    ScoreTest(
        "infra.4",
        "Model quality is validated before attempting to serve it",
        "the gate: requirements, against the champion, and against a slow slide",
        "modelyard run",
    ),
    ScoreTest(
        "infra.5",
        "The model allows debugging by observing the step-by-step computation on a single example",
        "one prediction replayed by id: its inputs, every node's values, its nearest training rows",
        "modelyard run",
        180.0,
    ),
    ScoreTest(
        "infra.6",
        "Models are tested via a canary process before they enter production serving",
        "loads in the real server, agrees with the training-time answers, passes the sequential test",
        "modelyard run",
    ),
    ScoreTest(
        "infra.7",
        "Models can be quickly and safely rolled back to a previous serving version",
        "a drill that rolls back under load: seconds to take effect, failed requests",
        "modelyard run",
    ),
    ScoreTest(
        "monitoring.1",
        "Dependency changes result in notification",
        "a drill: a planted change of lock file, schema or data source is noticed",
        _note("monitoring.1"),
    ),
    ScoreTest(
        "monitoring.2",
        "Data invariants hold in training and serving inputs",
        "a drill: a planted breach and a planted drift fire, clean traffic stays quiet",
        "modelyard run",
    ),
    ScoreTest(
        "monitoring.3",
        "Training and serving features compute the same values",
        "a drill: planted skew between logged and offline features fires",
        "modelyard run",
    ),
    ScoreTest(
        "monitoring.4",
        "Models are not too stale",
        "a drill: a planted old release date fires",
        "modelyard run",
    ),
    ScoreTest(
        "monitoring.5",
        "The model is numerically stable",
        "a drill: planted NaN and overflow fire",
        "modelyard run",
    ),
    ScoreTest(
        "monitoring.6",
        "The model has not experienced regressions in computing performance",
        "a drill: a planted slow-down fires",
        "modelyard run",
    ),
    ScoreTest(
        "monitoring.7",
        "The model has not regressed in prediction quality on served data",
        "a drill: a planted shift of labels fires",
        "modelyard run",
    ),
)
