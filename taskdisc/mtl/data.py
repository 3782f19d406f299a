"""What a network is trained on: images, the tasks' labels, splits and batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from taskdisc.errors import ImageSetError, SettingError, did_you_mean
from taskdisc.images import ImageSet
from taskdisc.images.measures import MEASURES, measured
from taskdisc.mtl.config import TaskSettings
from taskdisc.mtl.tasks import Task


@dataclass(frozen=True)
class Split:
    """Positions of the images that train, choose the epoch and measure the result, int64 each."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_of(
    n_images: int, validation: float, test: float, seed: int, *, given_test: int = 0
) -> Split:
    """A random split; the last `given_test` images are the test images where there are such.

    Args:
        n_images: How many images, those of a given test split included.
        validation: Share that chooses the epoch, of those that are not given for the test.
        test: Share that measures the result; not used where test images are given.
        seed: Of the draw.
        given_test: How many images at the end are the source's own test split.

    Raises:
        ImageSetError: a part would be empty.
    """
    n_drawn = n_images - given_test
    order = np.random.default_rng(seed).permutation(n_drawn)
    n_validation = round(validation * n_drawn)
    n_test = 0 if given_test else round(test * n_drawn)
    parts = np.split(order, [n_validation, n_validation + n_test])
    tested = np.arange(n_drawn, n_images) if given_test else parts[1]
    found = Split(*(np.sort(part).astype(np.int64) for part in (parts[2], parts[0], tested)))
    for name, part in (("train", found.train), ("validate", found.validation), ("test", tested)):
        if not len(part):
            raise ImageSetError(
                f"there must be images to {name} on, got none of {n_images}; take more images or "
                "other shares."
            )
    return found


def tasks_of(
    images: ImageSet, settings: Mapping[str, TaskSettings], split: Split, seed: int
) -> list[Task]:
    """The tasks with their labels.

    Targets of a regression are brought to mean 0 and s.d. 1 of the training images.

    Args:
        images: With the targets that the tasks are of.
        settings: By the task's name.
        split: Labels that a task does not keep are those of training and validation images.
        seed: Of the draw of labels that are kept.

    Raises:
        SettingError: no such target or class, one class only, or a constant target.
    """
    found = []
    for number, (name, task) in enumerate(settings.items()):
        labels, n_outputs = _labels(images, name, task, split.train)
        _check_varies(name, task, labels[split.train])
        made = Task(name, task.kind, labels, n_outputs, task.weight, task.metric)
        rng = np.random.default_rng([seed, number])
        n_train, n_validation = task.labelled, task.labelled_validation
        if n_train is not None:
            if n_validation is None:
                n_validation = _in_proportion(made, n_train, split)
            made = _with_labels(made, "labelled", n_train, split.train, rng)
            if task.kind == "regression":
                made = _brought_again(made, split.train)
        if n_validation is not None:
            made = _with_labels(made, "labelled_validation", n_validation, split.validation, rng)
        found.append(made)
    return found


def _labels(
    images: ImageSet, name: str, task: TaskSettings, train: np.ndarray
) -> tuple[np.ndarray, int]:
    """The labels of a task and the outputs of its head."""
    if task.kind == "classification":
        target = _target(images, name, task.of[0])
        known = _among(images, name, target, task.among)
        return np.where(known, images.targets[target], -1), len(images.classes[target])
    if task.kind == "binary":
        column = _column(images, name, task.kind, task.of[0], task.positives)
        column[~_among(images, name, task.of[0], task.among)] = np.nan
        return column[:, None], 1
    if task.kind == "multi-label":
        columns = [_column(images, name, task.kind, of, ()) for of in task.of]
        return np.stack(columns, axis=1), len(columns)
    values = np.stack([_values(images, name, of) for of in task.of], axis=1)
    mean, deviation = values[train].mean(axis=0), values[train].std(axis=0)
    # Below it values differ by rounding alone, as the colours of grey images do.
    varies = deviation > 1e-6
    brought = np.where(varies, (values - mean) / np.where(varies, deviation, 1), 0)
    return brought.astype(np.float32), len(task.of)


