"""What a study is: a question, the cells that it takes apart into, and what their records say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from taskdisc.config import Settings
from taskdisc.taskness.protocol import protocol_from

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from taskdisc.paper import Paper

Cell = dict[str, Any]
"""Names one part of a study that is measured by itself: an image set, a size, a protocol."""

Record = dict[str, Any]
"""A cell and what was measured in it, together; JSON values."""


ALL_IMAGES = protocol_from({"name": "stratified", "n_splits": 5, "most_images": 0})
"""How studies score that ask about the images' number: on all of them, however many."""


@dataclass(frozen=True)
class Plot:
    """A figure, and a caption that says what its error bands or bars are.

    A tall one has the height that its width gives it on the page, however much that is.
    """

    figure: "Figure"
    caption: str
    tall: bool = False


@dataclass(frozen=True)
class Answer:
    """What a study found.

    Attributes:
        table: Tidy rows, all with the same columns.
        reading: The result in one paragraph, with its uncertainty and number of repeats.
        plots: By name, which is that of their file.
        arrays: Named arrays for further use, by the name of the `.npz` that keeps them; no objects.
        texts: Plain text for the page, by its title.
        summary: The table as people read it, where that is shorter.
        more: Further tables to be read, by the name of the `.md` that keeps them.
        tables: Further tidy rows, by the name of the `.csv` that keeps them.
        papers: Where the methods come from that it compared, by their names.
    """

    table: list[dict[str, Any]]
    reading: str
    plots: dict[str, Plot]
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    summary: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    papers: dict[str, "Paper"] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """One row of the table of studies.

    Attributes:
        question: What it asks.
        settings: The kind of its settings, whose defaults are small and run anywhere. Where
            they have `images`, these are loaded and checked before the study starts.
        cells: The cells of a study with these settings, those that take longest first, so that
            workers end together. Refuses settings that cannot be measured.
        measure: What a cell gives, JSON values without NaN; the same in any process.
        check: Draws the images that are hardest to draw, so that too few of them, or a class that
            is not there, is refused before the study starts.
        answer: What the records of all cells say, in the order of `cells`.
        alone: Cells are measured one after the other, each with all workers, for they search or
            score much, or time themselves. Otherwise each worker measures cells of its own, and
            `measure` gets a pool of one.
        command: The command that runs it, where that is not `study NAME`.
        words: What the page explains, by word; those of taskness where none are given.
        exact: Its figures are exact values, of which there are no repeats, so that the page has no
            standard errors to explain.
        texts_title: What the page writes above the answer's texts.
        keeps_files: Whether `measure` also gets a folder of the cell's own, for logs and
            checkpoints.
    """

    question: str
    settings: type[Settings]
    cells: Callable[[Any], list[Cell]]
    measure: Callable[..., dict[str, Any]]
    answer: Callable[[Any, list[Record]], Answer]
    check: Callable[[Any], object] = lambda settings: None
    alone: bool = False
    command: str = ""
    texts_title: str = "What the networks learned"
    keeps_files: bool = False
    words: Mapping[str, str] = field(default_factory=dict)
    exact: bool = False
