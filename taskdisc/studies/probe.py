"""What do tasks teach a backbone? Trained on them alone, frozen, and probed on a main task."""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from taskdisc.config import ImagesSettings, Settings
from taskdisc.errors import ImageSetError, SettingError
from taskdisc.mtl.auxiliaries import resolved
from taskdisc.mtl.config import RowSettings, TaskSettings, TrainingSettings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.multi_task import images_of
from taskdisc.studies.probe_answer import BUILT_IN, ROTATION, UNTRAINED, answer_of
from taskdisc.studies.study import Cell, Study

if TYPE_CHECKING:
    from taskdisc.images import ImageSet
    from taskdisc.mtl.data import Split
    from taskdisc.mtl.tasks import Task

SOURCES = {"random": "random:16", "classes": "classes:16"}

TURNS = 4
"""Quarter turns that an image is given."""

TRAINING = TrainingSettings(epochs=20, lr=2e-3, decay="cosine", epoch="last", probes=0)


class ProbeSettings(Settings):
    """The tasks that train a backbone, the main task that it is probed on, and how often."""

    images: ImagesSettings = ImagesSettings()  # all of the source where no draw is given
    test_split: str | None = None  # the source's own test split; else a share of the images
    test: float = Field(0.4, gt=0, lt=1)  # share that measures the probes
    validation: float = Field(0.1, gt=0, lt=1)  # share that measures the tasks that train
    of: str = "digit"  # the target whose classes are the main task
    # How many training images the probe has labels of, as even over the classes as can be.
    labelled: tuple[Annotated[int, Field(ge=2)], ...] = Field((50, 200), min_length=1)
    # Tasks by the name of their row, see `mtl.auxiliaries.FORMS`; beside two rows that are always
    # there, an untrained backbone and one that tells how images were turned.
    sources: dict[str, str] = Field(SOURCES)
    common: RowSettings = RowSettings(training=TRAINING)  # of it the backbone and the training
    seeds: int = Field(5, ge=1)  # backbones of each row
    seed: int = Field(0, ge=0)  # the first of them

    @classmethod
    def entries_of(cls, name: str) -> dict[str, Any]:
        return {name: deepcopy(SOURCES)} if name == "sources" else super().entries_of(name)

    @field_validator("labelled")
    @classmethod
    def _rise(cls, labelled: tuple[int, ...]) -> tuple[int, ...]:
        if list(labelled) != sorted(set(labelled)):
            raise SettingError(
                "`labelled` must be different numbers of images, from few to many, got "
                f"{', '.join(map(str, labelled))}."
            )
        return labelled

    @field_validator("sources")
    @classmethod
    def _from_anywhere(cls, sources: dict[str, str]) -> dict[str, str]:
        for name in BUILT_IN:
            if name in sources:
                raise SettingError(
                    f"`sources` must have other names than {' and '.join(BUILT_IN)}, which are "
                    f"always there, got {name!r}; rename it."
                )
        return {name: resolved(aux) for name, aux in sources.items()}

    @model_validator(mode="after")
    def _of_one_task(self) -> Self:
        plain = RowSettings()
        for name in RowSettings.model_fields:
            value = getattr(self.common, name)
            if name not in ("backbone", "training") and value != getattr(plain, name):
                raise SettingError(
                    f"`common.{name}` must be left out, for one task trains each backbone, got "
                    f"{getattr(value, 'name', value)!r}; set `common.backbone` and "
                    "`common.training`."
                )
        for name in ("head_lr", "main_share"):
            if value := getattr(self.common.training, name):
                raise SettingError(
                    f"`common.training.{name}` must be left out, for the main task trains no "
                    f"backbone, got {value!r}."
                )
        for name in ("mode", "weights", "hidden"):
            if value := self.common.backbone.settings.get(name):
                raise SettingError(
                    f"`common.backbone.{name}` must be left out, for every backbone is trained "
                    f"from its beginning and probed at its last stage, got {value!r}."
                )
        return self


class Drawn(NamedTuple):
    """What all rows of a seed share."""

    images: "ImageSet"
    split: "Split"
    mains: "list[Task]"  # for each number of labels, which only those and the test images have


class Pretext(NamedTuple):
    """What a backbone is trained on."""

    images: np.ndarray
    task: "Task"
    split: "Split"  # its test images are the validation images, for others are not for it
    row: RowSettings


def drawn_of(settings: ProbeSettings, seed: int) -> Drawn:
    """The images of a seed, their split, and the images whose label of the main task is known.

    The images that few labels are of are among those of many.

    Raises:
        SettingError: no such target, or fewer training images than are to be labelled.
        ImageSetError: images that are missing, or too few.
    """
    from taskdisc.mtl.data import split_of, tasks_of

    images, n_test = images_of(settings.images, settings.test_split)
    split = split_of(len(images), settings.validation, settings.test, seed, given_test=n_test)
    mains = []
    for n in settings.labelled:
        main = TaskSettings(
            kind="classification", of=(settings.of,), labelled=n, labelled_validation=0
        )
        mains += tasks_of(images, {settings.of: main}, split, seed)
    return Drawn(images, split, mains)


def pretext_of(settings: ProbeSettings, source: str, drawn: Drawn, seed: int) -> Pretext:
    """What trains the backbone of a row; test images have no label of it.

    Raises:
        SettingError: no such tasks, or one from which nothing is to be learned.
        ImageSetError: images that cannot be turned.
        RunFolderError: a file holds no tasks, or tasks of other images.
    """
    from taskdisc.mtl.auxiliaries import auxiliary_tasks, check_both_labels, joined
    from taskdisc.mtl.data import Split

    if source == ROTATION:
        return _turned(settings, drawn)
    tasks = auxiliary_tasks(settings.sources[source], drawn.images, drawn.split, seed)
    check_both_labels(tasks, drawn.split)
    train, validation = drawn.split.train, drawn.split.validation
    split = Split(train, validation, validation)
    return Pretext(drawn.images.images, joined(tasks), split, settings.common)


