"""How do data set size and class ratio matter? One class against the rest, at each of both."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from taskdisc.config import ImagesSettings, NamedProtocol, Settings
from taskdisc.errors import SettingError
from taskdisc.labelings import random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import band, figure_of
from taskdisc.studies.estimates import mean_and_sem, plus_minus, sign_of
from taskdisc.studies.images import check_folds, check_not_given, one_against_rest
from taskdisc.studies.study import ALL_IMAGES, Answer, Cell, Plot, Record, Study
from taskdisc.taskness.confirm import t_task
from taskdisc.taskness.score import TrainedScorer, concatenated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

LEAST_RANDOM = 3
"""Random labelings of a size and ratio whose spread can be told at all."""

ABOVE = "above"
VERDICTS = {1: ABOVE, 0: "undecided", -1: "below"}
"""Where the 95 % interval of taskness lies against T_task."""

SOURCE_IMAGES, SOURCE_RATIO = 400, 19
"""Beyond this ratio the source work finds generalisation lost, with this many images."""


class SizeRatioSettings(Settings):
    """The sizes and ratios that are crossed, and how each is scored."""

    images: ImagesSettings = ImagesSettings()
    sizes: tuple[Annotated[int, Field(ge=10)], ...] = Field((50, 100, 150), min_length=1)
    ratios: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 4, 9, 19), min_length=1)
    n_seeds: int = Field(3, ge=2)  # image sets, each of another draw, of each size and ratio
    n_random: int = Field(1, ge=1)  # random labelings of each image set
    protocol: NamedProtocol = replace(ALL_IMAGES, n_splits=2)
    seed: int = Field(0, ge=0)


def cells(settings: SizeRatioSettings) -> list[Cell]:
    """One per size, ratio and repeat, the largest sizes first.

    Sizes and ratios with fewer positives than `protocol.n_folds` are left out, for some folds would
    have none.

    Raises:
        SettingError: nothing is left, or too few random labelings to calibrate on.
    """
    check_not_given(settings.images, "n_images", "n_classes", "per_class")
    check_folds(settings.protocol, max(settings.sizes))
    if settings.n_seeds * settings.n_random < LEAST_RANDOM:
        raise SettingError(
            f"`n_seeds` times `n_random` must be at least {LEAST_RANDOM}, for the spread of random "
            f"labelings to be known, got {settings.n_seeds} times {settings.n_random}; raise "
            "`n_random`."
        )
    crossed = [
        {"n_images": n_images, "ratio": ratio, "seed": k}
        for n_images in sorted(set(settings.sizes), reverse=True)
        for ratio in sorted(set(settings.ratios))
        if positives_of(n_images, ratio) >= settings.protocol.n_folds
        for k in range(settings.n_seeds)
    ]
    if not crossed:
        raise SettingError(
            "`sizes` must leave some `ratios` with as many positives as `protocol.n_folds` = "
            f"{settings.protocol.n_folds}, got {list(settings.sizes)} with {list(settings.ratios)};"
            " take more images."
        )
    return crossed


def _check(settings: SizeRatioSettings) -> None:
    for n_images, ratio in {(cell["n_images"], cell["ratio"]) for cell in cells(settings)}:
        n_pos = positives_of(n_images, ratio)
        most = _most_positives(settings)
        one_against_rest(settings.images, n_pos, n_images - n_pos, settings.images.seed, most)


def _most_positives(settings: SizeRatioSettings) -> int:
    return max(positives_of(cell["n_images"], cell["ratio"]) for cell in cells(settings))


def positives_of(n_images: int, ratio: int) -> int:
    """Positives of `n_images` images at 1:`ratio`, to the nearest whole number."""
    return round(n_images / (ratio + 1))


def measure(
    settings: SizeRatioSettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Taskness of one class against the rest, and of random labelings of the same images."""
    n_images, k = cell["n_images"], cell["seed"]
    n_pos = positives_of(n_images, cell["ratio"])
    images, labeling = one_against_rest(
        settings.images,
        n_pos,
        n_images - n_pos,
        settings.images.seed + k,
        _most_positives(settings),
    )
    rng = np.random.default_rng([settings.seed, k, n_images, n_pos])
    labelings = np.vstack([labeling, random_labelings(settings.n_random, n_images, n_pos, rng)])
    scorer = TrainedScorer(images, settings.protocol, settings.seed + k, pool)
    taskness = concatenated(list(scorer.score(labelings))).taskness
    return {
        "n_positives": n_pos,
        "taskness": float(taskness[0]),
        "random": taskness[1:].tolist(),
    }


