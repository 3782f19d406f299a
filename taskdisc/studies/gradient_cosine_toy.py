"""Which weighting reaches the main task's minimum beside an auxiliary that pulls elsewhere?"""

from typing import Any

import numpy as np
from pydantic import Field

from taskdisc.config import Settings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import COLOURS, figure_of
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study
from taskdisc.studies.weighted import (
    Start,
    Starts,
    Weighted,
    Weightings,
    grouped,
    point_text,
    thinned,
)

ALONE = "single task"
"""Stands among the weightings of a cell for the main task without the auxiliary."""


class CosineToySettings(Settings):
    """Main loss |θ|², auxiliary loss |θ − c|², and the descent on them."""

    auxiliary: Start = (1.0, 1.0)  # c
    starts: Starts = ((-2.0, 1.5), (-0.5, 2.0), (-1.5, -1.5), (0.5, 0.8), (1.0, 0.5))
    weightings: Weightings = (
        Weighted(name="equal"),
        Weighted.model_validate({"name": "fixed", "weights": [1.0, 0.1]}),
        Weighted(name="cosine-unweighted"),
        Weighted(name="cosine-weighted"),
    )
    lr: float = Field(0.01, gt=0)  # steepest descent
    n_steps: int = Field(600, ge=1)  # at most
    converged: float = Field(0.1, gt=0)  # main loss below which it is
    seed: int = Field(0, ge=0)  # of weightings that draw


def cells(settings: CosineToySettings) -> list[Cell]:
    """One per weighting and start; the main task alone beside them."""
    return [
        {"weighting": name, "start": list(start)}
        for name in (ALONE, *(weighting.label for weighting in settings.weightings))
        for start in settings.starts
    ]


def measure(
    settings: CosineToySettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Steps until the main loss has converged, None where it has not, and the way there.

    Du et al. 2018, "Adapting Auxiliary Losses Using Gradient Similarity", figure 1: steepest
    descent in two dimensions. The figure does not give its losses; these are those of Tran-Thien's
    reproduction, https://github.com/vivien000/auxiliary-learning2.
    """
    import torch

    from taskdisc.studies.toys import descend, parabolas

    centres = torch.tensor([(0.0, 0.0), settings.auxiliary])
    by_label = {weighting.label: weighting for weighting in settings.weightings}
    if cell["weighting"] == ALONE:
        centres, weighting = centres[:1], Weighted(name="equal").made(settings.seed)
    else:
        weighting = by_label[cell["weighting"]].made(settings.seed)
    places = descend(
        weighting,
        parabolas(centres),
        cell["start"],
        n_steps=settings.n_steps,
        lr=settings.lr,
        until=lambda losses: bool(losses[0] < settings.converged),
    )
    main_loss = float((places[-1] ** 2).sum())
    return {
        "steps": len(places) - 1 if main_loss < settings.converged else None,
        "main_loss": main_loss,
        "way": thinned(places.numpy()),
    }


def answer(settings: CosineToySettings, records: list[Record]) -> Answer:
    """A row for every weighting and start."""
    table = [
        {
            "weighting": record["weighting"],
            "start_1": record["start"][0],
            "start_2": record["start"][1],
            "steps": record["steps"],
            "main_loss": record["main_loss"],
        }
        for record in records
    ]
    plots = {"gradient-cosine-toy": _draw(settings, records)}
    return Answer(table, _reading(settings, records), plots)


def _reading(settings: CosineToySettings, records: list[Record]) -> str:
    counts = "; ".join(
        f"{name} {', '.join(str(row['steps'] or 'never') for row in rows)}"
        for name, rows in grouped(records).items()
    )
    starts = ", ".join(map(point_text, settings.starts))
    return (
        f"Steps of {settings.lr:g} until the main loss is below {settings.converged:g}, from "
        f"{starts}: {counts} (never: not within {settings.n_steps} steps). One descent each, with "
        "exact gradients."
    )


def _draw(settings: CosineToySettings, records: list[Record]) -> Plot:
    groups = grouped(records)
    figure, axes = figure_of(len(groups), width=3.0, height=3.0, columns=3)
    centres = np.array([(0.0, 0.0), settings.auxiliary])
    # Ways that leave the neighbourhood of starts and minima are cut, so that the others are seen.
    known = np.array([*(record["way"][0] for record in records), *centres])
    low, high = known.min(axis=0) - 0.5, known.max(axis=0) + 0.5
    x, y = np.meshgrid(np.linspace(low[0], high[0], 80), np.linspace(low[1], high[1], 80))
    for axis, (name, rows) in zip(axes, groups.items(), strict=True):
        for (a, b), line in zip(centres, ("-", "--"), strict=True):
            away = np.hypot(x - a, y - b)
            axis.contour(x, y, away, levels=8, colors="0.7", linestyles=line, linewidths=0.6)
        for number, row in enumerate(rows):
            way, colour = np.array(row["way"]), COLOURS[number % len(COLOURS)]
            axis.plot(*way.T, color=colour, linestyle="-", marker="", linewidth=1.5)
            axis.plot(*way[0], color=colour, marker="o", markersize=4)
            end = "*" if row["steps"] else "x"
            axis.plot(*way[-1], color=colour, marker=end, markersize=7)
        axis.set_title(name, fontsize=9)
        axis.set(aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axis.grid(False)
        axis.tick_params(labelsize=7)
    return Plot(
        figure,
        "Ways over the contour lines of the main loss (solid) and the auxiliary loss (dashed), "
        f"from their starts (dots) to where the main loss is below {settings.converged:g} (stars) "
        f"or, where it never is, to where they are after {settings.n_steps} steps (crosses). One "
        "descent each, with exact gradients.",
    )


STUDY = Study(
    "which weighting reaches the main minimum beside an auxiliary that pulls elsewhere?",
    CosineToySettings,
    cells,
    measure,
    answer,
    words={
        "main, auxiliary": "The tasks: only the main loss |θ|² is wanted low; the auxiliary loss "
        "|θ − c|², c being `auxiliary` of the settings, is there to help or to hinder.",
        "weighting": "What turns the gradients of both losses into one step; all that it is given "
        "is in brackets, its other settings are their defaults.",
        ALONE: "Descent on the main loss without the auxiliary, beside which the others stand.",
        "steps": "Of steepest descent, until the main loss is below `converged`; – or never: not "
        "within `n_steps`.",
        "main loss": "Where the descent ended, which is where it converged if it did.",
    },
    exact=True,
)
