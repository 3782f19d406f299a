"""Where is the line between a task and noise? Class, attribute and random labelings compared."""

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from taskdisc.config import ImagesSettings, NamedProtocol, Settings
from taskdisc.errors import SettingError
from taskdisc.images.measures import MEASURES
from taskdisc.labelings import encode, random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import band, figure_of
from taskdisc.studies.estimates import interval, plus_minus
from taskdisc.studies.images import check_by_class, class_labelings, drawn
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study
from taskdisc.taskness.confirm import LEVEL
from taskdisc.taskness.protocol import protocol_from
from taskdisc.taskness.score import TrainedScorer, concatenated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_RANGE = 1e-6
"""Below it the amounts of an attribute differ by rounding alone."""

KINDS = ("class", "attribute", "random")


class RealVsRandomSettings(Settings):
    """The image sets, how many random labelings each has, and how labelings are scored."""

    images: ImagesSettings = ImagesSettings(n_classes=5, per_class=10)
    n_random: int = Field(15, ge=5)  # random labelings of each image set
    n_seeds: int = Field(3, ge=3)  # image sets
    protocol: NamedProtocol = protocol_from("stratified")
    seed: int = Field(0, ge=0)


def cells(settings: RealVsRandomSettings) -> list[Cell]:
    """One per image set.

    Raises:
        SettingError: the images are not drawn by class, or random labelings are too few.
    """
    check_by_class(settings.images, settings.protocol)
    if settings.n_random * (settings.n_seeds - 1) < 20:
        raise SettingError(
            "`n_random` times (`n_seeds` − 1) must be at least 20, for a 95 % quantile to mean "
            f"something, got {settings.n_random} times {settings.n_seeds - 1}; raise `n_random`."
        )
    return [{"seed": k} for k in range(settings.n_seeds)]