def _turned(settings: ProbeSettings, drawn: Drawn) -> Pretext:
    """By how many quarter turns an image was turned, of four copies of all but the test images.

    Gidaris et al. 2018, "Unsupervised Representation Learning by Predicting Image Rotations". The
    batch has room for the copies, as there, so that there are as many steps as for other tasks.
    """
    from taskdisc.mtl.data import Split
    from taskdisc.mtl.tasks import Task

    height, width = drawn.images.images.shape[1:3]
    if height != width:
        raise ImageSetError(
            f"images must be square, for they are turned, got {height} x {width} pixels; set "
            "`images.size` to a side."
        )
    seen = np.concatenate([drawn.split.train, drawn.split.validation])
    images = drawn.images.images[seen]
    copies = np.concatenate([np.rot90(images, turn, axes=(1, 2)) for turn in range(TURNS)])
    turns = np.repeat(np.arange(TURNS, dtype=np.int64), len(seen))
    positions = np.arange(len(copies)).reshape(TURNS, len(seen))
    train, validation = np.split(positions, [len(drawn.split.train)], axis=1)
    training = settings.common.training
    row = settings.common.model_copy(
        update={"training": training.model_copy(update={"batch": TURNS * training.batch})}
    )
    return Pretext(
        copies,
        Task(ROTATION, "classification", turns, TURNS),
        Split(train.ravel(), validation.ravel(), validation.ravel()),
        row,
    )


def cells(settings: ProbeSettings) -> list[Cell]:
    """One per seed and row, the one with the most images first."""
    return [
        {"source": source, "seed": seed}
        for seed in range(settings.seed, settings.seed + settings.seeds)
        for source in (ROTATION, *settings.sources, UNTRAINED)
    ]


def check(settings: ProbeSettings) -> None:
    """Draw all splits and labels and make the first seed's networks, to refuse what cannot be."""
    from taskdisc.mtl.backbones.make import checked
    from taskdisc.mtl.train import module_of

    checked(settings.common.backbone.name, settings.common.backbone.settings)
    for seed in range(settings.seed, settings.seed + settings.seeds):
        drawn = drawn_of(settings, seed)
        for source in (ROTATION, *settings.sources):
            pretext = pretext_of(settings, source, drawn, seed)
            if seed == settings.seed:
                images, task, split, row = pretext
                module_of(images, [task], split, row, seed=seed)


def measure(
    settings: ProbeSettings, cell: Cell, pool: Pool, progress: Progress, folder: Path
) -> dict[str, Any]:
    """One backbone: how well it does what trained it, and how well its features are probed."""
    from taskdisc.mtl.module import plain
    from taskdisc.mtl.train import BEST, LAST, backbone_features, train
    from taskdisc.studies.linear_probe import probe, standardised

    seed, device, row = cell["seed"], pool.devices[0], settings.common
    drawn = drawn_of(settings, seed)
    found: dict[str, Any] = {"pretext": {}, "blind": {}, "epoch": 0, "seconds": 0.0}
    if cell["source"] != UNTRAINED:
        images, task, split, trained_row = pretext_of(settings, cell["source"], drawn, seed)
        trained = train(images, [task], split, trained_row, seed=seed, folder=folder, device=device)
        (folder / LAST).unlink(missing_ok=True)  # the tested epoch is kept, and needs the room
        given = {"mode": "whole", "weights": str((folder / BEST).resolve())}
        row = row.model_copy(update={"backbone": row.backbone.model_copy(update=given)})
        found = {
            "pretext": plain(trained.test[task.name]),
            "blind": plain(trained.blind[task.name]),
            "epoch": trained.epoch,
            "seconds": round(trained.seconds, 2),
        }
    train_at, test_at = drawn.split.train, drawn.split.test
    features = standardised(
        backbone_features(drawn.images.images, train_at, row, seed, device), train_at
    )
    probed = []
    for main in drawn.mains:
        labelled = train_at[main.known[train_at]]
        accuracy, c = probe(features, main.labels, labelled, test_at, seed)
        probed.append({"labelled": len(labelled), "accuracy": accuracy, "c": c})
    return {**found, "probes": probed, "n_test": len(test_at), "n_features": features.shape[1]}


STUDY = Study(
    "how good for a main task are the features that other tasks teach?",
    ProbeSettings,
    cells,
    measure,
    answer_of,
    check,
    keeps_files=True,
    words={
        "linear probe": "Logistic regression on the features that the last stage of a frozen "
        "backbone gives, brought to mean 0 and s.d. 1 of the training images. It is fitted to the "
        "labelled images alone, of which those of fewer labels are among those of more; all test "
        "images measure it, once. Alain & Bengio 2016.",
        "C": "Inverse strength of the probe's penalty, chosen by cross-validation on the labelled "
        "images; 1 where a class has one of them alone. The median over seeds.",
        UNTRAINED: "The backbone with the initial weights that all rows of a seed begin with.",
        ROTATION: "A backbone that was trained to tell by how many quarter turns an image was "
        "turned: four copies of each training image. Its batches are four times as large, so that "
        "it takes as many steps as the others. Gidaris et al. 2018.",
        "other rows": "A backbone that was trained on all tasks of `sources` of that name as one "
        "task of several labels, without the main task.",
        "pretext": "Accuracy in what trained the backbone, on validation images; in brackets that "
        "of the constant prediction that fits the training labels best.",
        "gain on": "Paired difference in accuracy to the row of that name, over seeds: the same "
        "split, initial weights and labelled images; in brackets its 95 % interval by Student's t.",
    },
)
