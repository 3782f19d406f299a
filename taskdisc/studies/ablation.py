"""What share of a task's labels can be wrong before it can no longer be discovered?"""

from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from taskdisc.config import ImagesSettings, NamedProtocol, Settings
from taskdisc.errors import SettingError
from taskdisc.labelings import random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import band, plot
from taskdisc.studies.estimates import mean_and_sem, plus_minus, sign_of
from taskdisc.studies.images import check_by_class, class_labelings, drawn
from taskdisc.studies.study import ALL_IMAGES, Answer, Cell, Plot, Record, Study
from taskdisc.taskness.confirm import LEVEL, t_task
from taskdisc.taskness.score import TrainedScorer, concatenated

TOLERANCE_OF_SOURCE = 0.2
"""The ablation within which the source work takes two labelings for the same task."""

MOST_CURVES = 5
"""Ablations whose validation curves are drawn."""

RANDOM = "random"


class AblationSettings(Settings):
    """How many labels are made wrong, and of which class labelings."""

    images: ImagesSettings = ImagesSettings(n_classes=4, per_class=20)
    ablations: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0), min_length=2
    )
    n_draws: int = Field(1, ge=1)  # draws of wrong labels per ablation
    n_random: int = Field(10, ge=5)  # random labelings per repeat, for T_task
    n_seeds: int = Field(3, ge=2)
    protocol: NamedProtocol = ALL_IMAGES
    seed: int = Field(0, ge=0)

    @field_validator("ablations")
    @classmethod
    def _rising(cls, ablations: tuple[float, ...]) -> tuple[float, ...]:
        if ablations[0] != 0 or list(ablations) != sorted(set(ablations)):
            raise SettingError(
                "`ablations` must begin with 0, the right labels, and rise, got "
                f"{list(ablations)}; give them as in [0, 0.1, 0.2]."
            )
        return ablations


def cells(settings: AblationSettings) -> list[Cell]:
    """The random labelings of every repeat, which are many, then every ablation of it."""
    check_by_class(settings.images, settings.protocol)
    return [
        {"seed": number, "ablation": ablation}
        for ablations in ((RANDOM,), settings.ablations)
        for number in range(settings.n_seeds)
        for ablation in ablations
    ]