def measure(
    settings: RealVsRandomSettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Taskness of the class, attribute and random labelings of one image set."""
    k = cell["seed"]
    images = drawn(settings.images, seed=settings.images.seed + k)
    classes = class_labelings(images, settings.images.target)
    n_pos = int(next(iter(classes.values())).sum())
    pixels = np.asarray(images.images) / 255
    attributes = attribute_labelings(pixels, n_pos)
    rng = np.random.default_rng([settings.seed, k])
    random = random_labelings(settings.n_random, len(images), n_pos, rng)
    labelings = np.array([*classes.values(), *attributes.values(), *random])
    scorer = TrainedScorer(images, settings.protocol, settings.seed + k, pool)
    taskness = concatenated(list(scorer.score(labelings))).taskness.tolist()
    n_planned = len(classes) + len(attributes)
    return {
        "class": dict(zip(classes, taskness, strict=False)),
        "attribute": dict(zip(attributes, taskness[len(classes) :], strict=False)),
        "random": {str(i): value for i, value in enumerate(taskness[n_planned:])},
    }


def attribute_labelings(pixels: np.ndarray, n_pos: int) -> dict[str, np.ndarray]:
    """The labeling uint8 [n_images] of each attribute of pixels in [0, 1], [n_images, H, W, 3].

    Without attributes that the images do not differ in, as grey ones do not in their colours: ties
    would be broken by the order of the images, which is that of their classes.
    """
    amounts = {name: of(pixels) for name, of in MEASURES.items()}
    return {
        name: encode(amount, n_pos)
        for name, amount in amounts.items()
        if np.ptp(amount) > _LEAST_RANGE
    }


def answer(settings: RealVsRandomSettings, records: list[Record]) -> Answer:
    """Distributions of taskness, ROC and AUC of two kinds against the third, and error rates.

    T_task, the 95 % quantile of random labelings, is taken from all other image sets when the error
    rates of a set are counted.
    """
    scores = {kind: [np.array([*record[kind].values()]) for record in records] for kind in KINDS}
    areas = {
        kind: [auc(s, random) for s, random in zip(scores[kind], scores["random"], strict=True)]
        for kind in KINDS[:2]
    }
    thresholds = [_t_task(scores["random"], without=i) for i in range(len(records))]
    above = {
        kind: np.array([(s > t).mean() for s, t in zip(scores[kind], thresholds, strict=True)])
        for kind in KINDS
    }
    table = [
        {
            "seed": record["seed"],
            "kind": kind,
            "labeling": name,
            "taskness": value,
            "t_task": threshold,
            "above": value > threshold,
        }
        for record, threshold in zip(records, thresholds, strict=True)
        for kind in KINDS
        for name, value in record[kind].items()
    ]
    reading = _reading(scores, areas, above)
    return Answer(table, reading, {"real-vs-random": _draw(scores)})


def _t_task(random: list[np.ndarray], without: int | None = None) -> float:
    """The 95 % quantile of the random labelings of all image sets, or of all but one."""
    pooled = np.concatenate([scores for i, scores in enumerate(random) if i != without])
    return float(np.quantile(pooled, 1 - LEVEL))


def auc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Share of pairs in which the first is higher, ties half: 0.5 is chance, 1 is told apart."""
    higher = (positives[:, None] > negatives).mean()
    return float(higher + (positives[:, None] == negatives).mean() / 2)


def _reading(
    scores: dict[str, list[np.ndarray]],
    areas: dict[str, list[float]],
    above: dict[str, np.ndarray],
) -> str:
    n = len(scores["random"])
    means = {kind: plus_minus([s.mean() for s in sets]) for kind, sets in scores.items()}
    told = " and ".join(
        f"{np.mean(of_sets):.3f} [{low:.3f}, {min(high, 1):.3f}] for {kind} labelings"
        for kind, of_sets in areas.items()
        for low, high in [interval(of_sets)]
    )
    missed = " and ".join(
        f"{plus_minus(100 * (1 - above[kind]), 1)} % of the {kind} labelings" for kind in areas
    )
    return (
        f"Class labelings have a taskness of {means['class']}, attribute labelings of "
        f"{means['attribute']}, random ones of {means['random']}. Taskness tells them from random "
        f"labelings with an AUC of {told} (means of the image sets, 95 % intervals). T_task, the "
        f"{100 * (1 - LEVEL):.0f} % quantile of random labelings, is "
        f"{_t_task(scores['random']):.3f}; calibrated on all other image sets, it takes "
        f"{plus_minus(100 * above['random'], 1)} % of a set's random labelings for tasks and "
        f"misses {missed}. Means ± s.e. over {n} image sets with other classes, "
        f"{len(scores['random'][0])} random labelings each."
    )


def _draw(scores: dict[str, list[np.ndarray]]) -> Plot:
    figure, (left, right) = figure_of(2, width=5.0)
    _distributions(left, scores)
    rates = np.linspace(0, 1, 101)
    for kind in KINDS[:2]:
        curves = np.array(
            [roc(scores[kind][i], scores["random"][i], rates) for i in range(len(scores["random"]))]
        )
        band(right, rates, curves, f"{kind} labelings", markevery=10)
    right.plot([0, 1], [0, 1], ":", color="0.5", marker="", label="chance")
    right.axvline(LEVEL, color="0.4", linestyle="--", marker="", label="T_task")
    right.set(
        xlabel="share of random labelings above a line", ylabel="share of the others above it"
    )
    right.legend(loc="lower right")
    return Plot(
        figure,
        "Left: share of labelings whose taskness is at most that on the axis, by kind; dashed: "
        "T_task. Right: the share of class and attribute labelings above a line against that of "
        "random ones, as the line moves. Bands: ± s.e. over "
        f"{len(scores['random'])} image sets.",
    )


def _distributions(axes: "Axes", scores: dict[str, list[np.ndarray]]) -> None:
    every = np.concatenate([s for sets in scores.values() for s in sets])
    at = np.linspace(every.min() - 0.02, every.max() + 0.02, 200)
    for kind, sets in scores.items():
        shares = np.array([(s[:, None] <= at).mean(axis=0) for s in sets])
        band(axes, at, shares, f"{kind} labelings", markevery=20)
    threshold = _t_task(scores["random"])
    axes.axvline(threshold, color="0.4", linestyle="--", marker="", label="T_task")
    axes.set(xlabel="taskness", ylabel="share of labelings with at most this")
    axes.legend(loc="lower right")


def roc(positives: np.ndarray, negatives: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Share of positives above the line that a rate of the negatives is above, for each rate."""
    lines = np.quantile(negatives, 1 - rates)
    shares = (positives[:, None] > lines).mean(axis=0)
    # Below the lowest negative a line takes all.
    return np.where(rates >= 1, 1.0, shares)


STUDY = Study(
    "where is the line between a task and noise?",
    RealVsRandomSettings,
    cells,
    measure,
    answer,
    check=lambda settings: drawn(settings.images),
)
