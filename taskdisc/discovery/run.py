"""A whole search: images, trials, confirmation, files."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from taskdisc.cluster import pool_for
from taskdisc.config import AgreementSettings, ImagesSettings, SearchSettings, settings_from
from taskdisc.discovery.folder import PICTURES, RESULT, TASKS, RunFolder
from taskdisc.discovery.loop import Clock, TrialLog, run_trials
from taskdisc.discovery.proposers import check_proposer
from taskdisc.discovery.result import SearchResult
from taskdisc.discovery.scorers import SCORERS
from taskdisc.discovery.space import Space
from taskdisc.discovery.trials import Trials
from taskdisc.errors import RunFailedError, RunFolderError, SettingError
from taskdisc.files import write_json, write_npz
from taskdisc.images import ImageSet, as_image_set, held_out, load_images, select
from taskdisc.journal import MemoryJournal
from taskdisc.json_text import finite
from taskdisc.labelings import best_different, evenly, is_near, n_positives
from taskdisc.pool import Pool
from taskdisc.progress import Progress, reading
from taskdisc.taskness.confirm import ConfirmPlan
from taskdisc.taskness.kernels import check_files
from taskdisc.taskness.score import TrainedScorer, check_fits, check_scorable

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
    cluster: str | None = None,
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
        cluster: Address or file of a Dask scheduler, whose workers work instead; see `Cluster`.
        progress: Told what is going on.
        **settings: Further `SearchSettings`: `budget`, `batch`, `proposer`, `warm_start`, `scorer`,
            `closed_form` (`kernel`, `features`, `ridge`, `rank`), `train_share`, `protocol`,
            `min_ablation`, `known`, `confirm` (`n_splits`, `n_random`, `random_splits`).

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
        pool_for(jobs, device, cluster),
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
    space = check_run(image_set, settings, pool)
    trial_log = folder.trials if folder else MemoryJournal()
    trained_log = folder.trained if folder else MemoryJournal()
    evidence_log = folder.evidence if folder else MemoryJournal()
    found = find(space, pool, progress, log=trial_log, trained_log=trained_log)
    plan = ConfirmPlan(
        image_set,
        np.stack([found.trials[i].labeling for i in found.candidates]),
        settings.protocol,
        settings.confirm.n_splits,
        settings.n_random,
        settings.confirm.random_splits,
        settings.seed,
    )
    clock = Clock()

    def record(lines: list[dict[str, Any]]) -> None:
        seconds = clock.lap() / max(len(lines), 1)
        evidence_log.append({**line, "seconds": round(seconds, 4)} for line in lines)

    progress.start("confirm", plan.n_trainings, "trainings")
    confirmation = plan.run(pool, evidence_log.lines, record, progress)
    progress.finish()
    result = SearchResult(
        settings,
        image_set,
        found.trials,
        found.candidates,
        confirmation,
        seconds={
            "search": _seconds(chain(trial_log.lines, trained_log.lines)),
            "confirm": _seconds(evidence_log.lines),
        },
    )
    if folder:
        _write(folder.path, result)
    return result


@dataclass(frozen=True)
class Found:
    """What the searching part of a search leaves to be confirmed.

    Attributes:
        trials: Every scored labeling, in the order of scoring; of two stages, those that were
            trained on with that score.
        candidates: Positions in `trials` of the best, at `min_ablation` from each other and from
            known labelings; of two stages first those that were trained on.
    """

    trials: Trials
    candidates: list[int]


def find(
    space: Space,
    pool: Pool,
    progress: Progress,
    *,
    log: TrialLog | None = None,
    trained_log: TrialLog | None = None,
) -> Found:
    """Score `budget` labelings and choose the best, without confirming them.

    Args:
        space: What is searched, and by which settings.
        pool: Where to train.
        progress: Told what is going on.
        log: Where trials are kept, and found again; in memory by default.
        trained_log: The same for what the second of two stages trains.

    Raises:
        RunFolderError: a log is not that of these settings.
        RunFailedError: a worker died, a log cannot be written, or all that was found is too near
            to known labelings.
    """
    settings = space.settings
    scorer = SCORERS[settings.scorer].make(space, pool)
    trials = run_trials(space, scorer, log or MemoryJournal(), progress)
    order = [
        i
        for i in trials.best_first()
        if not len(space.known)
        or not is_near(trials.labelings[i], space.known, settings.min_ablation)
    ]
    if not order:
        raise RunFailedError(
            f"all {len(trials)} labelings that were scored are nearer than `min_ablation` = "
            f"{settings.min_ablation:g} to `known` ones; lower it, or search with proposer=swap, "
            "which stays away from them."
        )
    if settings.scorer == "two-stage":
        n_trained = min(settings.n_trained, len(order))
        trials = train_best(
            space, trials, order[:n_trained], pool, trained_log or MemoryJournal(), progress
        )
        order[:n_trained] = sorted(order[:n_trained], key=lambda i: (-trials[i].taskness, i))
    candidates = best_different(trials.labelings, order, settings.tasks, settings.min_ablation)
    return Found(trials, candidates)


def train_best(
    space: Space,
    trials: Trials,
    chosen: list[int],
    pool: Pool,
    log: TrialLog,
    progress: Progress,
) -> Trials:
    """The trials, with those at the `chosen` positions scored by training.

    Raises:
        As `find`.
    """
    settings = space.settings
    scorer = TrainedScorer(space.image_set, settings.protocol, settings.seed, pool)
    clock = Clock()
    try:
        logged = {index(line["trial"]): finite(line["taskness"]) for line in log.lines}
        foreign = not set(logged) <= set(chosen)
        for line in log.lines:
            finite(line.get("seconds", 0))
    except (KeyError, TypeError, ValueError):
        foreign = True
    if foreign:
        raise RunFolderError(
            "the run folder's trained labelings must be the best of its trials, got others; the "
            "file was damaged or is another run's: start a new run in another folder."
        )
    # Formed before it is known what is logged, as in `run_trials`.
    groups = [chosen[i : i + scorer.group] for i in range(0, len(chosen), scorer.group)]
    missing = [group for group in groups if any(i not in logged for i in group)]
    scored = scorer.score_groups([np.stack([trials[i].labeling for i in g]) for g in missing])
    progress.start("train", len(chosen), "labelings")
    progress.advance(sum(len(g) for g in groups if g not in missing), known=True)
    for group, scores in zip(missing, scored, strict=True):
        seconds = clock.lap() / len(group)
        new = [
            {"trial": i, "taskness": float(value), "seconds": round(seconds, 6)}
            for i, value in zip(group, scores.taskness, strict=True)
            if i not in logged
        ]
        log.append(new)
        logged.update((int(line["trial"]), line["taskness"]) for line in new)
        progress.advance(len(group), best=max(logged.values()))
    progress.finish()
    return trials.with_taskness(logged)


def check_run(image_set: ImageSet, settings: SearchSettings, pool: Pool) -> Space:
    """What is searched, or a refusal of settings that fit neither the images nor the machine.

    Nothing is written or computed for long.

    Raises:
        SettingError: the ratio does not divide the images, an unknown proposer or one that cannot
            start warm, labelings to stay away from that do not fit, more tasks than can be as far
            apart, or a file of a kernel or of features that cannot be read.
        ImageSetError: too few images to split, more than fit in memory, or a file of others.
    """
    n_positives(len(image_set), settings.ratio)
    check_proposer(settings.proposer, settings.warm_start)
    check_scorable(len(image_set), settings.protocol, pool)
    space = Space(image_set, settings)
    most = space.most_tasks()
    if most is not None and settings.tasks > most:
        raise SettingError(
            f"`tasks` must be at most {most} here, for no more labelings of {space.n_pos} of "
            f"{space.n_images} images are possible at `min_ablation` = {settings.min_ablation:g}, "
            f"got {settings.tasks}; lower either."
        )
    if settings.uses_closed_form:
        check_files(settings.closed_form.kernel, settings.closed_form.features, image_set)
    check_fits(space.memory, "the closed form")
    return space


def load_selected(settings: ImagesSettings, progress: Progress) -> ImageSet:
    """The images that the settings choose, at the network's 32x32.

    Raises:
        SettingError: a setting breaks its rule.
        ImageSetError: the images are missing, unreadable or too few.
    """
    return select_images(load_source(settings, progress), settings)


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
    source = load_source(settings, progress)
    chosen = select_images(source, settings)
    by_class = settings.n_images is None and bool(source.targets)
    target = source.target(settings.target) if by_class and agreement.classes == "same" else None
    others = held_out(source, chosen, agreement.n_held_out, target=target, seed=seed)
    return chosen, others


def load_source(settings: ImagesSettings, progress: Progress) -> ImageSet:
    """All images of the settings' source, at their `size`."""
    return load_images(
        settings.source,
        root=settings.root,
        split=settings.split,
        download=settings.download,
        size=settings.size,
        progress=reading(progress),
    )


