"""A whole search: images, trials, confirmation, files."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from taskdisc.config import AgreementSettings, ImagesSettings, SearchSettings, settings_from
from taskdisc.discovery.folder import PICTURES, RESULT, TASKS, RunFolder
from taskdisc.discovery.loop import Scorer, best_different, run_trials
from taskdisc.discovery.proposers import check_proposer
from taskdisc.discovery.result import SearchResult
from taskdisc.errors import RunFailedError
from taskdisc.files import write_json, write_npz
from taskdisc.images import ImageSet, as_image_set, held_out, load_images, select
from taskdisc.journal import MemoryJournal
from taskdisc.labelings import evenly, n_positives
from taskdisc.pool import Pool
from taskdisc.progress import Progress, reading
from taskdisc.taskness.closed_form import ClosedFormScorer
from taskdisc.taskness.confirm import ConfirmPlan
from taskdisc.taskness.score import TrainedScorer, check_scorable

SCORERS: dict[str, Callable[[ImageSet, SearchSettings, Pool], Scorer]] = {
    "trained": lambda images, s, pool: TrainedScorer(images, s.protocol, s.seed, pool),
    "closed-form": lambda images, s, pool: ClosedFormScorer(images, s.kernel),
}
"""How trials are scored, by name."""

MOST_PICTURED = 2000
"""Images that a run keeps pictures of, about 6 MB: all of a small set, else some per labeling."""

DEFAULT_CLASSES, DEFAULT_PER_CLASS = 5, 10
"""What is drawn where the settings say nothing: 50 images, as in the source work."""


def search(
    images: ImageSet | np.ndarray,
    *,
    ratio: int = 4,
    tasks: int = 1,
    seed: int = 0,
    jobs: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    **settings: Any,
) -> SearchResult:
    """Search the labelings of some images for tasks, and confirm what was found.

    Args:
        images: An image set, or uint8 [n_images, H, W, C]; all of them are searched.
        ratio: Negatives to one positive; n_images must be a multiple of `ratio` + 1.
        tasks: Labelings to confirm, at `min_ablation` from each other.
        seed: Decides proposals, splits, initialisations and random labelings.
        jobs: Workers; 0 stands for one per core or GPU. Does not change the result.
        device: `auto`, `cpu`, `cuda` or `cuda:<index>`.
        progress: Told what is going on.
        **settings: Further `SearchSettings`: `budget`, `batch`, `proposer`, `scorer`, `kernel`,
            `protocol`, `min_ablation`, `confirm` (`n_splits`, `n_random`, `random_splits`).

    Raises:
        SettingError: a setting breaks its rule.
        ImageSetError: images of another type or shape, or too few of them.
        RunFailedError: a worker died.
    """
    image_set = as_image_set(images)
    given = {"ratio": ratio, "tasks": tasks, "seed": seed, **settings}
    return run_search(
        image_set,
        settings_from(SearchSettings, given),
        Pool(jobs, device),
        progress=progress or Progress(),
    )


def run_search(
    image_set: ImageSet,
    settings: SearchSettings,
    pool: Pool,
    *,
    folder: RunFolder | None = None,
    progress: Progress,
) -> SearchResult:
    """Run or continue a search by its settings; with a folder, every step is kept there.

    Raises:
        As `search`; RunFolderError if the folder holds trials of other settings.
    """
    check_run(image_set, settings, pool)
    trial_log = folder.trials if folder else MemoryJournal()
    evidence_log = folder.evidence if folder else MemoryJournal()
    scorer = SCORERS[settings.scorer](image_set, settings, pool)
    trials = run_trials(settings, image_set, scorer, trial_log, progress)
    candidates = best_different(trials, settings.tasks, settings.min_ablation)
    plan = ConfirmPlan(
        image_set,
        np.stack([trials[i].labeling for i in candidates]),
        settings.protocol,
        settings.confirm.n_splits,
        settings.confirm.n_random,
        settings.confirm.random_splits,
        settings.seed,
    )
    clock = _Clock()

    def record(lines: list[dict[str, Any]]) -> None:
        seconds = clock.lap() / max(len(lines), 1)
        evidence_log.append({**line, "seconds": round(seconds, 4)} for line in lines)

    progress.start("confirm", plan.n_trainings, "trainings")
    confirmation = plan.run(pool, evidence_log.lines, record, progress)
    progress.finish()
    result = SearchResult(
        settings,
        image_set,
        trials,
        candidates,
        confirmation,
        seconds={
            "search": _seconds(trial_log.lines),
            "confirm": _seconds(evidence_log.lines),
        },
    )
    if folder:
        _write(folder.path, result)
    return result


def check_run(image_set: ImageSet, settings: SearchSettings, pool: Pool) -> None:
    """Refuse settings that do not fit the images or the machine, before anything is written.

    Raises:
        SettingError: the ratio does not divide the images, or the proposer is unknown.
        ImageSetError: too few images to split, or more than fit in memory.
    """
    n_positives(len(image_set), settings.ratio)
    check_proposer(settings.proposer)
    check_scorable(len(image_set), settings.protocol, pool)


def load_selected(settings: ImagesSettings, progress: Progress) -> ImageSet:
    """The images that the settings choose, at the network's 32x32.

    Raises:
        SettingError: a setting breaks its rule.
        ImageSetError: the images are missing, unreadable or too few.
    """
    return _select(_load_source(settings, progress), settings)


def load_with_held_out(
    settings: ImagesSettings, agreement: AgreementSettings, seed: int, progress: Progress
) -> tuple[ImageSet, ImageSet]:
    """The images that the settings choose, and others of their source, held out.

    The others are of the same classes where the images were selected by classes and
    `agreement.classes` is `same`; there may be fewer of them than `agreement.n_held_out`.

    Raises:
        SettingError: a setting breaks its rule.
        ImageSetError: the images are missing, unreadable or too few, or none is left to hold out.
    """
    source = _load_source(settings, progress)
    chosen = _select(source, settings)
    by_class = settings.n_images is None and bool(source.targets)
    target = source.target(settings.target) if by_class and agreement.classes == "same" else None
    others = held_out(source, chosen, agreement.n_held_out, target=target, seed=seed)
    return chosen, others


def _load_source(settings: ImagesSettings, progress: Progress) -> ImageSet:
    return load_images(
        settings.source,
        root=settings.root,
        split=settings.split,
        download=settings.download,
        progress=reading(progress),
    )


def _select(image_set: ImageSet, settings: ImagesSettings) -> ImageSet:
    from taskdisc.taskness.lenet import SIDE

    n_images, by_class = settings.n_images, {}
    if n_images is None and not image_set.targets:
        n_images = min(len(image_set) // 10 * 10 or 2, DEFAULT_CLASSES * DEFAULT_PER_CLASS)
    elif n_images is None:
        per_class = settings.per_class or DEFAULT_PER_CLASS
        labels = image_set.targets[image_set.target(settings.target)]
        n_enough = int((np.bincount(labels) >= per_class).sum())
        n_classes = settings.n_classes or min(DEFAULT_CLASSES, max(n_enough, 1))
        by_class = {"n_classes": n_classes, "per_class": per_class}
    chosen = select(
        image_set,
        target=settings.target,
        class_a=settings.class_a,
        n_images=n_images,
        seed=settings.seed,
        **by_class,
    )
    return chosen.resized(SIDE)


class _Clock:
    """Seconds between calls."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        last, self._last = self._last, time.perf_counter()
        return self._last - last