def answer(settings: SizeRatioSettings, records: list[Record]) -> Answer:
    """Taskness per size and ratio, beside the threshold of random labelings of the same.

    T_task is what 5 % of random labelings of that size and ratio exceed, by the spread of those
    that were scored; taskness is above it where the 95 % interval over the repeats is.
    """
    groups: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record["n_images"], record["ratio"]), []).append(record)
    table = [_row(n_images, ratio, group) for (n_images, ratio), group in sorted(groups.items())]
    values = {
        where: [record["taskness"] for record in group] for where, group in sorted(groups.items())
    }
    plot = _draw(table, values, settings)
    return Answer(table, _reading(table, values), {"size-ratio": plot})


def _row(n_images: int, ratio: int, group: list[Record]) -> dict[str, Any]:
    taskness = np.array([record["taskness"] for record in group])
    random = np.concatenate([record["random"] for record in group])
    threshold = t_task(random)
    mean, sem = mean_and_sem(taskness)
    return {
        "n_images": n_images,
        "ratio": ratio,
        "n_positives": group[0]["n_positives"],
        "taskness_mean": float(mean),
        "taskness_sem": float(sem),
        "random_mean": float(random.mean()),
        "random_sd": float(random.std(ddof=1)),
        "n_random": len(random),
        "threshold": threshold,
        "verdict": VERDICTS[sign_of(taskness - threshold)],
        "share_above": float((taskness > threshold).mean()),
        "n_seeds": len(group),
    }


def boundary(rows: list[dict[str, Any]]) -> int | None:
    """The last ratio, upward from the lowest, before taskness is no longer above T_task."""
    last = None
    for row in rows:
        if row["verdict"] != ABOVE:
            break
        last = row["ratio"]
    return last


def _reading(table: list[dict[str, Any]], values: dict[tuple[int, int], list[float]]) -> str:
    sizes = list(dict.fromkeys(row["n_images"] for row in table))
    by_size = {size: [row for row in table if row["n_images"] == size] for size in sizes}
    first = table[0]
    return (
        "Going up in the class ratio, one class against the rest is clearly above T_task up to "
        + "; ".join(_of_size(size, rows, values) for size, rows in by_size.items())
        + f" (mean ± s.e. over {first['n_seeds']} image sets each; clearly: by a 95 % interval; "
        f"T_task by {first['n_random']} random labelings of each size and ratio). "
        + _beside_the_source(by_size.get(SOURCE_IMAGES), values)
    )


def _of_size(
    size: int, rows: list[dict[str, Any]], values: dict[tuple[int, int], list[float]]
) -> str:
    edge = boundary(rows)
    if edge is None:
        return f"no ratio at {size} images ({_against(rows[0], values)} at 1:{rows[0]['ratio']})"
    at = next(i for i, row in enumerate(rows) if row["ratio"] == edge)
    text = f"1:{edge} at {size} images ({_against(rows[at], values)}"
    if at + 1 < len(rows):
        beyond = rows[at + 1]
        return f"{text}; {beyond['verdict']} at 1:{beyond['ratio']}, {_against(beyond, values)})"
    return f"{text}; the largest ratio measured)"


def _against(row: dict[str, Any], values: dict[tuple[int, int], list[float]]) -> str:
    taskness = plus_minus(values[row["n_images"], row["ratio"]])
    return f"{taskness} against {row['threshold']:.3f}"


