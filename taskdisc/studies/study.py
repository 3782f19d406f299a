"""What a study is: a question, its settings, and a function that answers with a table."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskdisc.config import Settings
from taskdisc.pool import Pool
from taskdisc.progress import Progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot(x: str, y: str) -> "tuple[Figure, Axes]":
    """A figure with one plot, its axes named."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


@dataclass(frozen=True)
class Answer:
    """What a study found.

    Attributes:
        table: Tidy rows, all with the same columns.
        reading: The result in one paragraph, with its uncertainty.
        figures: Plots by name.
    """

    table: list[dict[str, Any]]
    reading: str
    figures: dict[str, "Figure"]


@dataclass(frozen=True)
class Study:
    """One row of the table of studies."""

    question: str
    settings: type[Settings]
    run: Callable[[Any, Pool, Progress], Answer]


@dataclass(frozen=True)
class FinishedStudy:
    """An answer, and the folder that holds it."""

    table: list[dict[str, Any]]
    reading: str
    folder: Path