def _column(
    images: ImageSet, name: str, kind: str, of: str, positives: Sequence[str]
) -> np.ndarray:
    """0 or 1 for each image: its class is a positive one; by default the last of two classes."""
    target = _target(images, name, of)
    classes = images.classes[target]
    if not positives:
        if len(classes) != 2 and kind == "multi-label":
            raise SettingError(
                f"`of` of task '{name}' must be targets of two classes for several labels, got "
                f"'{target}' of {len(classes)}; make it a classification."
            )
        if len(classes) != 2:
            raise SettingError(
                f"`positives` of task '{name}' must name the classes of '{target}' that are yes, "
                f"for it has {len(classes)} of them, got none."
            )
        positives = classes[-1:]
    return _of_classes(images, "positives", name, target, positives).astype(np.float32)


def _among(images: ImageSet, name: str, target: str, among: Sequence[str]) -> np.ndarray:
    """Which images a task labels, bool [n_images]."""
    if not among:
        return np.ones(len(images), dtype=bool)
    return _of_classes(images, "among", name, target, among)


def _of_classes(
    images: ImageSet, setting: str, name: str, target: str, wanted: Sequence[str]
) -> np.ndarray:
    """Which images are of the wanted classes, bool [n_images]."""
    classes = images.classes[target]
    for one in wanted:
        if one not in classes:
            raise SettingError(
                f"`{setting}` of task '{name}' must be classes of '{target}', got {one!r}; "
                f"{did_you_mean(one, classes)}"
            )
    return np.isin(images.targets[target], [classes.index(one) for one in wanted])


def _target(images: ImageSet, name: str, of: str) -> str:
    if of not in images.targets:
        raise SettingError(
            f"`of` of task '{name}' must be a target of '{images.source}', got {of!r}; "
            f"{did_you_mean(of, images.targets)}"
        )
    return of


def _values(images: ImageSet, name: str, of: str) -> np.ndarray:
    """A number for each image: a measure of its pixels, or the number that its class is named."""
    if of in MEASURES:
        return measured(images.images, of)
    if of not in images.targets:
        choices = [*MEASURES, *images.targets]
        raise SettingError(
            f"`of` of task '{name}' must be a measure of pixels or a target of numbers, "
            f"got {of!r}; {did_you_mean(of, choices)}"
        )
    try:
        numbers = np.array([float(label) for label in images.classes[of]])
    except ValueError as error:
        raise SettingError(
            f"`of` of task '{name}' must be a target whose classes are numbers, got {of!r}: "
            f"{error}; make it a classification."
        ) from error
    return numbers[images.targets[of]]


def _check_varies(name: str, task: TaskSettings, labels: np.ndarray) -> None:
    columns = labels[:, None] if labels.ndim == 1 else labels
    for column, of in zip(columns.T, task.of, strict=False):
        known = column[column >= 0] if labels.ndim == 1 else column[~np.isnan(column)]
        if not len(known) or np.ptp(known) == 0:
            what = "different values" if task.kind == "regression" else "at least two classes"
            raise SettingError(
                f"task '{name}' must have {what} among its training images, got one of '{of}'; "
                "take other images or leave the task out."
            )


def _in_proportion(task: Task, n_train: int, split: Split) -> int:
    """As many validation images to every training image as without a bound, one at least."""
    train, validation = (int(task.known[part].sum()) for part in (split.train, split.validation))
    return min(validation, max(1, round(n_train * validation / max(train, 1))))


def _with_labels(
    task: Task, setting: str, n: int, part: np.ndarray, rng: np.random.Generator
) -> Task:
    """The task with labels on `n` images of a part, as even over classes as can be."""
    labelled = part[task.known[part]]
    what = "training" if setting == "labelled" else "validation"
    if n > len(labelled):
        raise SettingError(
            f"`{setting}` of task '{task.name}' must be at most the {len(labelled)} {what} images "
            f"that have a label, got {n}."
        )
    order = rng.permutation(labelled)
    if task.n_outputs == 1 or task.labels.ndim == 1:
        values = task.labels[order].reshape(len(order))
        if task.kind != "regression":
            # The first of each class, then the second of each, and so on.
            rank = np.empty(len(order), dtype=np.int64)
            for value in np.unique(values):
                of_class = np.flatnonzero(values == value)
                rank[of_class] = np.arange(len(of_class))
            order = order[np.argsort(rank, kind="stable")]
    labels = task.labels.copy()
    labels[order[n:]] = -1 if labels.ndim == 1 else np.nan
    return replace(task, labels=labels)


