"""Seeing what was propagated: images of each task, and how far its confidence can be trusted."""

from typing import TYPE_CHECKING

import numpy as np

from taskdisc.discovery.propagate import Propagated
from taskdisc.images.contact_sheet import contact_sheet
from taskdisc.labelings import evenly
from taskdisc.names import shortened
from taskdisc.report.pictures import png
from taskdisc.taskness.propagation import reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TASKS = 16
"""Tasks that are pictured, the first of the file."""

PER_ROW = 14
"""Images in a row."""

ROWS = ("yes in the run", "surest yes", "surest no", "least sure")
"""What the rows of a task show, from the top."""


def shown(propagated: Propagated, task: int) -> list[np.ndarray]:
    """Positions of the images in each of `ROWS`, at most `PER_ROW`, for one task."""
    positives = np.flatnonzero(propagated.tasks.labelings[task])
    probability = propagated.result.probability[task]
    others = propagated.places.others
    rising = others[np.argsort(probability, kind="stable")]
    sureness = np.argsort(np.abs(probability - 0.5), kind="stable")
    return [
        propagated.places.of_run[evenly(positives.tolist(), PER_ROW)],
        rising[::-1][:PER_ROW],
        rising[:PER_ROW],
        others[sureness[:PER_ROW]],
    ]


def picture(propagated: Propagated) -> bytes:
    """A `.png`: per task its images by `ROWS`, and its reliability diagram."""
    from matplotlib.figure import Figure

    rows = propagated.rows[:MOST_TASKS]
    figure = Figure(figsize=(10.5, 2.9 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 2, squeeze=False, width_ratios=(3.4, 1))
    for task, (row, (left, right)) in enumerate(zip(rows, grid, strict=True)):
        _images(left, propagated, task)
        sense = "" if row["sensible"] else "not "
        left.set_title(
            f"{shortened(row['task'])}: {sense}sensible, "
            f"expected kappa {row['expected_kappa']:.3f} "
            f"(random labelings up to {row['limit']:.3f})",
            loc="left",
            fontsize=10,
        )
        _diagram(right, propagated, task)
        right.set_title(
            f"calibration error {row['calibration_error']:.3f}\n"
            f"({row['calibration_by_chance']:.3f} by chance alone)",
            fontsize=9,
        )
    return png(figure, dpi=110)


def _images(axes: "Axes", propagated: Propagated, task: int) -> None:
    images = propagated.images.images
    rows = np.full((len(ROWS), PER_ROW, *images.shape[1:]), 255, dtype=np.uint8)
    for row, positions in zip(rows, shown(propagated, task), strict=True):
        row[: len(positions)] = images[positions]
    sheet = contact_sheet(rows.reshape(-1, *images.shape[1:]), PER_ROW, scale=2)
    axes.imshow(sheet)
    height = sheet.shape[0] / len(ROWS)
    axes.set_yticks([height * (i + 0.5) for i in range(len(ROWS))], ROWS)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _diagram(axes: "Axes", propagated: Propagated, task: int) -> None:
    """Share of yes among the run's images by their probability, out of fold, with its error."""
    said, right, n = reliability(
        propagated.result.out_of_fold[task], propagated.tasks.labelings[task]
    )
    axes.plot([0, 1], [0, 1], color="#7f7f7f", linewidth=1, linestyle=":")
    error = np.sqrt(said * (1 - said) / n)
    axes.errorbar(said, right, yerr=error, color="#0b3c6f", marker="o", markersize=4, linewidth=1)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel("probability of yes", fontsize=9)
    axes.set_ylabel("share of yes", fontsize=9)
    axes.grid(alpha=0.3)
