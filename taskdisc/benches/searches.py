"""What searches cost, for `bench scaling`: each function makes what is timed for a size."""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taskdisc.journal import Journal

if TYPE_CHECKING:
    from taskdisc.images import ImageSet

N_APPENDS = 100
"""Appends that are timed together."""


def searching_at_random(n_trials: int) -> Callable[[], object]:
    """A journalled search of 50 digits by the closed form, and the choice of its 16 best."""
    return _searching("random", n_trials)


def searching_by_evolution(n_trials: int) -> Callable[[], object]:
    """The same with the proposals of TwoPointsDE."""
    return _searching("TwoPointsDE", n_trials)


def swapping_images(n_images: int) -> Callable[[], object]:
    """Setting the closed form up for images of noise, and 100 local optima of swap search."""
    return _swapping(n_images, 100)


def swapping_tasks(n_tasks: int) -> Callable[[], object]:
    """The same of 500 images at 1:1 until there are so many tasks that differ by 0.3 or more."""
    return _swapping(500, n_tasks, ratio=1, tasks=n_tasks, min_ablation=0.3)


def _swapping(n_images: int, n_asked: int, **changes: Any) -> Callable[[], object]:
    from taskdisc.config import SearchSettings
    from taskdisc.discovery.proposers import SwapProposer
    from taskdisc.discovery.space import Space

    images, settings = noise(n_images), SearchSettings(**changes)
    return lambda: SwapProposer(Space(images, settings)).ask(n_asked)


def noise(n_images: int) -> "ImageSet":
    """Images of random pixels, the same each time."""
    from taskdisc.images import as_image_set

    rng = np.random.default_rng(0)
    return as_image_set(rng.integers(0, 256, (n_images, 32, 32, 3), dtype=np.uint8))


def resuming(n_trials: int) -> Callable[[], object]:
    """Going on with such a search at random whose trials are all in its journal."""
    from taskdisc.discovery.loop import run_trials
    from taskdisc.progress import Progress

    path = _new_path()
    space, scorer = _space_and_scorer("random", n_trials)
    run_trials(space, scorer, Journal(path), Progress())
    return _removing(path, lambda: run_trials(space, scorer, Journal(path), Progress()))


def opening(n_trials: int) -> Callable[[], object]:
    """Opening a journal of trials of 50 images."""
    path = _journal_of(n_trials)
    return _removing(path, lambda: Journal(path))


def appending(n_trials: int) -> Callable[[], object]:
    """`N_APPENDS` appends to such a journal."""
    path = _journal_of(n_trials)
    journal = Journal(path)

    def append() -> None:
        for _ in range(N_APPENDS):
            journal.append([_line(0)])

    return _removing(path, append)


def _searching(proposer: str, n_trials: int) -> Callable[[], object]:
    from taskdisc.discovery.loop import run_trials
    from taskdisc.labelings import best_different
    from taskdisc.progress import Progress

    space, scorer = _space_and_scorer(proposer, n_trials)

    def search() -> list[int]:
        with tempfile.TemporaryDirectory() as folder:
            journal = Journal(Path(folder) / "trials.jsonl")
            trials = run_trials(space, scorer, journal, Progress())
            return best_different(trials.labelings, trials.best_first(), 16, 0.9)

    return search


def _space_and_scorer(proposer: str, n_trials: int) -> tuple[Any, Any]:
    from taskdisc.config import ImagesSettings, SearchSettings
    from taskdisc.discovery.run import load_selected
    from taskdisc.discovery.scorers import SCORERS
    from taskdisc.discovery.space import Space
    from taskdisc.pool import Pool
    from taskdisc.progress import Progress

    images = load_selected(ImagesSettings(), Progress())
    space = Space(images, SearchSettings(proposer=proposer, budget=n_trials))
    return space, SCORERS["closed-form"].make(space, Pool(1, "cpu"))


def _journal_of(n_trials: int) -> Path:
    path = _new_path()
    journal = Journal(path)
    for start in range(0, n_trials, 1000):
        journal.append(_line(number) for number in range(start, min(start + 1000, n_trials)))
    return path


def _line(number: int) -> dict[str, Any]:
    """As the line of a trial of 50 images, whose labeling is 7 bytes long."""
    return {
        "trial": number,
        "labeling": f"{number:014x}",
        "taskness": number / 3,
        "seconds": 0.000123,
    }


def _new_path() -> Path:
    return Path(tempfile.mkdtemp()) / "trials.jsonl"


def _removing(path: Path, run: Callable[[], object]) -> Callable[[], object]:
    """The function, with which the folder of a path goes."""
    weakref.finalize(run, shutil.rmtree, path.parent, ignore_errors=True)
    return run
