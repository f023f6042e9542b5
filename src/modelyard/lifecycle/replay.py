"""A canary on replayed held-out traffic: rows go to the real endpoint, the judge looks after each tenth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.digest import Digest
from modelyard.core.progress import Progress
from modelyard.data.tensors import take
from modelyard.lifecycle.arms import Truth, count_arm, offline_arm
from modelyard.lifecycle.client import Answered, Client, replay
from modelyard.lifecycle.loop import Context
from modelyard.lifecycle.parts import Part, contract_of, model_of, part_of, runtime_of
from modelyard.lifecycle.rows import plain_rows
from modelyard.model.answer import opened
from modelyard.model.predict import predict
from modelyard.release.canary import Arm, CanaryOptions, Decision, Trial, judge_canary

ONCE, REST = "canary", "rest"
"""Begin the ids of rows that are asked for the first time: in the trial, and after the promotion."""
AGAIN = "again-"
"""Begins the ids of rows that are asked more than once; a monitor leaves them out."""

_LOOKS = 10
_LOOK = 50
"""Requests between two looks of the judge, at least."""
_TOLERATED = 0.8
"""A regression's answer misses when its error is beyond this quantile of the errors in validation."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What is replayed against whom. `champion` is the candidate itself where nobody serves yet: the
    candidate is then compared with its own answers of training time. `order` is that of the requests."""

    context: Context
    candidate: Digest
    champion: Digest
    truth: Truth
    rows: list[dict[str, Any]]
    order: npt.NDArray[np.int64]
    began: float

    @property
    def first(self) -> bool:
        """Whether there is no other release to compare with."""
        return self.candidate == self.champion

    def conduct(self, client: Client, progress: Progress) -> tuple[Decision, list[Answered]]:
        """Sends every row once, judging after each tenth, and goes on until the judge has decided.

        Few rows are sent again, under ids that begin with `AGAIN`: failures and disagreements are facts
        about requests, so a row may be asked twice. Labels are not: quality counts first answers only.
        """
        endpoint, most, once = (
            self.context.project.endpoint_name,
            self.context.project.canary.requests,
            len(self.rows),
        )
        answered = list[Answered]()
        arms = (Arm(), Arm())
        decision = self._judge(*arms)
        while len(answered) < max(once, most):
            start = len(answered)
            # A look ends where every row has been asked once: it holds fresh rows or known ones, never both.
            stop = min(start + max(once // _LOOKS, _LOOK), max(once, most), once if start < once else most)
            fresh = replay(client, endpoint, [self._asked(number) for number in range(start, stop)])
            answered += fresh
            arms = self._count(arms, fresh, label=start < once)
            progress(min(1.0, len(answered) / once), f"canary: {len(answered)} requests")
            decision = self._judge(*arms)
            if decision.action == "rollback" or (decision.action == "promote" and len(answered) >= once):
                break
        return decision, answered

    def _asked(self, number: int) -> tuple[int, dict[str, Any], str]:
        """The row that the n-th request asks for, and its id, which says whether it is asked again."""
        again, place = divmod(number, len(self.rows))
        row = int(self.order[place])
        return row, self.rows[row], self._id(f"{AGAIN}{again}" if again else ONCE, row)

    def _id(self, prefix: str, row: int) -> str:
        return f"{prefix}-{self.candidate[-8:]}-{row}"

    def rest(self, client: Client, answered: list[Answered]) -> list[Answered]:
        """After a promotion: the rows that the old champion answered, asked of the new one.

        So the monitor sees the whole held-out part answered by the release that it watches.
        """
        first = answered[: len(self.rows)]
        mine = {item.row for item in first if item.body.get("release") == self.candidate}
        endpoint = self.context.project.endpoint_name
        left = [int(row) for row in self.order if int(row) not in mine]
        return replay(client, endpoint, [(row, self.rows[row], self._id(REST, row)) for row in left])

    def feedback(self, client: Client, answered: list[Answered]) -> None:
        """Reports the held-out labels by prediction id, as a client would once the truth is known.

        Rows that were asked again get none: the same truth twice is not two.
        """
        labels, targets = self.truth.labels, self.truth.targets
        items = [
            {
                "id": item.body["predictions"][0]["id"],
                **(
                    {"label": labels[int(targets[item.row])]}
                    if labels
                    else {"value": float(targets[item.row])}
                ),
            }
            for item in answered
            if item.ok and not str(item.body["id"]).startswith(AGAIN)
        ]
        for start in range(0, len(items), 500):
            client.feedback(self.context.project.endpoint_name, items[start : start + 500])

    def _count(self, arms: tuple[Arm, Arm], fresh: list[Answered], *, label: bool) -> tuple[Arm, Arm]:
        """The champion's and the candidate's counts with some more answers."""
        champion = (
            offline_arm(fresh, self.truth, label=label)
            if self.first
            else count_arm(fresh, self.champion, self.truth, compare=False, label=label)
        )
        candidate = count_arm(fresh, self.candidate, self.truth, compare=True, label=label)
        return arms[0] + champion, arms[1] + candidate

    def _judge(self, champion: Arm, candidate: Arm) -> Decision:
        project = self.context.project
        trial = Trial(
            project.endpoint_name, self.champion, self.candidate, self.context.clock.now() - self.began
        )
        options = CanaryOptions(
            error_margin=project.canary.error_margin,
            quality_margin=project.canary.margin,
            # The gate has compared quality row by row; replayed traffic adds what only serving shows.
            # Quality that turns out worse still rolls back.
            needed=("errors", "agreement"),
        )
        return judge_canary(trial, champion, candidate, options)


def replay_of(context: Context, candidate: Digest, champion: Digest | None, began: float) -> Replay:
    """The held-out rows of the project, with what the candidate answered in training."""
    part, contract = _limited(context), contract_of(context)
    validation = part_of(context, "validation")
    with opened(model_of(context, "compress"), runtime_of(context)) as session:
        expected = predict(session, part.tensors)
        seen = predict(session, validation.tensors)
    truth = Truth(
        part.targets, expected, contract.labels, _tolerance(contract.labels, seen, validation.targets)
    )
    rows = plain_rows(part.tensors, contract, range(len(part.targets)))
    # Data often lie sorted by class or time; traffic does not, and a monitor would rightly call that drift.
    order = np.random.default_rng(context.project.train.seed).permutation(len(rows))
    return Replay(context, candidate, champion or candidate, truth, rows, order, began)


def _limited(context: Context) -> Part:
    part = part_of(context, "test")
    rows = min(len(part.targets), context.project.canary.requests)
    return Part(part.table.slice(0, rows), take(part.tensors, slice(0, rows)), part.targets[:rows])


def _tolerance(labels: tuple[str, ...], answers: npt.NDArray[Any], targets: npt.NDArray[Any]) -> float:
    if labels:
        return 0.0
    return float(np.quantile(np.abs(answers.reshape(-1) - targets), _TOLERATED))
