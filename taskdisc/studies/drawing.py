"""How studies draw: one style, told apart without colour, and bands that show the spread."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from taskdisc.studies.estimates import mean_and_sem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

COLOURS = ("#0b3c6f", "#d2691e", "#2e8b57", "#8e5ea2", "#7f7f7f", "#00a0b0", "#b8860b", "#c2185b")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Cycled together, so that curves differ by line and marker where a print has no colour."""


def figure_of(
    n: int = 1,
    *,
    width: float = 6.0,
    height: float = 4.0,
    share_y: bool = False,
    columns: int | None = None,
) -> "tuple[Figure, list[Axes]]":
    """A figure with `n` plots, each `width` by `height` inches, in rows of `columns` or in one."""
    from matplotlib.figure import Figure

    columns = min(columns or n, n)
    rows = -(-n // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel()
    axes = list(grid[:n])
    for axis in grid[n:]:
        axis.remove()
    for axis in axes:
        axis.set_prop_cycle(color=COLOURS, linestyle=LINES, marker=MARKERS)
        axis.grid(alpha=0.3)
    return figure, axes


def plot(x: str, y: str) -> "tuple[Figure, Axes]":
    """A figure with one plot, its axes named."""
    figure, (axes,) = figure_of()
    axes.set(xlabel=x, ylabel=y)
    return figure, axes


def band(
    axes: "Axes", x: Sequence[float] | np.ndarray, values: "ArrayLike", label: str, **style: Any
) -> None:
    """A curve through the means of values [n_repeats, n_x], with a band of ± one standard error.

    NaN are repeats that do not reach a place; a single repeat has no band.
    """
    mean, sem = mean_and_sem(np.asarray(values, dtype=float))
    (line,) = axes.plot(x, mean, label=label, **{"markersize": 4, **style})
    if np.isfinite(sem).any():
        low, high = mean - sem, mean + sem
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def draw_matrix(
    axes: "Axes",
    matrix: np.ndarray,
    names: Sequence[str],
    title: str,
    most: float,
    rows: Sequence[str] | None = None,
) -> None:
    """Values from −most to most as colours, with figures where they are few.

    Args:
        axes: Where to draw.
        matrix: [n_rows, n_names]; NaN stay empty.
        names: Of the columns, and of the rows where they are the same.
        title: Above it.
        most: The largest magnitude.
        rows: Names of the rows, where they are others.
    """
    axes.imshow(matrix, cmap="RdBu_r", vmin=-most, vmax=most)
    axes.grid(False)
    rows = names if rows is None else rows
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set_title(title, fontsize=8)
    if len(names) <= 10:
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                if np.isfinite(value):
                    dark = abs(value) > 0.6 * most
                    axes.text(
                        j, i, f"{value:.2f}", ha="center", va="center", fontsize=7,
                        color="white" if dark else "black",
                    )  # fmt: skip
