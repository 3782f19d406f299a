"""Which classes generalise? Each class against the others, beside networks that see nothing."""

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from taskdisc.config import ImagesSettings, NamedProtocol, Settings
from taskdisc.errors import SettingError
from taskdisc.images import ImageSet
from taskdisc.labelings import random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import band, figure_of, plot
from taskdisc.studies.estimates import finite, mean_and_sem, plus_minus, sign_of
from taskdisc.studies.images import check_by_class, class_labelings, drawn, of_classes
from taskdisc.studies.study import ALL_IMAGES, Answer, Cell, Plot, Record, Study
from taskdisc.taskness.confirm import LEVEL, t_task
from taskdisc.taskness.protocol import Protocol
from taskdisc.taskness.score import TrainedScorer, all_splits, concatenated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 8
"""Classes whose curves are drawn."""

CURVES = {
    "training": ("training", "--"),
    "validation": ("validation", "-"),
    "blind": ("blind baseline", "-."),
    "informed": ("informed baseline", ":"),
}
"""By name in the records: what a curve is called, and its line."""


class BaselineSettings(Settings):
    """The classes, how many images of each, and how their labelings are scored."""

    images: ImagesSettings = ImagesSettings(n_classes=4, per_class=20)
    # These in every repeat, of other images; without them every repeat draws `images.n_classes`.
    classes: tuple[str, ...] = ()
    n_random: int = Field(10, ge=5)  # random labelings per repeat, for T_task
    n_seeds: int = Field(3, ge=2)
    protocol: NamedProtocol = ALL_IMAGES
    seed: int = Field(0, ge=0)

    @field_validator("classes")
    @classmethod
    def _different(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((name for name in classes if classes.count(name) > 1), None)
        if twice is not None:
            raise SettingError(f"`classes` must be different classes, got {twice!r} twice.")
        return classes


def cells(settings: BaselineSettings) -> list[Cell]:
    """One per repeat."""
    n_classes = len(settings.classes) or settings.images.n_classes
    check_by_class(settings.images.model_copy(update={"n_classes": n_classes}), settings.protocol)
    return [{"seed": number} for number in range(settings.n_seeds)]


def measure(
    settings: BaselineSettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Taskness of every class and of random labelings, and the classes' curves.

    Curves are cross-entropy [nats] after every step, means over the splits; the informed baseline
    is a constant.
    """
    number = cell["seed"]
    images = _images_of(settings, number)
    labelings = class_labelings(images, settings.images.target)
    classes = np.array(list(labelings.values()))
    rng = np.random.default_rng([settings.seed, number])
    n_pos = int(classes[0].sum())
    random = random_labelings(settings.n_random, len(images), n_pos, rng)
    seed = settings.seed + number
    scorer = TrainedScorer(images, settings.protocol, seed, pool)
    scores = concatenated(list(scorer.score(np.concatenate([classes, random]))))
    informed, blind = _baselines(classes, settings.protocol, seed)
    by_class = [
        {
            "class": name,
            "taskness": float(scores.taskness[i]),
            "training": scores.training[i].mean(axis=0).round(5).tolist(),
            "validation": scores.validation[i].mean(axis=0).round(5).tolist(),
            "blind": blind[i].round(5).tolist(),
            "informed": round(float(informed[i]), 5),
        }
        for i, name in enumerate(labelings)
    ]
    return {"classes": by_class, "random": scores.taskness[len(classes) :].tolist()}


def answer(settings: BaselineSettings, records: list[Record]) -> Answer:
    """Taskness of every class against T_task of the same repeat, and the curves beside it."""
    thresholds = np.array([t_task(record["random"]) for record in records])
    margins: dict[str, dict[int, float]] = {}  # of each class, by repeat
    for number, record in enumerate(records):
        for one in record["classes"]:
            margins.setdefault(one["class"], {})[number] = one["taskness"] - thresholds[number]
    table = [_row(name, by_repeat, thresholds) for name, by_repeat in margins.items()]
    table.sort(key=lambda row: -row["margin"])
    reading = _reading(settings, records, table, margins, thresholds)
    plots = {
        "curves": _draw_curves(settings, records),
        "taskness": _draw_taskness(table, thresholds),
    }
    return Answer(table, reading, plots)


def _images_of(settings: BaselineSettings, number: int) -> ImageSet:
    seed = settings.images.seed + number
    if not settings.classes:
        return drawn(settings.images, seed=seed)
    assert settings.images.per_class is not None
    return of_classes(settings.images, settings.classes, settings.images.per_class, seed)


def _baselines(
    labelings: np.ndarray, protocol: Protocol, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means over the very splits that were trained on: informed [n], blind [n, n_steps + 1]."""
    from taskdisc.taskness.baselines import blind_curves, informed

    splits = all_splits(protocol, labelings, seed)
    n_steps = protocol.steps(labelings.shape[1])
    constant = informed(splits.labels, splits.validation)
    blind = blind_curves(splits.labels, splits.validation, splits.seeds, n_steps, protocol.lr)
    shape = (len(labelings), protocol.n_splits)
    return constant.reshape(shape).mean(axis=1), blind.reshape(*shape, -1).mean(axis=1)


def _row(name: str, margins: dict[int, float], thresholds: np.ndarray) -> dict[str, Any]:
    numbers = list(margins)
    margin = np.array(list(margins.values()))
    (taskness, taskness_sem), (mean, sem) = map(
        mean_and_sem, (margin + thresholds[numbers], margin)
    )
    return {
        "class": name,
        "repeats": len(numbers),
        "taskness": float(taskness),
        "taskness_sem": finite(taskness_sem),
        "t_task": float(thresholds[numbers].mean()),
        "margin": float(mean),
        "margin_sem": finite(sem),
        "repeats_above": int((margin > 0).sum()),
    }


def _reading(
    settings: BaselineSettings,
    records: list[Record],
    table: list[dict[str, Any]],
    margins: dict[str, dict[int, float]],
    thresholds: np.ndarray,
) -> str:
    n, n_classes = len(records), len(records[0]["classes"])
    against = (
        f"T_task, what {100 * LEVEL:.0f} % of random labelings exceed by {settings.n_random} of "
        f"them on the same images, is {plus_minus(thresholds)}"
    )
    if not settings.classes:
        over = _per_repeat(records) - thresholds
        above = sum(row["repeats_above"] for row in table)
        return (
            f"In {n} repeats with {n_classes} other classes each, {above} of {n * n_classes} "
            f"class labelings exceed T_task. Their taskness is {plus_minus(_per_repeat(records))}, "
            f"{plus_minus(over)} over T_task (± s.e. over the {n} repeats); {against}. Highest: "
            f"'{table[0]['class']}', {table[0]['margin']:+.3f}; lowest: '{table[-1]['class']}', "
            f"{table[-1]['margin']:+.3f}."
        )
    groups = {
        1: "clearly exceed T_task",
        0: "cannot be told from T_task",
        -1: "clearly stay below T_task",
    }
    said = []
    for sign, how in groups.items():
        rows = [row for row in table if sign_of(list(margins[row["class"]].values())) == sign]
        said += [f"{_margins(rows)} {how}"] if rows else []
    return (
        f"{'; '.join(said)} (by 95 % intervals; taskness less T_task, ± s.e. over {n} "
        f"repeats with other images and splits); {against}."
    )


def _margins(rows: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"'{row['class']}' ({row['margin']:+.3f} ± {row['margin_sem']:.3f})" for row in rows
    )


def _per_repeat(records: list[Record], name: str = "taskness") -> np.ndarray:
    """Means over the classes of every repeat, of a number or a curve."""
    means = [np.mean([one[name] for one in record["classes"]], axis=0) for record in records]
    return np.array(means)


def _draw_curves(settings: BaselineSettings, records: list[Record]) -> Plot:
    shown = settings.classes[:MOST_PANELS]
    whose = "Every class against the others"
    if shown:
        figure, panels = figure_of(len(shown), width=3.2, height=2.8, share_y=True, columns=4)
        for number, (axes, name) in enumerate(zip(panels, shown, strict=True)):
            one = {
                curve: np.array([record["classes"][number][curve] for record in records])
                for curve in CURVES
            }
            _draw_panel(axes, one)
            axes.set_title(name)
        if len(settings.classes) > len(shown):
            whose = f"The first {len(shown)} of {len(settings.classes)} classes, each against all"
    else:
        figure, panels = figure_of()
        _draw_panel(panels[0], {curve: _per_repeat(records, curve) for curve in CURVES})
        whose = "Mean over the classes that a repeat draws, each against the others"
    for number, axes in enumerate(panels):
        axes.set(xlabel="training step", ylabel="" if number % 4 else "cross-entropy [nats]")
    panels[0].legend(fontsize="small" if shown else None)
    return Plot(figure, f"{whose}. Bands: ± s.e. over {len(records)} repeats.")


def _draw_panel(axes: "Axes", curves: dict[str, np.ndarray]) -> None:
    """Draw curves [n_repeats, n_steps + 1] by name; the constant one [n_repeats] as a line."""
    x = np.arange(curves["validation"].shape[1])
    for name, (label, line) in CURVES.items():
        values = curves[name] if curves[name].ndim == 2 else curves[name][:, None] + 0.0 * x
        band(axes, x, values, label, linestyle=line, marker="")


def _draw_taskness(table: list[dict[str, Any]], thresholds: np.ndarray) -> Plot:
    figure, axes = plot("class", "taskness")
    x = np.arange(len(table))
    bars = [row["taskness_sem"] or 0.0 for row in table]
    axes.errorbar(x, [row["taskness"] for row in table], yerr=bars, linestyle="", capsize=3)
    axes.set_xticks(x, [row["class"] for row in table], rotation=45 if len(table) > 6 else 0)
    ends = np.array([-0.5, len(table) - 0.5])
    band(
        axes,
        ends,
        thresholds[:, None] + 0.0 * ends,
        "T_task",
        linestyle="--",
        marker="",
        color="0.4",
    )
    axes.set_xlim(*ends)
    axes.legend()
    return Plot(
        figure,
        f"Taskness of every class against the others. Bars and band: ± s.e. over {len(thresholds)} "
        "repeats; a class that only one repeat drew has no bar.",
    )


STUDY = Study(
    "which classes generalise?",
    BaselineSettings,
    cells,
    measure,
    answer,
    check=lambda settings: _images_of(settings, 0),
)