def _seconds(lines: Iterable[dict[str, Any]]) -> float:
    return round(sum(line["seconds"] for line in lines), 1)


def _write(path: Path, result: SearchResult) -> None:
    """Write what a finished search leaves; `result.json` last, for it says that all is there."""
    shown = _pictured(result.labelings)
    try:
        write_npz(path / TASKS, result.task_arrays())
        write_npz(
            path / PICTURES,
            {"positions": shown, "images": np.asarray(result.images.images[shown])},
        )
        write_json(path / RESULT, result.to_dict())
    except OSError as error:
        raise RunFailedError(
            f"the results cannot be written to '{path}' ({error.strerror}); all trials are kept: "
            f"mend that, then taskdisc search --resume {path}"
        ) from error


def _pictured(labelings: np.ndarray) -> np.ndarray:
    """Rising positions of the images to picture for labelings [n_labelings, n_images].

    All of them where they are few; else of each labeling as many positives as negatives, evenly.
    """
    n_labelings, n_images = labelings.shape
    if n_images <= MOST_PICTURED:
        return np.arange(n_images)
    most = max(MOST_PICTURED // (2 * n_labelings), 1)
    chosen: set[int] = set()
    for labeling in labelings:
        for value in (1, 0):
            chosen.update(evenly(np.flatnonzero(labeling == value).tolist(), most))
    return np.array(sorted(chosen))
