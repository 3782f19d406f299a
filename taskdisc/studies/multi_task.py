"""Which way of training several tasks does best? Rows of methods, trained from several seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from taskdisc.config import ImagesSettings, Settings, settings_from
from taskdisc.errors import ImageSetError, SettingError, did_you_mean, shown
from taskdisc.images import ImageSet
from taskdisc.images.cache import cache_folder, cached
from taskdisc.mtl.auxiliaries import named, resolved
from taskdisc.mtl.auxiliaries import names_of as aux_names
from taskdisc.mtl.config import (
    Method,
    RowSettings,
    TaskSettings,
    TrainingSettings,
    with_absolute_weights,
)
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.images import source_of
from taskdisc.studies.multi_task_answer import answer_of
from taskdisc.studies.multi_task_rows import BLIND, BY_HAND, SINGLE, single_rows, variant_of
from taskdisc.studies.study import Cell, Study

if TYPE_CHECKING:
    from taskdisc.mtl.data import Split
    from taskdisc.mtl.tasks import Task

METHODS = ("architecture", "backbone", "weighting", "schedule")

NO_AUXILIARIES = "no auxiliaries"
"""Names the variant of every row without them."""

TAKEN = {SINGLE: "each task alone", BLIND: "what needs no image", BY_HAND: "a row of `hand`"}
"""How names of rows may not begin, and what stands there."""

MOST_LETTERS = 300
"""Of a name; auxiliary tasks are named after their folder."""

DIGITS: dict[str, TaskSettings] = {
    "digit": TaskSettings(kind="classification", of=("digit",)),
    "parity": TaskSettings(kind="binary", of=("digit",), positives=tuple("13579")),
    "five or more": TaskSettings(kind="binary", of=("digit",), positives=tuple("56789")),
}

ROWS: dict[str, dict[str, Any]] = {
    "equal": {},
    "uncertainty": {"weighting": "uncertainty"},
    "pcgrad": {"weighting": "pcgrad"},
    "upgrad": {"weighting": "upgrad"},
    "dropped-scheduled": {"schedule": "dst"},
    "label reuse": {"architecture": "label-reuse"},
    "cross-stitch": {"architecture": "cross-stitch"},
    "attention": {"architecture": "mtan"},
}


class ComparisonSettings(Settings):
    """The tasks, the rows that are compared, and how often each is trained."""

    images: ImagesSettings = ImagesSettings()  # all of the source where no draw is given
    test_split: str | None = None  # the source's own test split; else a share of the images
    test: float = Field(0.2, gt=0, lt=1)  # share that measures the result
    validation: float = Field(0.15, gt=0, lt=1)  # share that chooses the epoch
    tasks: dict[str, TaskSettings] = Field(DIGITS, min_length=1)
    main: str | None = None  # the task that matters, where the others are to help it
    single_tasks: bool = True  # also train each task alone, for Δm
    reference: str | None = None  # the row that the others are held against; the first one
    common: RowSettings = RowSettings(training=TrainingSettings(epochs=15, lr=2e-3))
    rows: dict[str, RowSettings] = Field(min_length=1)  # each says how it differs from `common`
    # Every row in each of these variants, which say how they differ from it; as it is by default.
    across: dict[str, dict[str, Any]] = Field({})
    # Rows like the first one with weights of two tasks by hand, in so many steps from the first
    # task alone to the second alone; none by default.
    hand: int | None = Field(None, ge=2)
    seeds: int = Field(3, ge=1)  # trainings of each row
    seed: int = Field(0, ge=0)  # the first of them

    @classmethod
    def entries_of(cls, name: str) -> dict[str, Any]:
        return {"rows": dict(ROWS)} if name == "rows" else super().entries_of(name)

    @model_validator(mode="before")
    @classmethod
    def _rows_over_common(cls, values: Any) -> Any:
        return rows_over_common(cls, values)

    @field_validator("rows")
    @classmethod
    def _can_be_made(cls, rows: dict[str, RowSettings]) -> dict[str, RowSettings]:
        for name in rows:
            for taken, what in TAKEN.items():
                if name.startswith(taken):
                    raise SettingError(
                        f"`rows` must have names that do not begin with {taken!r}, which is "
                        f"{what}, got {name!r}; rename it."
                    )
        return rows

    @field_validator("tasks", "rows", "across")
    @classmethod
    def _names_fit_a_line(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if not name.isprintable() or len(name) > MOST_LETTERS:
                raise SettingError(
                    f"names of tasks, rows and variants must be at most {MOST_LETTERS} letters on "
                    f"one line, got {shown(name)}; rename it."
                )
        return given

    @field_validator("across")
    @classmethod
    def _from_anywhere(cls, across: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        found = {}
        for name, given in across.items():
            values = dict(given)
            if isinstance(values.get("aux"), str) and values["aux"]:
                values["aux"] = resolved(values["aux"])
            if isinstance(values.get("backbone"), dict):
                values["backbone"] = with_absolute_weights(values["backbone"])
            found[name] = values
        return found

    @property
    def every_row(self) -> dict[str, RowSettings]:
        """All rows that are compared: `rows`, times `across`, and those with weights by hand."""
        found = dict(self.rows)
        if self.across:
            found = {
                variant_of(name, variant): settings_from(
                    RowSettings, _filled(given, row.model_dump(mode="json"))
                )
                for variant, given in self.across.items()
                for name, row in self.rows.items()
            }
        if self.hand is not None:
            first = next(iter(found.values()))
            for name, weights in self.by_hand.items():
                fixed = Method(name="fixed", weights=weights)
                found[name] = first.model_copy(update={"weighting": fixed})
        return found

    @property
    def by_hand(self) -> dict[str, list[float]]:
        """The rows with weights by hand, and these; they add up to 1."""
        steps = 0 if self.hand is None else self.hand
        weights = [round(1 - step / (steps - 1), 6) for step in range(steps)]
        return {f"{BY_HAND} {w:g} / {1 - w:.6g}": [w, round(1 - w, 6)] for w in weights}

    def names_of(self, row: RowSettings) -> tuple[str, ...]:
        """The names of a row's tasks, without auxiliary ones."""
        return tuple(self.tasks) if row.tasks is None else row.tasks

    def main_number(self, row: RowSettings) -> int | None:
        """Which of the tasks of a row is the main one; None where there is none."""
        names = self.names_of(row)
        return names.index(self.main) if self.main in names else None

    @model_validator(mode="after")
    def _every_row_can_be(self) -> Self:
        for variant, given in self.across.items():
            try:
                settings_from(RowSettings, _filled(given, self.common.model_dump(mode="json")))
            except SettingError as error:
                raise SettingError(f"in `across.{variant}`, {error}") from error
        if self.hand is not None and len(self.tasks) != 2:
            raise SettingError(
                f"`hand` must be left out unless there are two tasks, got {len(self.tasks)}: it "
                "steps from the one to the other."
            )
        first = next(iter(self.every_row.values()))
        if self.hand is not None and (first.aux or self.names_of(first) != tuple(self.tasks)):
            raise SettingError(
                "`hand` must be left out unless the first row has the two tasks in their order and "
                f"no others, got {', '.join([*self.names_of(first), *filter(None, [first.aux])])}."
            )
        self._check_names()
        return self

    def _check_names(self) -> None:
        rows = self.every_row
        for setting, name, choices in (
            ("main", self.main, self.tasks),
            ("reference", self.reference, rows),
        ):
            if name is not None and name not in choices:
                what = "task" if setting == "main" else "row"
                raise SettingError(
                    f"`{setting}` must be the name of a {what}, got {name!r}; "
                    f"{did_you_mean(name, choices)}"
                )
        for row_name, row in rows.items():
            if self.main is not None and row.tasks and self.main not in row.tasks:
                raise SettingError(
                    f"`rows.{row_name}.tasks` must have the main task '{self.main}', by which "
                    f"rows are compared, got {', '.join(row.tasks)}; add it."
                )
            for setting, tasks in (
                ("tasks", row.tasks or ()),
                ("training.head_lr", row.training.head_lr),
            ):
                for task in tasks:
                    if task not in self.tasks:
                        raise SettingError(
                            f"`rows.{row_name}.{setting}` must be names of tasks, got {task!r}; "
                            f"{did_you_mean(task, self.tasks)}"
                        )