def _beside_the_source(
    rows: list[dict[str, Any]] | None, values: dict[tuple[int, int], list[float]]
) -> str:
    found = (
        f"The source work finds generalisation lost beyond 1:{SOURCE_RATIO} at {SOURCE_IMAGES} "
        "images"
    )
    beyond = [row for row in rows or [] if row["ratio"] > SOURCE_RATIO]
    if not beyond:
        return f"{found}, which was not measured here."
    measured = " and ".join(
        f"{row['verdict']} at 1:{row['ratio']} ({_against(row, values)})" for row in beyond
    )
    return f"{found}; there it is {measured} here."


def _draw(
    table: list[dict[str, Any]],
    values: dict[tuple[int, int], list[float]],
    settings: SizeRatioSettings,
) -> Plot:
    figure, (left, right) = figure_of(2, width=6.4, height=4.4)
    sizes = sorted({row["n_images"] for row in table})
    ratios = sorted(set(settings.ratios))
    figure.colorbar(_map(left, table, sizes, ratios), ax=left, label="taskness (mean)")
    _curves(right, values, sizes)
    return Plot(
        figure,
        "Left: taskness of one class against the rest, mean ± s.e.; hatched, beyond the thick "
        "line: not clearly (by a 95 % interval) above T_task, which 5 % of random ones exceed; "
        f"blank: fewer positives than the {settings.protocol.n_folds} folds. Right: the same "
        f"against the ratio. Bands: ± one standard error over {settings.n_seeds} image sets, each "
        "with another class.",
    )


def _map(
    axes: "Axes", table: list[dict[str, Any]], sizes: list[int], ratios: list[int]
) -> "AxesImage":
    """Draw the values of a table, those that fall short, and the boundary between them."""
    from matplotlib.patches import Rectangle

    colours = np.full((len(sizes), len(ratios)), np.nan)
    above = np.full(colours.shape, np.nan)
    top = max(0.2, *(row["taskness_mean"] for row in table))
    for row in table:
        i, j = sizes.index(row["n_images"]), ratios.index(row["ratio"])
        colours[i, j], above[i, j] = row["taskness_mean"], row["verdict"] == ABOVE
        if not above[i, j]:
            hatched = Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="//", lw=0, ec="0.6")
            axes.add_patch(hatched)
        axes.text(
            j,
            i,
            f"{row['taskness_mean']:.2f}\n±{row['taskness_sem']:.2f}",
            ha="center",
            va="center",
            color="white" if row["taskness_mean"] > 0.55 * top else "black",
            fontsize=9,
        )
    for i, j in np.argwhere(above[:, 1:] + above[:, :-1] == 1):
        axes.plot([j + 0.5] * 2, [i - 0.5, i + 0.5], "-", color="black", lw=3, marker="")
    for i, j in np.argwhere(above[1:] + above[:-1] == 1):
        axes.plot([j - 0.5, j + 0.5], [i + 0.5] * 2, "-", color="black", lw=3, marker="")
    axes.grid(visible=False)
    axes.set(xlabel="class ratio", ylabel="images")
    axes.set_xticks(range(len(ratios)), [f"1:{ratio}" for ratio in ratios])
    axes.set_yticks(range(len(sizes)), [str(size) for size in sizes])
    return axes.imshow(colours, cmap="Blues", vmin=0, vmax=top, aspect="auto", origin="lower")


def _curves(axes: "Axes", values: dict[tuple[int, int], list[float]], sizes: list[int]) -> None:
    from matplotlib import colormaps

    colours = colormaps["viridis"](np.linspace(0.85, 0, len(sizes)))
    for size, colour in zip(sizes, colours, strict=True):
        ratios = [ratio for n_images, ratio in values if n_images == size]
        taskness = np.array([values[size, ratio] for ratio in ratios]).T
        band(axes, ratios, taskness, f"{size} images", color=colour)
    every = sorted({ratio for _, ratio in values})
    axes.set_xscale("log")
    axes.set_xticks(every, [f"1:{ratio}" for ratio in every])
    axes.minorticks_off()
    axes.axhline(0, color="0.5", linewidth=1, linestyle="-", marker="")
    axes.set(xlabel="class ratio", ylabel="taskness")
    axes.legend()


STUDY = Study(
    "how do data set size and class ratio matter?",
    SizeRatioSettings,
    cells,
    measure,
    answer,
    check=_check,
)