def measure(
    settings: AblationSettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Taskness of every labeling of the cell, and their mean validation cross-entropy [nats].

    All labelings of a repeat are of the same images, splits and initialisations.
    """
    number = cell["seed"]
    images = drawn(settings.images, seed=settings.images.seed + number)
    name, labeling = next(iter(class_labelings(images, settings.images.target).items()))
    if cell["ablation"] == RANDOM:
        rng = np.random.default_rng([settings.seed, number])
        labelings = random_labelings(settings.n_random, len(images), int(labeling.sum()), rng)
    else:
        # The same generator for all ablations, so that a higher one adds wrong labels to a lower.
        draws = [np.random.default_rng([settings.seed, number, i]) for i in range(settings.n_draws)]
        labelings = np.array([ablated(labeling, cell["ablation"], rng) for rng in draws])
    scorer = TrainedScorer(images, settings.protocol, settings.seed + number, pool)
    scores = concatenated(list(scorer.score(labelings)))
    return {
        "class": name,
        "taskness": scores.taskness.tolist(),
        "validation": scores.validation.mean(axis=(0, 1)).round(5).tolist(),
    }


def ablated(labeling: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A labeling [n_images] with a share of its positives exchanged for as many negatives.

    Generators in the same state exchange the same images first.
    """
    positives = rng.permutation(np.flatnonzero(labeling == 1))
    negatives = rng.permutation(np.flatnonzero(labeling == 0))
    n_exchanged = round(share * len(positives))
    wrong = labeling.copy()
    wrong[positives[:n_exchanged]] = 0
    wrong[negatives[:n_exchanged]] = 1
    return wrong


def tolerance(ablations: np.ndarray, taskness: np.ndarray, threshold: float) -> float:
    """The ablation at which taskness [n_ablations] first falls to a threshold, from 0 upward.

    Between two ablations it is taken to be linear. 0 where the right labels are no task either,
    the last ablation where all are above.
    """
    lost = np.flatnonzero(taskness <= threshold)
    if not len(lost):
        return float(ablations[-1])
    if lost[0] == 0:
        return 0.0
    low, high = lost[0] - 1, lost[0]
    share = (taskness[low] - threshold) / (taskness[low] - taskness[high])
    return float(ablations[low] + share * (ablations[high] - ablations[low]))


def answer(settings: AblationSettings, records: list[Record]) -> Answer:
    """Taskness against ablation, T_task, and the ablation where the one falls to the other."""
    assert settings.images.per_class is not None
    n_pos = settings.images.per_class
    # What was exchanged, which is whole images.
    ablations = np.array([round(a * n_pos) / n_pos for a in settings.ablations])
    found = {(record["seed"], record["ablation"]): record for record in records}
    repeats = range(settings.n_seeds)
    taskness = np.array(
        [[np.mean(found[k, a]["taskness"]) for a in settings.ablations] for k in repeats]
    )
    random = np.array([found[k, RANDOM]["taskness"] for k in repeats])
    thresholds = np.array([t_task(scores) for scores in random])
    tolerances = np.array([tolerance(ablations, taskness[k], thresholds[k]) for k in repeats])
    share = _random_ablation(settings)
    table = [
        _row("class", 100 * ablation, taskness[:, i], thresholds)
        for i, ablation in enumerate(ablations)
    ]
    table.append(_row(RANDOM, 100 * share, random.mean(axis=1), thresholds))
    plots = {
        "taskness": _draw_taskness(ablations, taskness, random, thresholds, tolerances, share),
        "validation": _draw_curves(settings, found),
    }
    reading = _reading(settings, ablations, taskness, random, thresholds, tolerances)
    return Answer(table, reading, plots)


def _random_ablation(settings: AblationSettings) -> float:
    """Expected ablation of a random labeling: the share of negatives."""
    assert settings.images.n_classes is not None
    return 1 - 1 / settings.images.n_classes


def _row(
    labelings: str, ablation: float, taskness: np.ndarray, thresholds: np.ndarray
) -> dict[str, Any]:
    (mean, sem), (margin, margin_sem) = map(mean_and_sem, (taskness, taskness - thresholds))
    return {
        "labelings": labelings,
        "ablation_percent": ablation,
        "repeats": len(taskness),
        "taskness": float(mean),
        "taskness_sem": float(sem),
        "t_task": float(thresholds.mean()),
        "margin": float(margin),
        "margin_sem": float(margin_sem),
        "repeats_above": int((taskness > thresholds).sum()),
    }


def _reading(
    settings: AblationSettings,
    ablations: np.ndarray,
    taskness: np.ndarray,
    random: np.ndarray,
    thresholds: np.ndarray,
    tolerances: np.ndarray,
) -> str:
    n, last = len(tolerances), ablations[-1]
    n_never = int((taskness[:, 0] <= thresholds).sum())
    n_always = int((taskness > thresholds[:, None]).all(axis=1).sum())
    mean_curve = tolerance(ablations, taskness.mean(axis=0), thresholds.mean())
    counted = [
        f"{n_never} of the classes are no task with the right labels either and count as 0"
        if n_never
        else "",
        f"{n_always} are still a task at {100 * last:.0f} % and count as that" if n_always else "",
    ]
    aside = "; ".join(words for words in counted if words)
    side = {1: "above", -1: "below", 0: "not to be told from"}[
        sign_of(tolerances - TOLERANCE_OF_SOURCE)
    ]
    return (
        f"A class of {settings.images.per_class} images against "
        f"{(settings.images.n_classes or 0) - 1} others stays above T_task until "
        f"{plus_minus(100 * tolerances, 1)} % of its positives are wrong (± s.e. over {n} repeats "
        f"with other classes and images{'; ' + aside if aside else ''}). That is {side} the "
        f"tolerance of {100 * TOLERANCE_OF_SOURCE:.0f} % that the source work picks. The "
        f"mean curve falls to T_task at {100 * mean_curve:.0f} %. Taskness is "
        f"{plus_minus(taskness[:, 0])} with the right labels and {plus_minus(taskness[:, -1])} "
        f"with {100 * last:.0f} % wrong ones; T_task is "
        f"{plus_minus(thresholds)}, what {100 * LEVEL:.0f} % of random labelings exceed by "
        f"{settings.n_random} of them a repeat, "
        f"whose own expected ablation is {100 * _random_ablation(settings):.0f} % and mean "
        f"taskness {plus_minus(random.mean(axis=1))}."
    )


def _draw_taskness(
    ablations: np.ndarray,
    taskness: np.ndarray,
    random: np.ndarray,
    thresholds: np.ndarray,
    tolerances: np.ndarray,
    random_ablation: float,
) -> Plot:
    figure, axes = plot("positives that are wrong [%]", "taskness")
    band(axes, 100 * ablations, taskness, "class labeling, ablated")
    ends = 100 * ablations[[0, -1]]
    band(axes, ends, np.tile(thresholds[:, None], 2), "T_task", marker="", color="0.4")
    mean, sem = map(float, mean_and_sem(random.mean(axis=1)))
    axes.errorbar(
        100 * random_ablation,
        mean,
        yerr=sem,
        label="random labelings",
        linestyle="",
        marker="s",
        color="0.2",
        capsize=3,
    )
    mean, sem = map(float, mean_and_sem(100 * tolerances))
    axes.axvspan(mean - sem, mean + sem, color="0.6", alpha=0.2, linewidth=0)
    axes.axvline(mean, color="0.4", linestyle="-.", marker="", label="tolerance")
    axes.axvline(
        100 * TOLERANCE_OF_SOURCE,
        color="0.4",
        linestyle=":",
        marker="",
        label="tolerance of the source work",
    )
    axes.legend(fontsize="small", loc="upper right")
    return Plot(
        figure,
        "Taskness of a class labeling of which a share of the positives is exchanged for random "
        f"negatives. Bands and bars: ± s.e. over {len(taskness)} repeats with other classes and "
        "images. T_task and the tolerance are taken in each repeat by itself, so the mean "
        "tolerance need not be where the mean curves cross. Random labelings stand at the ablation "
        "that is expected of them; beyond it, a labeling avoids the class.",
    )


def _draw_curves(settings: AblationSettings, found: dict[tuple[int, float | str], Record]) -> Plot:
    from matplotlib import colormaps

    from taskdisc.studies.drawing import MARKERS

    figure, axes = plot("training step", "validation cross-entropy [nats]")
    n = len(settings.ablations)
    shown = np.unique(np.linspace(0, n - 1, min(n, MOST_CURVES)).round().astype(int))
    for rank, ablation in enumerate([*(settings.ablations[i] for i in shown), RANDOM]):
        curves = np.array(
            [found[k, ablation]["validation"] for k in range(settings.n_seeds)], dtype=float
        )
        steps = np.arange(curves.shape[1])
        style = {"marker": MARKERS[rank], "markevery": max(1, len(steps) // 8), "linestyle": "-"}
        if ablation == RANDOM:
            style |= {"color": "0.3", "linestyle": "--", "marker": ""}
            band(axes, steps, curves, "random labelings", **style)
        else:
            style["color"] = colormaps["viridis"](0.9 * rank / max(1, len(shown) - 1))
            band(axes, steps, curves, f"{100 * float(ablation):.0f} % wrong", **style)
    axes.legend(fontsize="small")
    return Plot(
        figure,
        "Validation curves of a class labeling by the share of its positives that is wrong, and of "
        f"random labelings. Bands: ± s.e. over {settings.n_seeds} repeats with other classes and "
        "images.",
    )


STUDY = Study(
    "what share of a task's labels can be wrong before it can no longer be discovered?",
    AblationSettings,
    cells,
    measure,
    answer,
    check=lambda settings: drawn(settings.images),
)
