"""The search loop: ask, score what is new, remember it, tell."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from taskdisc.config import SearchSettings
from taskdisc.discovery.proposers import make_proposer
from taskdisc.errors import RunFolderError
from taskdisc.images import ImageSet
from taskdisc.labelings import ablation, from_hex, key, n_positives, to_hex
from taskdisc.progress import Progress

PATIENCE = 1000
"""Labelings in a row that were all scored before, after which a proposer has run dry."""


_FOREIGN = (
    "the run folder's trials must be those of its settings, got labelings that this search does "
    "not propose; they were made with other settings or another version of nevergrad: start a new "
    "run in another folder."
)


class HasTaskness(Protocol):
    """What the loop needs of scores."""

    @property
    def taskness(self) -> np.ndarray:
        """Taskness [n_labelings]."""


class Scorer(Protocol):
    """What the loop needs of a scorer."""

    @property
    def group(self) -> int:
        """Labelings that are scored together."""

    def score_groups(self, groups: list[np.ndarray]) -> Iterator[HasTaskness]:
        """Taskness of each group of labelings, in order."""


class TrialLog(Protocol):
    """What the loop needs of a journal."""

    lines: list[dict[str, Any]]

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        """Keep the lines."""


@dataclass(frozen=True)
class Trial:
    """One scored labeling of a search, in the order of scoring."""

    labeling: np.ndarray  # uint8 [n_images]
    taskness: float


def run_trials(
    settings: SearchSettings,
    image_set: ImageSet,
    scorer: Scorer,
    log: TrialLog,
    progress: Progress,
) -> list[Trial]:
    """Score up to `budget` different labelings; those in the log are not scored again.

    The loop is replayed from its start on the logged scores, so a continued search asks, scores and
    tells exactly what an uninterrupted one does. A labeling that comes back (or its flip at 1:1)
    is answered from what is known and costs nothing.

    Raises:
        RunFolderError: the log is not that of these settings.
        RunFailedError: a worker died, or the log cannot be written.
    """
    n_images = len(image_set)
    proposer = make_proposer(
        settings.proposer,
        image_set,
        n_pos=n_positives(n_images, settings.ratio),
        seed=settings.seed,
        budget=settings.budget,
        batch=settings.batch,
        kernel=settings.kernel,
    )
    logged = _logged(log, n_images)
    expected = list(logged)
    trials: list[Trial] = []
    taskness: dict[str, float] = {}
    repeated, best = 0, -np.inf
    progress.start("search", settings.budget, "labelings")
    while len(trials) < settings.budget and repeated < PATIENCE:
        batch = proposer.ask(min(settings.batch, settings.budget - len(trials)))
        keys = [key(labeling) for labeling in batch]
        new = {k: row for k, row in zip(keys, batch, strict=True) if k not in taskness}
        repeated = 0 if new else repeated + len(batch)
        names = expected[len(trials) : len(trials) + len(new)]
        if names != list(new)[: len(names)]:
            raise RunFolderError(_FOREIGN)
        for name, value in _scored(new, scorer, logged, log, progress):
            taskness[name] = value
            trials.append(Trial(new[name], value))
            best = max(best, value)
            progress.advance(1, best=best, known=len(trials) <= len(expected))
        proposer.tell(np.array([taskness[name] for name in keys]))
    if len(expected) > len(trials):
        raise RunFolderError(_FOREIGN)
    progress.finish()
    return trials


def _logged(log: TrialLog, n_images: int) -> dict[str, dict[str, Any]]:
    """The lines of a log by the key of their labeling, in order."""
    try:
        logged = {key(from_hex(line["labeling"], n_images)): line for line in log.lines}
        for line in log.lines:
            float(line["taskness"]), float(line["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            "every trial of the run folder must have its labeling, taskness and seconds, but one "
            "does not; the file was damaged: start a new run in another folder."
        ) from error
    return logged


def _scored(
    new: dict[str, np.ndarray],
    scorer: Scorer,
    logged: dict[str, dict[str, Any]],
    log: TrialLog,
    progress: Progress,
) -> Iterable[tuple[str, float]]:
    """Name and taskness of each new labeling, in order, scoring and logging what is not logged.

    Labelings are grouped before it is known which are logged: what is trained together decides the
    last bits of a result, so it must not depend on where a run was stopped.
    """
    names = list(new)
    groups = [names[i : i + scorer.group] for i in range(0, len(names), scorer.group)]
    missing = [group for group in groups if any(name not in logged for name in group)]
    results = scorer.score_groups([np.stack([new[name] for name in group]) for group in missing])
    for group in groups:
        if group in missing:
            before = time.perf_counter()
            scores = next(results)
            seconds = (time.perf_counter() - before) / len(group)
            lines = {
                name: {
                    "trial": len(log.lines) + i,
                    "labeling": to_hex(new[name]),
                    "taskness": float(value),
                    "seconds": round(seconds, 4),
                }
                for i, (name, value) in enumerate(
                    (name, value)
                    for name, value in zip(group, scores.taskness, strict=True)
                    if name not in logged
                )
            }
            log.append(lines.values())
            logged.update(lines)
        for name in group:
            yield name, logged[name]["taskness"]


def best_different(trials: Sequence[Trial], n: int, min_ablation: float) -> list[int]:
    """Up to `n` trials in order of taskness, each at `min_ablation` or more from those before.

    At 1:1, where no two tasks can be further apart than 1/2, half of `min_ablation` is asked.
    """
    chosen: list[int] = []
    order = sorted(range(len(trials)), key=lambda i: (-trials[i].taskness, i))
    for i in order:
        labeling = trials[i].labeling
        least = min_ablation / 2 if 2 * int(labeling.sum()) == len(labeling) else min_ablation
        if all(ablation(labeling, trials[j].labeling) >= least - 1e-9 for j in chosen):
            chosen.append(i)
            if len(chosen) == n:
                break
    return chosen