def select_images(image_set: ImageSet, settings: ImagesSettings) -> ImageSet:
    """The images of a source that the settings choose, at the network's 32x32.

    Raises:
        SettingError: another size was asked for.
        ImageSetError: the images are too few.
    """
    return at_network_side(chosen_images(image_set, settings), settings)


def at_network_side(image_set: ImageSet, settings: ImagesSettings) -> ImageSet:
    """The images at the 32x32 of the network that scores labelings.

    Raises:
        SettingError: another size was asked for.
    """
    from taskdisc.taskness.lenet import SIDE

    if settings.size not in (None, SIDE):
        raise SettingError(
            f"`images.size` must be left out where labelings are scored, for the network that does "
            f"it takes {SIDE} x {SIDE} pixels, got {settings.size!r}."
        )
    return image_set.resized(SIDE)


def chosen_images(image_set: ImageSet, settings: ImagesSettings) -> ImageSet:
    """The images of a source that the settings choose, as they were read."""
    n_images, by_class = settings.n_images, {}
    if n_images is None and not image_set.targets:
        n_images = min(len(image_set) // 10 * 10 or 2, DEFAULT_CLASSES * DEFAULT_PER_CLASS)
    elif n_images is None:
        per_class = settings.per_class or DEFAULT_PER_CLASS
        labels = image_set.targets[image_set.target(settings.target)]
        n_enough = int((np.bincount(labels) >= per_class).sum())
        n_classes = settings.n_classes or min(DEFAULT_CLASSES, max(n_enough, 1))
        by_class = {"n_classes": n_classes, "per_class": per_class}
    return select(
        image_set,
        target=settings.target,
        class_a=settings.class_a,
        n_images=n_images,
        seed=settings.seed,
        **by_class,
    )


def _seconds(lines: Iterable[dict[str, Any]]) -> float:
    return round(sum(line.get("seconds", 0) for line in lines), 1)


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