def _brought_again(task: Task, train: np.ndarray) -> Task:
    """Targets of mean 0 and s.d. 1 of the labels that are left, for those that are hidden must not
    show, in their mean neither."""
    kept = task.labels[train[task.known[train]]]
    deviation = kept.std(axis=0)
    labels = (task.labels - kept.mean(axis=0)) / np.where(deviation > 1e-6, deviation, 1)
    return replace(task, labels=labels.astype(np.float32))


class Batches:
    """Batches of training images for one epoch, each with a label of every task.

    Images that only some tasks know are dealt out evenly. Where a task has fewer labels than there
    are batches, some of its images come twice. Iterating gives positions int64 [n].

    With a share for the main task there are as many batches as all positions would fill, whatever
    the tasks know, so that trainings with other tasks take as many steps: that share of each is
    images that the main task knows, the rest images that others know; both come over and over, all
    once before any comes again.

    Args:
        positions: Of the images.
        tasks: Whose labels are dealt out.
        batch: Images per batch, at least 1; a few more where a label would be missing.
        seed: Of the order; say the run's seed and the epoch.
        rank: Which of `world` devices gets these batches; each gets others.
        world: Number of devices.
        main: Number of the main task, for a share.
        main_share: Of each batch, that the main task has.
    """

    def __init__(
        self,
        positions: np.ndarray,
        tasks: Sequence[Task],
        batch: int,
        seed: Sequence[int],
        rank: int = 0,
        world: int = 1,
        main: int | None = None,
        main_share: float | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        n_batches = -(-len(positions) // batch)
        n_batches += -n_batches % world
        if n_batches > len(positions):  # not one image for each, but as many for each device
            n_batches -= world
        known = np.stack([task.known[positions] for task in tasks])
        if main is not None and main_share is not None:
            others = np.flatnonzero(known[np.arange(len(tasks)) != main].any(axis=0))
            n_main = max(1, round(main_share * batch)) if len(others) else batch
            dealt_main = _over_and_over(np.flatnonzero(known[main]), n_batches, n_main, rng)
            dealt_others = _over_and_over(others, n_batches, batch - n_main, rng)
            both = np.concatenate([dealt_main, dealt_others], axis=1)
            self._batches = list(positions[both])[rank::world]
            return
        rarest_first = np.argsort(known.sum(axis=1), kind="stable")
        # Images that belong to a rare task are dealt first, round by round, then the others.
        group = np.argmax(known[rarest_first], axis=0)
        group[~known.any(axis=0)] = len(tasks)
        shuffled = rng.permutation(len(positions))
        dealt = shuffled[np.argsort(group[shuffled], kind="stable")]
        self._batches = [dealt[number::n_batches] for number in range(n_batches)]
        for labelled in known:
            if labelled.all() or not labelled.any():
                continue
            candidates = np.flatnonzero(labelled)
            for number, members in enumerate(self._batches):
                if not labelled[members].any():
                    self._batches[number] = np.append(members, rng.choice(candidates))
        self._batches = [positions[b] for b in self._batches if len(b)][rank::world]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Tensor]:
        return map(torch.from_numpy, self._batches)


def _over_and_over(
    candidates: np.ndarray, n_batches: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Batches [n_batches, n] of candidates, all of them once before any comes again."""
    if not len(candidates):
        return np.empty((n_batches, 0), dtype=np.int64)
    n_rounds = -(-n_batches * n // len(candidates))
    rounds = [rng.permutation(candidates) for _ in range(n_rounds)]
    dealt = np.concatenate([np.empty(0, dtype=np.int64), *rounds])
    return dealt[: n_batches * n].reshape(n_batches, n)


class InOrder:
    """Batches of all images, each once, in their order."""

    def __init__(self, positions: np.ndarray, batch: int) -> None:
        self._batches = torch.from_numpy(positions).split(batch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._batches)
