"""The search loop: ask, score what is new, remember it, tell."""

import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from taskdisc.discovery.proposers import make_proposer
from taskdisc.discovery.space import Space
from taskdisc.discovery.trials import Trials
from taskdisc.errors import RunFolderError
from taskdisc.json_text import finite
from taskdisc.labelings import are_near, from_hex, key, to_hex
from taskdisc.progress import Progress

WORST = -1.0
"""What a proposer is told of a labeling that it should stay away from."""

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

    @property
    def lines(self) -> Sequence[dict[str, Any]]:
        """What was kept."""

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        """Keep the lines."""


class Clock:
    """Seconds between calls."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call, or since the clock was made."""
        last, self._last = self._last, time.perf_counter()
        return self._last - last


def run_trials(space: Space, scorer: Scorer, log: TrialLog, progress: Progress) -> Trials:
    """Score up to `budget` different labelings; those in the log are not scored again.

    The loop is replayed from its start on the logged scores, so a continued search asks, scores and
    tells exactly what an uninterrupted one does. A labeling that comes back (or its flip at 1:1)
    is answered from what is known and costs nothing. Of a labeling too near to one that is to be
    stayed away from, the proposer is told that it is as bad as can be.

    Raises:
        RunFolderError: the log is not that of these settings.
        RunFailedError: a worker died, or the log cannot be written.
    """
    clock = Clock()
    settings = space.settings
    proposer = make_proposer(space)
    known = _Known(log, space.n_images)
    n_logged = len(known.taskness)
    trials = Trials(space.n_images)
    repeated, best = 0, -np.inf
    progress.start("search", settings.budget, "labelings")
    while len(trials) < settings.budget and repeated < PATIENCE:
        batch = proposer.ask(min(settings.batch, settings.budget - len(trials)))
        if not len(batch):
            break
        keys = [key(labeling) for labeling in batch]
        # What the log has from here on is new to the proposer.
        new = {
            k: row
            for k, row in zip(keys, batch, strict=True)
            if known.number.get(k, len(trials)) >= len(trials)
        }
        repeated = 0 if new else repeated + len(batch)
        for number, name in enumerate(new, start=len(trials)):
            if number < n_logged and known.number.get(name) != number:
                raise RunFolderError(_FOREIGN)
        for name, value in _scored(new, scorer, known, log, clock):
            trials.add(new[name], value)
            best = max(best, value)
            progress.advance(1, best=best, known=len(trials) <= n_logged)
        near = are_near(batch, space.known, settings.min_ablation)
        told = np.array([known.of(name) for name in keys])
        proposer.tell(np.where(near, WORST, told))
    if n_logged > len(trials):
        raise RunFolderError(_FOREIGN)
    progress.finish()
    return trials


class _Known:
    """Which labelings have a score, by the number of their trial: those of a log to begin with.

    Raises:
        RunFolderError: a line of the log is none of a trial.
    """

    def __init__(self, log: TrialLog, n_images: int) -> None:
        self.number: dict[str, int] = {}
        self.taskness = array("d")
        try:
            for line in log.lines:
                self.add(key(from_hex(line["labeling"], n_images)), finite(line["taskness"]))
                finite(line["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                "every trial of the run folder must have its labeling, taskness and seconds, but "
                "one does not; the file was damaged: start a new run in another folder."
            ) from error

    def add(self, name: str, taskness: float) -> None:
        """One more trial."""
        self.number.setdefault(name, len(self.taskness))
        self.taskness.append(taskness)

    def of(self, name: str) -> float:
        """The taskness of a labeling that has one."""
        return self.taskness[self.number[name]]


def _scored(
    new: dict[str, np.ndarray],
    scorer: Scorer,
    known: _Known,
    log: TrialLog,
    clock: Clock,
) -> Iterable[tuple[str, float]]:
    """Name and taskness of each new labeling, in order, scoring and logging what is not logged.

    Labelings are grouped before it is known which are logged: what is trained together decides the
    last bits of a result, so it must not depend on where a run was stopped.
    """
    names = list(new)
    groups = [names[i : i + scorer.group] for i in range(0, len(names), scorer.group)]
    missing = [group for group in groups if any(name not in known.number for name in group)]
    results = scorer.score_groups([np.stack([new[name] for name in group]) for group in missing])
    for group in groups:
        if group in missing:
            scores = next(results)
            # With what it took to propose them: of a cheap score that is most of the time.
            seconds = clock.lap() / len(group)
            scored = [
                (name, float(value))
                for name, value in zip(group, scores.taskness, strict=True)
                if name not in known.number
            ]
            log.append(
                {
                    "trial": number,
                    "labeling": to_hex(new[name]),
                    "taskness": value,
                    "seconds": round(seconds, 6),
                }
                for number, (name, value) in enumerate(scored, start=len(known.taskness))
            )
            for name, value in scored:
                known.add(name, value)
        for name in group:
            yield name, known.of(name)