def with_auxiliaries(settings: ComparisonSettings, given: Sequence[str]) -> list[str]:
    """Changes of settings by which every row is also trained with each of some auxiliary tasks.

    Without a main task the first one becomes it, for it is what auxiliaries are to help.

    Args:
        settings: Of the comparison without them.
        given: As `RowSettings.aux`.

    Raises:
        SettingError: one is none, or the settings have variants already.
    """
    if settings.across:
        raise SettingError(
            "`across` must be left out where --aux is given, which sets it, got "
            f"{', '.join(settings.across)}; name auxiliaries as `aux` of the variants there."
        )
    names = [_short_name(aux) for aux in given]
    for name in names:
        if names.count(name) > 1:
            raise SettingError(f"--aux must name different auxiliaries, got {name!r} twice.")
    variants = {NO_AUXILIARIES: {"aux": "", "aux_tasks": None}}
    variants |= {
        name: {"aux": aux, "aux_tasks": None} for name, aux in zip(names, given, strict=True)
    }
    changes: dict[str, Any] = {"across": variants}
    if settings.reference is not None:
        changes["reference"] = variant_of(settings.reference, NO_AUXILIARIES)
    if settings.main is None:
        changes["main"] = next(iter(settings.tasks))
    return [f"{name}={json.dumps(value)}" for name, value in changes.items()]


