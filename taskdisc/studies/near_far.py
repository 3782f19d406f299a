"""Does a second class help to learn a first one? Near and far pairs, with all others behind."""

from copy import deepcopy
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from taskdisc.config import ImagesSettings, Settings
from taskdisc.errors import SettingError, did_you_mean
from taskdisc.mtl.config import RowSettings, TaskSettings, TrainingSettings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import multi_task
from taskdisc.studies.images import source_of
from taskdisc.studies.multi_task import ComparisonSettings, comparison_like, rows_over_common
from taskdisc.studies.multi_task_rows import SINGLE
from taskdisc.studies.near_far_answer import FIRST, METRICS, answer_of
from taskdisc.studies.study import Answer, Cell, Record, Study

SECOND, EACH_OTHER = "second", "each other"

PAIRS: dict[str, dict[str, tuple[str, str]]] = {
    "near": {"3 / 5": ("3", "5"), "4 / 9": ("4", "9")},
    "far": {"0 / 1": ("0", "1"), "6 / 7": ("6", "7")},
}

ROWS: dict[str, dict[str, Any]] = {
    "multi-task": {},
    "cosine-weighted": {"weighting": "cosine-weighted"},
    "cosine-unweighted": {"weighting": "cosine-unweighted"},
    "tanimoto": {"weighting": "tanimoto"},
    "each other, multi-task": {"tasks": [FIRST, EACH_OTHER]},
    "each other, cosine-weighted": {
        "tasks": [FIRST, EACH_OTHER],
        "weighting": "cosine-weighted",
    },
}


class NearFarSettings(Settings):
    """The pairs, the ways to train the first class beside the second, and how often each is."""

    images: ImagesSettings = ImagesSettings(size=16)  # all of the source where no draw is given
    test: float = Field(0.5, gt=0, lt=1)  # share that measures the result
    validation: float = Field(0.2, gt=0, lt=1)  # share that chooses the epoch
    target: str = "digit"  # whose classes are paired
    pairs: dict[str, dict[str, tuple[str, str]]] = Field(PAIRS, min_length=1)  # by group
    # Of the tasks `first`, `second` and `each other`, of which the first is always the main one.
    common: RowSettings = RowSettings(
        tasks=(FIRST, SECOND), training=TrainingSettings(epochs=6, batch=50, lr=2e-3)
    )
    rows: dict[str, RowSettings] = Field(min_length=1)  # each says how it differs from `common`
    seeds: int = Field(5, ge=1)  # trainings of each row and pair
    seed: int = Field(0, ge=0)  # the first of them

    @classmethod
    def entries_of(cls, name: str) -> dict[str, Any]:
        entries = {"rows": ROWS, "pairs": PAIRS}
        return {name: deepcopy(entries[name])} if name in entries else super().entries_of(name)

    @model_validator(mode="before")
    @classmethod
    def _rows_over_common(cls, values: Any) -> Any:
        return rows_over_common(cls, values)

    @field_validator("pairs")
    @classmethod
    def _of_two_classes_each(
        cls, pairs: dict[str, dict[str, tuple[str, str]]]
    ) -> dict[str, dict[str, tuple[str, str]]]:
        seen: dict[str, str] = {}
        for group, of_group in pairs.items():
            if not of_group:
                raise SettingError(
                    f"`pairs.{group}` must have at least 1 pair, got 0; leave the group out."
                )
            for name, (first, second) in of_group.items():
                if first == second:
                    raise SettingError(
                        f"`pairs.{group}.{name}` must be two different classes, got {first!r} twice"
                        "; the second is to be an auxiliary of the first."
                    )
                if name in seen:
                    raise SettingError(
                        f"`pairs` must name every pair once, got {name!r} in '{seen[name]}' and "
                        f"'{group}'; rename one."
                    )
                seen[name] = group
        return pairs

    @model_validator(mode="after")
    def _can_be_compared(self) -> Self:
        comparisons_of(self)
        return self


def comparisons_of(settings: NearFarSettings) -> dict[str, ComparisonSettings]:
    """For each pair, by its name, the comparison that measures it.

    Raises:
        SettingError: a row has no such task, not the main one, or a name of a single-task row.
    """
    return {
        name: comparison_like(settings, tasks=tasks_of_pair(settings.target, *pair), main=FIRST)
        for of_group in settings.pairs.values()
        for name, pair in of_group.items()
    }


