"""Which tasks help which? The gain of every pair, and the cosine of their gradients."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from taskdisc.config import ImagesSettings, Settings, settings_from
from taskdisc.errors import SettingError, did_you_mean
from taskdisc.mtl.auxiliaries import names_of, resolved
from taskdisc.mtl.config import RowSettings, TaskSettings, TrainingSettings
from taskdisc.mtl.kinds import higher_is_better
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import multi_task
from taskdisc.studies.drawing import draw_matrix, figure_of
from taskdisc.studies.estimates import finite, interval, mean_and_sem
from taskdisc.studies.multi_task import DIGITS, ComparisonSettings, comparison_like
from taskdisc.studies.multi_task_rows import relative_gain
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study

TOGETHER, ALONE, PAIR = "all together", "alone", "pair"
"""Kinds of trainings: of all tasks, of each alone, and of two."""


class AffinitySettings(Settings):
    """The tasks, of which one is the main one, and how each pair of them is trained."""

    images: ImagesSettings = ImagesSettings(n_images=600)  # all where no draw is given
    test_split: str | None = None  # of comparisons that use the same split; not looked at here
    test: float = Field(0.2, gt=0, lt=1)
    validation: float = Field(0.3, gt=0, lt=1)  # share that measures gains
    tasks: dict[str, TaskSettings] = Field(DIGITS, min_length=1)
    aux: str = "random:2"  # auxiliary tasks: see `mtl.auxiliaries.FORMS`; empty for none
    main: str = "digit"  # the task that others may help
    every_pair: bool = False  # also pairs without the main task, for the whole matrix
    common: RowSettings = RowSettings(training=TrainingSettings(epochs=10, lr=2e-3))
    seeds: int = Field(3, ge=1)
    seed: int = Field(0, ge=0)

    @property
    def names(self) -> list[str]:
        """Of all tasks, the main one first."""
        others = [name for name in self.tasks if name != self.main]
        return [self.main, *others, *(names_of(self.aux) if self.aux else [])]

    @field_validator("aux")
    @classmethod
    def _auxiliaries_from_anywhere(cls, aux: str) -> str:
        return resolved(aux) if aux else aux

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name in ("tasks", "aux", "aux_tasks", "aux_joined"):
            if getattr(self.common, name):
                raise SettingError(
                    f"`common.{name}` must be left out, for each training has its own, got "
                    f"{getattr(self.common, name)!r}."
                )
        if self.main not in self.tasks:
            raise SettingError(
                f"`main` must be the name of a task, got {self.main!r}; "
                f"{did_you_mean(self.main, self.tasks)}"
            )
        if len(self.names) < 2:
            raise SettingError(
                "`aux` must name auxiliary tasks where `tasks` has the main one alone, got none."
            )
        comparisons_of(self)
        return self


def comparisons_of(settings: AffinitySettings) -> dict[bool, ComparisonSettings]:
    """The trainings as rows of comparisons: those with the main task, and those without."""
    names = settings.names
    pairs = [
        (first, second)
        for i, first in enumerate(names)
        for second in names[i + 1 :]
        if settings.every_pair or first == settings.main
    ]
    alone = names if settings.every_pair else names[:1]
    rows: dict[bool, dict[str, RowSettings]] = {True: {}, False: {}}
    for kind, groups in ((TOGETHER, [tuple(names)]), (ALONE, [(n,) for n in alone]), (PAIR, pairs)):
        for group in groups:
            with_main = settings.main in group
            rows[with_main][row_name(kind, *group)] = _row(settings, group)
    return {
        with_main: comparison_like(
            settings,
            main=settings.main if with_main else None,
            single_tasks=False,
            rows=of_kind,
        )
        for with_main, of_kind in rows.items()
        if of_kind
    }


def row_name(kind: str, *names: str) -> str:
    """The name of a training."""
    return kind if kind == TOGETHER else f"{kind}: {' + '.join(names)}"


def _row(settings: AffinitySettings, names: tuple[str, ...]) -> RowSettings:
    tasks = tuple(name for name in names if name in settings.tasks)
    auxiliaries = tuple(name for name in names if name not in settings.tasks)
    values: dict[str, Any] = settings.common.model_dump(mode="json") | {"tasks": tasks}
    if auxiliaries:
        values |= {"aux": settings.aux, "aux_tasks": auxiliaries}
    return settings_from(RowSettings, values)


def cells(settings: AffinitySettings) -> list[Cell]:
    """One per training and seed."""
    return [
        {"row": cell["row"], "seed": cell["seed"]}
        for comparison in comparisons_of(settings).values()
        for cell in multi_task.cells(comparison)
    ]


def check(settings: AffinitySettings) -> None:
    """Refuse tasks and methods that cannot be made."""
    for comparison in comparisons_of(settings).values():
        multi_task.check(comparison)


def measure(
    settings: AffinitySettings, cell: Cell, pool: Pool, progress: Progress, folder: Path
) -> dict[str, Any]:
    """One training, as a comparison measures it."""
    found = next(c for c in comparisons_of(settings).values() if cell["row"] in c.rows)
    return multi_task.measure(found, cell, pool, progress, folder)


def answer(settings: AffinitySettings, records: list[Record]) -> Answer:
    """The gain of each task beside each other one, the cosines, and a choice of auxiliaries."""
    names = settings.names
    gains = gains_of(settings, records)
    together = [record for record in records if record["row"] == TOGETHER]
    by_epoch = np.array([e["cosines"] for record in together for e in record["epochs"]], float)
    order = [list(together[0]["test"]).index(name) for name in names]
    cosines = mean_and_sem(by_epoch)[0][np.ix_(order, order)]
    table = [
        _line(main, other, gains[i, j], float(cosines[i, j]))
        for i, main in enumerate(names)
        for j, other in enumerate(names)
        if i != j and np.isfinite(gains[i, j]).any()
    ]
    of_main = gains[0, 1:]
    means = [float(mean_and_sem(values)[0]) for values in of_main]
    chosen = [
        name for name, values in zip(names[1:], of_main, strict=True) if interval(values)[0] > 0
    ]
    ranked = [names[1 + i] for i in np.argsort([-mean for mean in means], kind="stable")]
    reading = _reading(settings, means, cosines[0, 1:], chosen, ranked)
    return Answer(
        table,
        reading,
        {"gains": _draw_gains(names, gains), "cosines": _draw_cosines(names, cosines)},
        arrays={"affinity": {"gains": gains, "cosines": cosines, "names": np.array(names)}},
        texts={"those that help most first": "\n".join(ranked)},
    )


def gains_of(settings: AffinitySettings, records: list[Record]) -> np.ndarray:
    """What each task gains beside each other one, [n_tasks, n_tasks, n_seeds] in %.

    Of the task's best validation metric over epochs, so that both sides choose alike, whichever
    task chose the epoch of the training; see `relative_gain`. NaN where a pair was not trained.
    Row: who gains; column: from whom.
    """
    names = settings.names
    seeds = range(settings.seed, settings.seed + settings.seeds)
    by_row = {(record["row"], record["seed"]): record for record in records}
    gains = np.full((len(names), len(names), len(seeds)), np.nan)
    for i, name in enumerate(names):
        alone = [by_row.get((row_name(ALONE, name), seed)) for seed in seeds]
        before = np.array([np.nan if r is None else _validated(r, name) for r in alone])
        for j in range(len(names)):
            if i == j:
                continue
            row = row_name(PAIR, *(names[k] for k in sorted((i, j))))
            beside = [by_row.get((row, seed)) for seed in seeds]
            values = np.array([np.nan if r is None else _validated(r, name) for r in beside])
            if not np.isfinite(values - before).any():
                continue
            metric = next(r for r in beside if r is not None)["metrics"][name]
            gains[i, j] = relative_gain(metric, values, before)
    return gains


def _validated(record: Record, task: str) -> float:
    """The best validation metric of a task over the epochs of a training."""
    place, metric = list(record["test"]).index(task), record["metrics"][task]
    values = [epoch["validation"][place][metric] for epoch in record["epochs"]]
    known = [float(value) for value in values if value is not None]
    best = max if higher_is_better(metric) else min
    return best(known, default=np.nan)


def _line(main: str, other: str, gains: np.ndarray, cosine: float) -> dict[str, Any]:
    mean, sem = mean_and_sem(gains)
    low, high = interval(gains)
    values: dict[str, Any] = {
        "gain [%]": mean,
        "s.e.": sem,
        "from": low,
        "to": high,
        "cosine": cosine,
    }
    found = {name: finite(value) for name, value in values.items()}
    return {"task": main, "beside": other, **found}


def _reading(
    settings: AffinitySettings,
    means: list[float],
    cosines: np.ndarray,
    chosen: list[str],
    ranked: list[str],
) -> str:
    from scipy.stats import spearmanr

    n = settings.seeds
    best = max(range(len(means)), key=lambda i: means[i])
    sentences = [
        f"Over {n} seed{'s' if n > 1 else ''}, on validation images: '{settings.main}' gains most "
        f"beside '{settings.names[1 + best]}', {means[best]:+.1f} %."
    ]
    if n > 1:
        sentences.append(
            f"Beside {len(chosen)} of {len(means)} tasks the 95 % interval of its gain is above 0"
            + (f": {', '.join(chosen)}." if chosen else ".")
        )
    known = np.isfinite(cosines) & np.isfinite(means)
    if known.sum() > 2 and np.ptp(cosines[known]) and np.ptp(np.array(means)[known]):
        rho = float(spearmanr(cosines[known], np.array(means)[known]).statistic)
        sentences.append(
            f"The mean cosine with its gradient ranks these {int(known.sum())} tasks as the gains "
            f"do with Spearman's ρ = {rho:+.2f}."
        )
    sentences.append(
        f"Most helpful first: {', '.join(ranked)}. Of so many intervals {len(means) / 20:.1f} miss "
        "0 by chance."
    )
    return " ".join(sentences)


def _draw_gains(names: list[str], gains: np.ndarray) -> Plot:
    means = mean_and_sem(np.moveaxis(gains, 2, 0))[0]
    shown = means[np.isfinite(means).any(axis=1)]
    rows = [name for name, of_row in zip(names, means, strict=True) if np.isfinite(of_row).any()]
    figure, (axes,) = figure_of(
        1, width=2.5 + 0.45 * len(names), height=1.8 + 0.35 * max(3, len(rows))
    )
    most = float(np.nanmax(np.abs(shown))) if np.isfinite(shown).any() else 1.0
    draw_matrix(axes, shown, names, "gain [%]", most or 1.0, rows=rows)
    axes.set(xlabel="beside", ylabel="task")
    return Plot(
        figure,
        "What each task (row) gains in its validation metric beside each other one (column), "
        "relative to alone; means over seeds.",
    )


def _draw_cosines(names: list[str], cosines: np.ndarray) -> Plot:
    side = 2.0 + 0.45 * len(names)
    figure, (axes,) = figure_of(1, width=side + 0.8, height=side)
    draw_matrix(axes, cosines, names, "cosine of the gradients", 1.0)
    return Plot(
        figure,
        "Mean cosine of the tasks' gradients with respect to the shared parameters, all tasks "
        "trained together; over the first batches of all epochs and seeds.",
    )


STUDY = Study(
    "which tasks help the main task, and which agree with it?",
    AffinitySettings,
    cells,
    measure,
    answer,
    check,
    keeps_files=True,
    texts_title="Auxiliaries",
    words={
        "gain": "The relative difference in a task's best validation metric over the epochs, "
        "between its training beside one other task and its training alone, from the same seed "
        "and split, in %. Test images are not looked at, but those of one seed validate another; "
        "where a choice by gains is to be tested, set `test_split` or take other images. After "
        'Fifty et al. 2021, "Efficiently Identifying Task Groupings for Multi-Task Learning", who '
        "look ahead by one step instead of training every pair.",
        "cosine": "Of two tasks' gradients with respect to the parameters that all tasks share; "
        "Du et al. 2018.",
    },
)