def _short_name(aux: str) -> str:
    """Auxiliaries by a word or two: of a path its last part."""
    given = named(aux)
    name = Path(given.path).resolve().name if given.path else f"{given.number}"
    return f"{given.kind} {name}".strip()


def comparison_like(settings: Settings, **values: Any) -> ComparisonSettings:
    """A comparison with the settings that another study has in common with it, and some others.

    Raises:
        SettingError: a setting breaks its rule.
    """
    fields = type(settings).model_fields
    common = {
        name: getattr(settings, name) for name in ComparisonSettings.model_fields if name in fields
    }
    return settings_from(ComparisonSettings, {**common, **values})


def rows_over_common(kind: type[Settings], values: Any) -> Any:
    """Values of settings with `rows`, by default their entries, each filled by `common`."""
    if not isinstance(values, dict):
        return values
    rows = values.get("rows", kind.entries_of("rows")["rows"])
    if not isinstance(rows, dict):
        return values
    given = values.get("common") or {}
    if not isinstance(given, dict) or not isinstance(given.get("training", {}), dict):
        return values  # which is refused for that
    default = kind.model_fields["common"].default.model_dump(mode="json")
    common = _filled(given, default)
    return {**values, "rows": {name: _filled(row, common) for name, row in rows.items()}}


def _filled(given: Any, below: Mapping[str, Any]) -> Any:
    """A row over another one; a method that is named replaces the other with all its settings."""
    if not isinstance(given, dict):
        return given
    filled = {**below, **given}
    for name in METHODS:
        above = given.get(name)
        if isinstance(above, dict) and "name" not in above:
            filled[name] = {**_method(below.get(name, {})), **above}
    if isinstance(given.get("training"), dict):
        filled["training"] = {**below.get("training", {}), **given["training"]}
    return filled


def _method(method: Any) -> dict[str, Any]:
    return {"name": method} if isinstance(method, str) else dict(method or {})