def tasks_of_pair(target: str, first: str, second: str) -> dict[str, TaskSettings]:
    """Each class against all else, and the two against each other, on their own images alone.

    After Du et al. 2018, "Adapting Auxiliary Losses Using Gradient Similarity", where the first
    two are the main task and the auxiliary.
    """
    said: dict[str, Any] = {
        "kind": "binary",
        "of": (target,),
        "metric": METRICS[0],
        "also": METRICS[1:],
    }
    return {
        FIRST: TaskSettings(**said, positives=(first,)),
        SECOND: TaskSettings(**said, positives=(second,)),
        EACH_OTHER: TaskSettings(**said, positives=(first,), among=(first, second)),
    }


def cells(settings: NearFarSettings) -> list[Cell]:
    """One per seed, pair and row; the first class alone beside the rows."""
    by_pair = {
        name: [cell for cell in multi_task.cells(comparison) if cell.get("task", FIRST) == FIRST]
        for name, comparison in comparisons_of(settings).items()
    }
    return [
        {"pair": name, "row": cell["row"], "seed": cell["seed"]}
        for seed in range(settings.seed, settings.seed + settings.seeds)
        for name, of_pair in by_pair.items()
        for cell in of_pair
        if cell["seed"] == seed
    ]


def check(settings: NearFarSettings) -> None:
    """Refuse targets and classes that are not there, and labels that are too few."""
    source = source_of(settings.images)
    if settings.target not in source.targets:
        raise SettingError(
            f"`target` must be a target of '{source.source}', got {settings.target!r}; "
            f"{did_you_mean(settings.target, source.targets)}"
        )
    classes = source.classes[settings.target]
    for group, of_group in settings.pairs.items():
        for name, pair in of_group.items():
            for one in pair:
                if one not in classes:
                    raise SettingError(
                        f"`pairs.{group}.{name}` must be classes of '{settings.target}', got "
                        f"{one!r}; {did_you_mean(one, classes)}"
                    )
    for comparison in comparisons_of(settings).values():
        multi_task.check(comparison)


def measure(
    settings: NearFarSettings, cell: Cell, pool: Pool, progress: Progress, folder: Path
) -> dict[str, Any]:
    """One training of a pair, as a comparison measures it."""
    part = {"row": cell["row"], "seed": cell["seed"]}
    if cell["row"].startswith(SINGLE):
        part["task"] = FIRST
    return multi_task.measure(comparisons_of(settings)[cell["pair"]], part, pool, progress, folder)


def answer(settings: NearFarSettings, records: list[Record]) -> Answer:
    """What the records say; all pairs have the same rows."""
    return answer_of(settings, next(iter(comparisons_of(settings).values())), records)


STUDY = Study(
    "does a second class help to learn a first one, all others being background?",
    NearFarSettings,
    cells,
    measure,
    answer,
    check,
    keeps_files=True,
    words={
        "first, second, each other": "The tasks of a pair of classes: the first against all other "
        "images, which is the main task; the second against all other images; and the first "
        "against the second, on images of these two alone. Rows without `each other` have the "
        "second as the auxiliary. All images are in every pair.",
        "average precision": "The area under precision against recall, of all thresholds. It "
        "chooses the epoch, on validation images. Blind it is the share of positives.",
        "balanced accuracy": "The mean of the share of positives and the share of negatives that "
        "are found, where the network says yes above a probability of a half. With few positives "
        "it seldom does, so this stays near the blind 0.5 even where the order of the images is "
        "good; a threshold for use has to be set by what a miss and a false alarm cost.",
        "blind": "The constant prediction that fits the training labels best.",
        "gain": "Paired difference, over seeds, to a network of the same backbone and training "
        "that was trained on the first class alone, from the same seed and split; in brackets its "
        "95 % interval by Student's t. Of a group: of the mean over its pairs, seed by seed.",
        "chosen epoch": "The one with the best validation average precision of the first class. "
        "The test images are looked at once, at that epoch.",
        "cosine": "Of the two tasks' gradients with respect to the shared parameters, in the first "
        "batches of an epoch.",
    },
)
