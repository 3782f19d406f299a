"""The records of a comparison of ways to train several tasks, by row."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from taskdisc.mtl.auxiliaries import RANDOM, named
from taskdisc.mtl.kinds import higher_is_better
from taskdisc.studies.estimates import mean_and_sem
from taskdisc.studies.study import Record

if TYPE_CHECKING:
    from taskdisc.studies.multi_task import ComparisonSettings

SINGLE = "single-task"
"""Names the row in which each task is trained alone, with the backbone of the first row."""

BLIND = "blind"
"""Names the line of what is reached without an image, by the training labels alone."""

BY_HAND = "by hand"
"""Begins the names of rows with weights by hand."""


def variant_of(row: str, variant: str) -> str:
    """The name of a row in a variant."""
    return f"{row}, {variant}"


def single_rows(settings: "ComparisonSettings") -> dict[str, str]:
    """For each row the name of the single-task row that it is held against.

    A single-task network has the backbone and the training of its row, so rows that differ in these
    have single-task rows of their own.
    """
    names: dict[str, str] = {}
    found = {}
    for name, row in settings.every_row.items():
        key = json.dumps([row.backbone.model_dump(), row.training.model_dump()], sort_keys=True)
        names.setdefault(key, f"{SINGLE} as '{name}'" if names else SINGLE)
        found[name] = names[key]
    return found


def controls_of(settings: "ComparisonSettings") -> dict[str, str]:
    """For each row with auxiliary tasks the one that differs from it in random ones alone."""
    alike: dict[str, str] = {}
    rest = {}
    for name, row in settings.every_row.items():
        if not row.aux:
            continue
        key = row.model_copy(update={"aux": "", "aux_tasks": None}).model_dump_json()
        if named(row.aux).kind == RANDOM:
            alike.setdefault(key, name)
        else:
            rest[name] = key
    return {name: alike[key] for name, key in rest.items() if key in alike}


class Rows:
    """The records of a comparison, by row: metrics per seed and task, and gains.

    Attributes:
        names: Of the rows, in their order, those of single tasks last.
        singles: Of them, those of single tasks.
        tasks: Names of the tasks that some row trains, without auxiliary ones.
        metrics: The metric of each task, by its name.
        values: Test metrics [n_seeds, n_tasks] by row; NaN of tasks that a row does not have.
        shown: By task, the metrics that tables show: its own first.
        measured: By row, task and metric, the test metrics [n_seeds]; those of `BLIND` too.
        by_hand: Of the names, those of rows with weights by hand.
        gains: Δm [n_seeds] in % over the row's single-task networks, by row.
        differences: To the reference row, [n_seeds] by row, more being better: of the main task's
            metric, or Δm in % where there is no main task.
        compared: What the differences are of.
        over_random: The same differences to the row with random auxiliary tasks in place of its
            own, of rows that have such a control.
    """

    def __init__(self, settings: "ComparisonSettings", records: Sequence[Record]) -> None:
        self.reference = settings.reference or next(iter(settings.every_row))
        self.records: dict[str, list[Record]] = {name: [] for name in settings.every_row}
        for record in records:
            self.records.setdefault(record["row"], []).append(record)
        self.names = list(self.records)
        self.singles = self.names[len(settings.every_row) :]
        self.metrics: dict[str, str] = {}
        for record in records:
            self.metrics |= record["metrics"]
        self.tasks = [name for name in settings.tasks if name in self.metrics]
        self.seeds = sorted({record["seed"] for record in records})
        self.by_hand = [name for name in settings.by_hand if name in self.records]
        self.shown = {name: (self.metrics[name], *settings.tasks[name].also) for name in self.tasks}
        every = {**self.records, BLIND: list(records)}
        self.measured = {
            (name, task, metric): self._of(
                of_row, "blind" if name == BLIND else "test", task, metric
            )
            for name, of_row in every.items()
            for task, metrics in self.shown.items()
            for metric in metrics
        }
        self.values = {
            name: np.stack(
                [self.measured[name, task, self.metrics[task]] for task in self.tasks], 1
            )
            for name in every
        }
        single_of = single_rows(settings) if self.singles else {}
        self.gains = {name: self.delta_m(name, single) for name, single in single_of.items()}
        self._main = settings.main
        self.compared = "Δm [%]"
        if settings.main is not None:
            self.compared = f"{self.metrics[settings.main]} of {settings.main}"
        self.differences = {name: self.difference(name, self.reference) for name in self.names}
        self.over_random = {
            name: self.difference(name, control) for name, control in controls_of(settings).items()
        }

    def difference(self, name: str, other: str) -> np.ndarray:
        """By how much a row is better than another one, [n_seeds]; see `differences`."""
        if self._main is None:
            return self.delta_m(name, other)
        sign = 1 if higher_is_better(self.metrics[self._main]) else -1
        column = self.tasks.index(self._main)
        return np.asarray(sign * (self.values[name][:, column] - self.values[other][:, column]))

    def _of(self, records: Sequence[Record], part: str, task: str, metric: str) -> np.ndarray:
        """A metric of a task in some records, [n_seeds]; NaN where it was not trained."""
        values = np.full(len(self.seeds), np.nan)
        for record in records:
            value = record[part].get(task, {}).get(metric)
            if value is not None:
                values[self.seeds.index(record["seed"])] = value
        return values

    def chosen_by_hand(self) -> str | None:
        """Of the rows with weights by hand, the one with the best mean validation score."""
        scores = {
            name: np.mean([_score(record) for record in self.records[name]])
            for name in self.by_hand
        }
        return max(scores, key=lambda name: scores[name]) if scores else None

    def ranks(self, task: str, metric: str) -> dict[str, np.ndarray]:
        """The place of each row in a metric, by seed [n_seeds]: 1 is the best, equals share theirs.

        Of rows that have the task, without those of single tasks or weights by hand.
        """
        from scipy.stats import rankdata

        names = [
            name
            for name in self.names
            if name not in (*self.singles, *self.by_hand)
            and np.isfinite(self.measured[name, task, metric]).all()
        ]
        values = np.array([self.measured[name, task, metric] for name in names])
        sign = -1 if higher_is_better(metric) else 1
        return dict(zip(names, rankdata(sign * values, axis=0), strict=True)) if names else {}

    def beaten_by_hand(self) -> list[str]:
        """The rows of two tasks that some weights by hand beat in the means of both metrics."""
        signs = [1 if higher_is_better(self.metrics[task]) else -1 for task in self.tasks]
        means = {name: mean_and_sem(values)[0] * signs for name, values in self.values.items()}
        return [
            name
            for name in self.names
            if name not in (*self.singles, *self.by_hand)
            and any((means[hand] > means[name]).all() for hand in self.by_hand)
        ]

    def delta_m(self, name: str, reference: str) -> np.ndarray:
        """Δm of a row over another, [n_seeds] in %: the mean relative gain over tasks both have.

        Maninis et al. 2019, "Attentive Single-Tasking of Multiple Tasks", eq. 4; of metrics of
        which less is better it is the relative loss.
        """
        relative = [
            relative_gain(self.metrics[task], new, old)
            for task, new, old in zip(
                self.tasks, self.values[name].T, self.values[reference].T, strict=True
            )
        ]
        return mean_and_sem(np.array(relative))[0]


def relative_gain(metric: str, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """By how much a metric is better, [n_seeds] in % of the old one's mean over seeds.

    Relative to the mean, so that no seed near 0 decides it. r² is taken as the share 1 − r² that is
    not explained. NaN where one of both is.

    Args:
        metric: A key of `METRICS`.
        new: Its values [n_seeds].
        old: Those that they are held against, from the same seeds.
    """
    if metric == "r2":
        new, old = 1 - new, 1 - old
    sign = 1 if metric != "r2" and higher_is_better(metric) else -1
    both = np.isfinite(new) & np.isfinite(old)
    before = np.abs(old[both].mean()) if both.any() else 0.0
    gain = np.full(len(new), np.nan)
    if before > 0:
        gain[both] = 100 * sign * (new - old)[both] / before
    return gain


def _score(record: Record) -> float:
    """The validation score of a training at its chosen epoch."""
    score = record["epochs"][record["epoch"] - 1]["score"]
    return -np.inf if score is None else float(score)