class Work(NamedTuple):
    """What one cell trains."""

    images: ImageSet
    tasks: "list[Task]"
    split: "Split"
    row: RowSettings
    main: int | None


def work_of(settings: ComparisonSettings, cell: Cell) -> Work:
    """What a cell trains.

    Raises:
        SettingError: a task or a method that cannot be made.
        ImageSetError: images that are missing, or too few.
    """
    drawn = _drawn(settings, cell["seed"])
    images, split, every = drawn.images, drawn.split, drawn.tasks
    if "task" in cell:
        name = cell["task"]
        like = next(row for row, single in single_rows(settings).items() if single == cell["row"])
        plain = {
            "architecture": Method(name="hard-sharing"),
            "weighting": Method(name="equal"),
            "schedule": Method(name="all"),
        }
        row = settings.every_row[like].model_copy(update=plain)
        # Beside no other task its weight would be a learning rate, or 0.
        return Work(images, [replace(every[name], weight=1.0)], split, row, 0)
    row = settings.every_row[cell["row"]]
    names = settings.names_of(row)
    tasks = [every[name] for name in names]
    if row.aux:
        tasks += _auxiliaries(settings, row, drawn, cell["seed"])
    architecture = _numbered(row.architecture, names)
    row = row.model_copy(update={"architecture": architecture})
    return Work(images, tasks, split, row, settings.main_number(row))


def _auxiliaries(
    settings: ComparisonSettings, row: RowSettings, drawn: "Drawn", seed: int
) -> "list[Task]":
    """The auxiliary tasks of a row, drawn alike for all rows of a seed that have them."""
    from taskdisc.mtl.auxiliaries import JOINED, auxiliary_tasks, check_both_labels, joined

    if row.aux not in drawn.auxiliaries:
        drawn.auxiliaries[row.aux] = auxiliary_tasks(row.aux, drawn.images, drawn.split, seed)
    every = {task.name: task for task in drawn.auxiliaries[row.aux]}
    wanted = tuple(every) if row.aux_tasks is None else row.aux_tasks
    for name in wanted:
        if name not in every:
            raise SettingError(
                f"`aux_tasks` must be names of the auxiliary tasks of {row.aux!r}, got {name!r}; "
                f"{did_you_mean(name, every)}"
            )
    for name in [JOINED] if row.aux_joined else wanted:
        if name in settings.tasks:
            raise SettingError(
                f"`tasks` must have other names than auxiliary tasks, got {name!r}; rename it."
            )
    found = [every[name] for name in wanted]
    check_both_labels(found, drawn.split)
    if row.aux_joined:
        found = [joined(found)]
    return [replace(task, weight=row.aux_weight) for task in found]


def _numbered(architecture: Method, names: Sequence[str]) -> Method:
    """An architecture whose settings name tasks by their numbers; they may be given by name.

    Raises:
        SettingError: there is no task of that name.
    """
    from taskdisc.mtl.architectures import ARCHITECTURES
    from taskdisc.mtl.settings import OneTask

    row = ARCHITECTURES.get(architecture.name)
    found = {}
    for setting, value in architecture.settings.items():
        names_task = row is not None and isinstance(row.settings.get(setting), OneTask)
        if not names_task or not isinstance(value, str):
            continue
        if value not in names:
            raise SettingError(
                f"`{setting}` of architecture '{architecture.name}' must be a task, got {value!r}; "
                f"{did_you_mean(value, names)}"
            )
        found[setting] = list(names).index(value)
    return architecture.model_copy(update=found)


class Drawn(NamedTuple):
    """What all rows of a seed share."""

    images: ImageSet
    split: "Split"
    tasks: "dict[str, Task]"
    auxiliaries: "dict[str, list[Task]]"  # by `aux`, filled as rows ask for them


_last: dict[str, Drawn] = {}
"""What was drawn last, for measures of all pixels and hashes of all images take their time."""


