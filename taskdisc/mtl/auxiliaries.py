"""Auxiliary tasks: discovered ones, and the controls that they have to beat."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from taskdisc.errors import RunFolderError, SettingError
from taskdisc.files import absolute

if TYPE_CHECKING:
    from taskdisc.discovery.tasks import Tasks
    from taskdisc.images import ImageSet
    from taskdisc.mtl.data import Split
    from taskdisc.mtl.tasks import Task

RANDOM, CLASSES = "random", "classes"

CONTENT = "#"
"""Between the path of tasks and a hash of what they are."""

JOINED = "auxiliaries"
"""The name of several auxiliary tasks that are trained as one."""

FORMS = (
    "a run folder or file of tasks, random:NUMBER, random:RUN for the labelings of a run shuffled "
    "over its images, or classes:NUMBER for halves of the classes"
)


class Auxiliaries(NamedTuple):
    """What `aux` names: `kind` is empty for tasks as they were found."""

    kind: str
    number: int
    path: str
    content: str  # of the file, once it was read; see `resolved`


def named(aux: str) -> Auxiliaries:
    """What a text names.

    Raises:
        SettingError: it has none of the forms.
    """
    kind, _, rest = aux.partition(":")
    if kind not in (RANDOM, CLASSES):
        kind, rest = "", aux
    path, content = rest, ""
    if read := re.fullmatch(f"(.+){CONTENT}([0-9a-f]{{16}})", rest):
        path, content = read.groups()
    if kind and path.isdecimal() and int(path) > 0:
        return Auxiliaries(kind, int(path), "", "")
    if kind == CLASSES or not path:
        raise SettingError(f"`aux` must be {FORMS}; got {aux!r}.")
    return Auxiliaries(kind, 0, absolute("aux", path), content)


def resolved(aux: str) -> str:
    """The same with an absolute path and the content of its tasks, so that a run that goes on,
    from whatever folder, goes on with the same ones.

    Raises:
        SettingError: it has none of the forms, or there is nothing at its path.
        RunFolderError: the file holds no tasks.
    """
    given = named(aux)
    if not given.path or given.content:
        return aux
    path = Path(given.path)
    if not path.exists():
        raise SettingError(f"`aux` must be {FORMS}; got {aux!r}, where nothing is.")
    kind = f"{given.kind}:" if given.kind else ""
    return f"{kind}{path}{CONTENT}{_content(_read(str(path)))}"


def names_of(aux: str) -> list[str]:
    """The names of the auxiliary tasks that a text names.

    Raises:
        SettingError: it has none of the forms.
        RunFolderError: the file holds no tasks, or others than when it was first read.
    """
    given = named(aux)
    if not given.path:
        return [f"{given.kind} {number}" for number in range(1, given.number + 1)]
    return [str(name) for name in _same(given).names]


def _same(given: Auxiliaries) -> "Tasks":
    """The tasks of a file, which must be those that it held when the settings were read."""
    tasks = _read(given.path)
    if given.content and _content(tasks) != given.content:
        raise RunFolderError(
            f"the tasks of '{given.path}' must be those that this was started with, got others; "
            "restore them, or start anew."
        )
    return tasks


def _read(path: str) -> "Tasks":
    from taskdisc.discovery.tasks import load_tasks

    tasks = load_tasks(path)
    if not len(tasks):
        raise RunFolderError(
            f"the tasks of '{path}' must be at least one to be auxiliaries, got none; keep "
            "labelings in its gallery and export them."
        )
    return tasks


def _content(tasks: "Tasks") -> str:
    digest = hashlib.sha256(np.ascontiguousarray(tasks.labelings, dtype=np.int8).tobytes())
    for column in (tasks.hashes, tasks.names):
        digest.update("\0".join(map(str, column)).encode())
    return digest.hexdigest()[:16]


def auxiliary_tasks(aux: str, images: "ImageSet", split: "Split", seed: int) -> "list[Task]":
    """Binary tasks as auxiliaries of others, labelled on the images that they know.

    Test images get no labels. Of the validation images only the metrics of these tasks are had.

    Args:
        aux: Discovered tasks, or a control; see `FORMS`. Random labelings by a number say yes to
            half of the images; halves of classes are of the target with most classes.
        images: All images.
        split: Of the images.
        seed: Of the draw of controls.

    Raises:
        SettingError: no such tasks or form, or fewer halves of classes than were asked for.
        RunFolderError: the file holds no tasks, or tasks of other images.
    """
    given = named(aux)
    rng = np.random.default_rng([seed, 0x617578])  # "aux"
    if given.path:
        from taskdisc.taskness.lenet import SIDE

        # Tasks know their images by how these looked when they were scored.
        labelings = _same(given).on(images.resized(SIDE)).labelings
    elif given.kind == RANDOM:
        labelings = np.stack([rng.permutation(len(images)) % 2 for _ in range(given.number)])
    else:
        labelings = _halves(images, given.number, rng)
    return [
        _task(name, labeling, split, rng if given.kind == RANDOM and given.path else None)
        for name, labeling in zip(names_of(aux), labelings, strict=True)
    ]


def joined(tasks: "Sequence[Task]") -> "Task":
    """Binary tasks as one task of several labels, whose loss is the mean of theirs."""
    from taskdisc.mtl.tasks import Task

    labels = np.concatenate([task.labels for task in tasks], axis=1)
    return Task(JOINED, "multi-label", labels, len(tasks))


def _task(
    name: str, labeling: np.ndarray, split: "Split", shuffled: np.random.Generator | None
) -> "Task":
    from taskdisc.mtl.tasks import Task

    labels = np.full((len(labeling), 1), np.nan, dtype=np.float32)
    seen = np.concatenate([split.train, split.validation])
    known = seen[labeling[seen] >= 0]
    values = labeling[known]
    labels[known, 0] = values if shuffled is None else shuffled.permutation(values)
    return Task(name, "binary", labels, 1)


def check_both_labels(tasks: "Sequence[Task]", split: "Split") -> None:
    """Refuse auxiliary tasks from which nothing is to be learned, before they are joined.

    Raises:
        SettingError: one has no labels among the training images, or one for all of them.
    """
    for task in tasks:
        trained = task.labels[split.train, 0]
        trained = trained[~np.isnan(trained)]
        if not len(trained) or np.ptp(trained) == 0:
            got = f"one for all of {len(trained)}" if len(trained) else "none"
            raise SettingError(
                f"auxiliary task '{task.name}' must have two labels among the {len(split.train)} "
                f"training images, got {got}; leave it out by `aux_tasks`, or take images that it "
                "was found on."
            )


def _halves(images: "ImageSet", n: int, rng: np.random.Generator) -> np.ndarray:
    """Half of the classes of the finest target against the others, each half once."""
    counts = {name: np.unique(column) for name, column in images.targets.items()}
    target = max(counts, key=lambda name: len(counts[name]), default=None)
    classes = np.arange(0) if target is None else counts[target]
    if target is None or len(classes) < 2:
        raise SettingError(
            f"`aux` must be without {CLASSES}: for images without classes, got '{images.source}'."
        )
    found: dict[bytes, np.ndarray] = {}
    for _ in range(100 * n):
        half = np.isin(np.arange(len(classes)), rng.permutation(len(classes))[: len(classes) // 2])
        # A half and the other half are one task, where there are as many classes in both.
        same = half if half[0] or len(classes) % 2 else ~half
        found.setdefault(same.tobytes(), same)
        if len(found) == n:
            break
    if len(found) < n:
        raise SettingError(
            f"`aux` must ask for at most the {len(found)} halves that the {len(classes)} classes "
            f"of '{target}' have, got {CLASSES}:{n}."
        )
    places = np.searchsorted(classes, images.targets[target])
    return np.stack([half[places] for half in found.values()]).astype(np.int8)
