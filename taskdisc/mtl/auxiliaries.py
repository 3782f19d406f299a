"""Auxiliary tasks: discovered ones, and the controls that they have to beat."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from taskdisc.errors import SettingError

if TYPE_CHECKING:
    from taskdisc.images import ImageSet
    from taskdisc.mtl.tasks import Task

RANDOM, CLASSES = "random", "classes"

FORMS = (
    "a run folder or file of tasks, random:NUMBER, random:RUN for the labelings of a run shuffled "
    "over its images, or classes:NUMBER for halves of the classes"
)


class Auxiliaries(NamedTuple):
    """What `aux` names: `kind` is empty for tasks as they were found."""

    kind: str
    number: int
    path: str

    @property
    def n_tasks(self) -> int:
        """How many tasks these are."""
        if not self.path:
            return self.number
        from taskdisc.discovery.tasks import load_tasks

        return len(load_tasks(self.path))


def named(aux: str) -> Auxiliaries:
    """What a text names.

    Raises:
        SettingError: it has none of the forms.
    """
    kind, _, rest = aux.partition(":")
    if kind not in (RANDOM, CLASSES) or not rest:
        if not aux or not Path(aux).exists():
            raise SettingError(f"`aux` must be {FORMS}; got {aux!r}, where nothing is.")
        return Auxiliaries("", 0, aux)
    if rest.isdecimal() and int(rest) > 0:
        return Auxiliaries(kind, int(rest), "")
    if kind == CLASSES or not Path(rest).exists():
        raise SettingError(f"`aux` must be {FORMS}; got {aux!r}.")
    return Auxiliaries(kind, 0, rest)


def resolved(aux: str) -> str:
    """The same with an absolute path, so that a run can be resumed from another folder."""
    given = named(aux)
    path = str(Path(given.path).expanduser().resolve())
    return aux.removesuffix(given.path) + path if given.path else aux


def auxiliary_tasks(aux: str, images: "ImageSet", train: np.ndarray, seed: int) -> "list[Task]":
    """Binary tasks as auxiliaries of others, labelled on the training images that they know.

    Validation and test images get no labels: what helps a network there would be a leak.

    Args:
        aux: Discovered tasks, or a control; see `FORMS`. Random labelings by a number say yes to
            half of the training images; halves of classes are of the target with most classes.
        images: All images.
        train: Positions of the training images.
        seed: Of the draw of controls.

    Raises:
        SettingError: no such tasks or form, or fewer halves of classes than were asked for.
        RunFolderError: the file holds no tasks, or tasks of other images.
        ImageSetError: a task has no labels among the training images, or one label for all.
    """
    given = named(aux)
    rng = np.random.default_rng([seed, 0x617578])  # "aux"
    if given.path:
        from taskdisc.discovery.tasks import load_tasks

        tasks = load_tasks(given.path)
        labelings, names = tasks.on(images), [str(name) for name in tasks.names]
    elif given.kind == RANDOM:
        labelings = np.stack([rng.permutation(len(images)) % 2 for _ in range(given.number)])
        names = [f"random {number}" for number in range(1, given.number + 1)]
    else:
        labelings, names = _halves(images, given.number, rng)
    return [
        _task(name, labeling, train, rng if given.kind == RANDOM and given.path else None)
        for name, labeling in zip(names, labelings, strict=True)
    ]


def _task(
    name: str, labeling: np.ndarray, train: np.ndarray, shuffled: np.random.Generator | None
) -> "Task":
    from taskdisc.mtl.tasks import Task

    known = train[labeling[train] >= 0]
    values = labeling[known]
    if not len(known) or np.ptp(values) == 0:
        got = "none" if not len(known) else f"one for all of {len(known)}"
        raise SettingError(
            f"auxiliary task '{name}' must have two labels among the {len(train)} training images, "
            f"got {got}; leave it out, or take images that it was found on."
        )
    labels = np.full((len(labeling), 1), np.nan, dtype=np.float32)
    labels[known, 0] = values if shuffled is None else shuffled.permutation(values)
    return Task(name, "binary", labels, 1)


def _halves(images: "ImageSet", n: int, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Half of the classes of the finest target against the others, each half once."""
    target = max(images.targets, key=lambda name: len(images.classes[name]), default=None)
    classes = [] if target is None else images.classes[target]
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
    labels = images.targets[target]
    return np.stack([half[labels] for half in found.values()]).astype(np.int8), [
        f"half {number} of {target}" for number in range(1, n + 1)
    ]