def _drawn(settings: ComparisonSettings, seed: int) -> Drawn:
    """The images, their split and all tasks of a seed, alike in all rows whichever a row has."""
    from taskdisc.mtl.data import split_of, tasks_of

    drawn_by = {"images", "test_split", "test", "validation", "tasks"}
    key = f"{seed} {settings.model_dump_json(include=drawn_by)}"
    if key not in _last:
        images, n_test = images_of(settings.images, settings.test_split)
        split = split_of(len(images), settings.validation, settings.test, seed, given_test=n_test)
        tasks = tasks_of(images, settings.tasks, split, seed)
        _last.clear()
        _last[key] = Drawn(images, split, dict(zip(settings.tasks, tasks, strict=True)), {})
    return _last[key]


@lru_cache(maxsize=1)
def images_of(settings: ImagesSettings, test_split: str | None) -> tuple[ImageSet, int]:
    """The images, those of the test split last, and how many these are.

    Raises:
        SettingError: a setting breaks its rule.
        ImageSetError: the images are missing or unreadable.
    """
    from taskdisc.discovery.run import chosen_images

    images = source_of(settings)
    drawn = (settings.n_classes, settings.per_class, settings.n_images, settings.class_a)
    if any(value is not None for value in drawn):
        images = chosen_images(images, settings)
    elif settings.target is not None or settings.seed:
        name, value = ("seed", settings.seed) if settings.seed else ("target", settings.target)
        raise SettingError(
            f"`images.{name}` must be left out where no images are drawn, got {value!r}; set "
            "`images.n_images` to draw some, or `seed` for other splits."
        )
    if test_split is None:
        return images, 0
    if test_split == settings.split or "all" in (test_split, settings.split):
        raise SettingError(
            f"`test_split` must be a split without the images of '{settings.split}', which train, "
            f"got {test_split!r}; name another, or leave it out for a share to be the test."
        )
    if any(value is not None for value in (*drawn[:2], drawn[3])):
        raise SettingError(
            "`test_split` must be left out where images are drawn by class, got "
            f"{test_split!r}; a share of them is the test then."
        )
    tested = source_of(settings.model_copy(update={"split": test_split}))
    if tested.classes != images.classes:
        raise ImageSetError(
            f"the split '{test_split}' must have the targets and classes of '{settings.split}', "
            "got others."
        )
    shape, other = images.images.shape[1:], tested.images.shape[1:]
    if other != shape:
        raise ImageSetError(
            f"the images of the split '{test_split}' must be as large as those of "
            f"'{settings.split}', {shape[0]} x {shape[1]} pixels, got {other[0]} x {other[1]}; set "
            "`images.size` to a side."
        )
    return _joined(images, tested), len(tested)


def _joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Two image sets as one, mapped from the cache: no process holds a copy beside the parts."""
    both = (first.images, second.images)
    images = cached(
        cache_folder(),
        f"joined-{first.content_hash()}-{second.content_hash()}",
        (len(first) + len(second), *first.images.shape[1:]),
        lambda: (part[i : i + 1000] for part in both for i in range(0, len(part), 1000)),
    )
    return ImageSet(
        first.source,
        images,
        {
            name: np.concatenate([column, second.targets[name]])
            for name, column in first.targets.items()
        },
        first.classes,
    )


def cells(settings: ComparisonSettings) -> list[Cell]:
    """One per row and seed; of the single-task row, one per task and seed."""
    rows = settings.every_row
    alone: dict[tuple[str, str], None] = {}
    if settings.single_tasks:
        for name, single in single_rows(settings).items():
            for task in settings.names_of(rows[name]):
                alone[single, task] = None
    return [
        cell
        for seed in range(settings.seed, settings.seed + settings.seeds)
        for cell in (
            *({"row": name, "seed": seed} for name in rows),
            *({"row": single, "task": task, "seed": seed} for single, task in alone),
        )
    ]


def _n_auxiliaries(row: RowSettings) -> int:
    if not row.aux:
        return 0
    if row.aux_joined:
        return 1
    return len(aux_names(row.aux)) if row.aux_tasks is None else len(row.aux_tasks)


def _check_row(settings: ComparisonSettings, name: str, row: RowSettings) -> None:
    from taskdisc.mtl.architectures.make import checked as check_architecture
    from taskdisc.mtl.backbones.make import checked as check_backbone
    from taskdisc.mtl.schedules.make import checked as check_schedule
    from taskdisc.mtl.weightings.make import checked as check_weighting

    names = settings.names_of(row)
    main = settings.main_number(row)
    n = len(names) + _n_auxiliaries(row)
    try:
        architecture = _numbered(row.architecture, names)
        check_architecture(architecture.name, n, architecture.settings)
        check_backbone(row.backbone.name, row.backbone.settings)
        check_weighting(row.weighting.name, n, main, row.weighting.settings)
        check_schedule(row.schedule.name, n, row.schedule.settings)
    except SettingError as error:
        raise SettingError(f"in row '{name}', {error}") from error


def check_rows(settings: ComparisonSettings) -> None:
    """Refuse rows whose methods cannot be made, without images or networks.

    Raises:
        SettingError: names the row.
    """
    for name, row in settings.every_row.items():
        _check_row(settings, name, row)


def check(settings: ComparisonSettings) -> None:
    """Draw all splits and labels and make the first seed's networks, to refuse what cannot be."""
    from taskdisc.mtl.train import module_of

    check_rows(settings)
    for cell in cells(settings):
        work = work_of(settings, cell)
        if cell["seed"] == settings.seed:
            module_of(work.images.images, work.tasks, work.split, work.row, main=work.main, seed=0)


def measure(
    settings: ComparisonSettings, cell: Cell, pool: Pool, progress: Progress, folder: Path
) -> dict[str, Any]:
    """One training: what was measured of its tasks at the chosen epoch, and its epochs."""
    from taskdisc.mtl.module import plain
    from taskdisc.mtl.train import LAST, train

    work = work_of(settings, cell)
    trained = train(
        work.images.images,
        work.tasks,
        work.split,
        work.row,
        main=work.main,
        seed=cell["seed"],
        folder=folder,
        device=pool.devices[0],
    )
    (folder / LAST).unlink(missing_ok=True)  # the best epoch is kept, and needs the room alone
    return {
        "test": {name: plain(found) for name, found in trained.test.items()},
        "blind": {name: plain(found) for name, found in trained.blind.items()},
        "metrics": {task.name: task.metric_name for task in work.tasks},
        "epoch": trained.epoch,
        "epochs": trained.history,
        "shown": trained.shown,
        "parameters": trained.n_parameters,
        "seconds": round(trained.seconds, 2),
        "step_seconds": round(trained.step_seconds, 6),
    }


STUDY = Study(
    "which way of training several tasks does best?",
    ComparisonSettings,
    cells,
    measure,
    answer_of,
    check,
    command="mtl",
    keeps_files=True,
    words={
        "Δm": "The mean over tasks of the relative gain in the test metric over a network with the "
        "same backbone and training that was trained on that task alone, from the same seed and "
        "split, in %; of r² in the share that it leaves unexplained. Maninis et al. 2019.",
        "chosen epoch": "The one with the best validation metric, of the main task or, without "
        "one, in the mean over tasks; the last one where `training.epoch` says so. The test images "
        "are looked at once, at that epoch.",
        "conflict": "Two tasks conflict in a batch where the cosine of their gradients with "
        "respect to the shared parameters is negative.",
        "gain on": "Paired difference to the row of that name, over seeds: of the main task's "
        "metric, more being better, or without a main task Δm over that row, in %; in brackets its "
        "95 % interval.",
        "gain on random": "The same difference to the row that has random auxiliary tasks and is "
        "like it in all else, of rows for which there is one.",
        "mae, mse": "Of targets that were brought to mean 0 and s.d. 1 of the training images.",
    },
)
