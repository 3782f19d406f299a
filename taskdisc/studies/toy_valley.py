"""Which weightings find the Pareto front through the valleys of two tasks?"""

from functools import partial
from typing import Any

import numpy as np
from pydantic import Field, FiniteFloat

from taskdisc.config import Settings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import COLOURS, figure_of
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study
from taskdisc.studies.weighted import Starts, Weighted, Weightings, grouped, point_text, thinned

LR, BETAS = 0.001, (0.9, 0.999)
"""Of Adam, as published."""

SIDE = 11.0
"""The picture shows θ in [−SIDE, SIDE]²."""


class ToyValleySettings(Settings):
    """The losses, the descents, and when one has found the front."""

    weightings: Weightings = tuple(
        Weighted(name=name) for name in ("equal", "pcgrad", "imtl-g", "cosine-weighted")
    )
    starts: Starts = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
    scale: float = Field(0.1, gt=0)  # of the first loss; 1 is the example with equal scales
    offset: FiniteFloat = 0.0  # added to both losses; with 21 they are positive wherever one goes
    n_steps: int = Field(1000, ge=1)
    stride: int = Field(35, ge=1)  # published steps of Adam that one step stands for
    own_lr: float = Field(0.025, gt=0)  # step size of the weightings' own parameters, also Adam
    tolerance: float = Field(0.1, gt=0)  # distance in θ to the front within which it is reached
    seed: int = Field(0, ge=0)  # of weightings that draw


def cells(settings: ToyValleySettings) -> list[Cell]:
    """One per weighting and start."""
    return [
        {"weighting": weighting.label, "start": list(start)}
        for weighting in settings.weightings
        for start in settings.starts
    ]


def pareto_set(n: int = 1401) -> np.ndarray:
    """θ on the Pareto front, [n, 2] from the second task's minimum to the first's.

    With weights (1 ± u) / 2 the bowls add up to ((θ₁ − 7u)² + 49 (1 − u²)) / 10 + (θ₂ + 8)² / 100
    − 20 for every u in [−1, 1]: so θ₁ = 7u, and θ₂ is the only minimum over θ₂ < −8 of that times
    tanh(−θ₂ / 2). Scales and offsets of the losses do not move it, nor is any place in the valleys
    better for both tasks.
    """
    u = np.linspace(-1, 1, n)
    low, high = np.full(n, -12.0), np.full(n, -8.0)
    for _ in range(50):
        y = (low + high) / 2
        bowl = 4.9 * (1 - u**2) + (y + 8) ** 2 / 100 - 20
        tanh = np.tanh(-y / 2)
        rises = (tanh**2 - 1) / 2 * bowl + tanh * (y + 8) / 50 > 0
        low, high = np.where(rises, low, y), np.where(rises, y, high)
    return np.stack([7 * u, (low + high) / 2], axis=1)


def distances(places: np.ndarray) -> np.ndarray:
    """From places [n, 2] to the nearest on the front, [n]."""
    front = pareto_set()
    return np.array([np.hypot(*(front - place).T).min() for place in places])


def measure(
    settings: ToyValleySettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Whether a descent ends on the front, and the way there.

    Navon et al. 2022, "Multi-Task Learning as a Bargaining Game", figure 2 and its code: Adam with
    exact gradients, from five starts, 35,000 steps of 0.001. A `stride` of k means steps k times as
    long and a memory of gradients k times as short, so that with 35,000 / k steps the same way is
    gone in the same time, but more coarsely.
    """
    import torch

    from taskdisc.studies.toys import descend, valley

    betas = (BETAS[0] ** settings.stride, BETAS[1] ** settings.stride)
    by_label = {weighting.label: weighting for weighting in settings.weightings}
    losses = valley(settings.scale, settings.offset)
    places = descend(
        by_label[cell["weighting"]].made(settings.seed),
        losses,
        cell["start"],
        n_steps=settings.n_steps,
        lr=LR * settings.stride,
        own_lr=settings.own_lr,
        optimiser=partial(torch.optim.Adam, betas=betas),
    )
    away = distances(places.numpy())
    there = np.flatnonzero(away <= settings.tolerance)
    return {
        "reached": bool(away[-1] <= settings.tolerance),
        "first_there": int(there[0]) if len(there) else None,
        "distance": round(float(away[-1]), 4),
        "losses": [round(loss, 4) for loss in losses(places[-1]).tolist()],
        "n_steps": len(places) - 1,
        "way": thinned(places.numpy()),
    }


def answer(settings: ToyValleySettings, records: list[Record]) -> Answer:
    """A row for every weighting and start."""
    table = [
        {
            "weighting": record["weighting"],
            "start_1": record["start"][0],
            "start_2": record["start"][1],
            "reached": "yes" if record["reached"] else "no",
            "first_there": record["first_there"],
            "distance": record["distance"],
            "theta_1": record["way"][-1][0],
            "theta_2": record["way"][-1][1],
            "loss_1": record["losses"][0],
            "loss_2": record["losses"][1],
            "n_steps": record["n_steps"],
        }
        for record in records
    ]
    return Answer(table, _reading(settings, records), {"toy-valley": _draw(settings, records)})


def _reading(settings: ToyValleySettings, records: list[Record]) -> str:
    groups = grouped(records)
    missed = {
        name: [row["start"] for row in rows if not row["reached"]] for name, rows in groups.items()
    }
    all_of = [name for name, starts in missed.items() if not starts]
    others = [
        f"{name} (not from {', '.join(map(point_text, starts))})"
        for name, starts in missed.items()
        if starts
    ]
    left = [name for name, rows in groups.items() if any(_left(settings, row) for row in rows)]
    return (
        f"From all {len(settings.starts)} starts the Pareto front is reached by "
        f"{', '.join(all_of) or 'none'}"
        + (f"; from some or none by {', '.join(others)}" if others else "")
        + f". Reached means at most {settings.tolerance:g} away in θ after {settings.n_steps} "
        f"steps of Adam at {LR * settings.stride:g}"
        + (f"; {', '.join(left)} stopped where losses were no longer finite" if left else "")
        + ". One descent each, with exact gradients. Weightings that take logarithms or ratios of "
        "losses count one below 0 as almost 0."
    )


def _left(settings: ToyValleySettings, record: Record) -> bool:
    return int(record["n_steps"]) < settings.n_steps


def _draw(settings: ToyValleySettings, records: list[Record]) -> Plot:
    import torch

    from taskdisc.studies.toys import valley

    groups = grouped(records)
    figure, axes = figure_of(len(groups), width=2.0, height=2.2, columns=7)
    ticks = np.linspace(-SIDE, SIDE, 120)
    x, y = np.meshgrid(ticks, ticks)
    both = valley()(torch.from_numpy(np.stack([x, y], axis=-1))).mean(dim=-1).numpy()
    front = pareto_set(101)
    for axis, (name, rows) in zip(axes, groups.items(), strict=True):
        axis.contour(x, y, both, levels=12, colors="0.8", linestyles="-", linewidths=0.5)
        axis.plot(*front.T, color="0.75", linestyle="-", marker="", linewidth=5)
        for number, row in enumerate(rows):
            way, colour = np.array(row["way"]), COLOURS[number % len(COLOURS)]
            axis.plot(*way.T, color=colour, linestyle="-", marker="", linewidth=1.2)
            axis.plot(*way[0], color=colour, marker="o", markersize=3)
            end = "*" if row["reached"] else "x"
            axis.plot(*way[-1], color=colour, marker=end, markersize=7, zorder=3)
        n_reached = sum(row["reached"] for row in rows)
        axis.set_title(f"{name}: {n_reached} of {len(rows)}", fontsize=8)
        axis.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE))
        axis.grid(False)
        axis.tick_params(labelsize=6)
    return Plot(
        figure,
        "Ways in θ from their starts (dots) to where they end, on the Pareto front (stars) or off "
        "it (crosses), over the contour lines of the mean of both unscaled losses. Grey line: the "
        "front. One descent each, with exact gradients.",
    )


STUDY = Study(
    "which weightings find the Pareto front through the valleys of two tasks?",
    ToyValleySettings,
    cells,
    measure,
    answer,
    words={
        "Pareto front": "The θ at which neither loss can fall without the other's rising, known "
        "here from the formulas of the losses; they are the same for any `scale` and `offset`.",
        "distance": "In θ, from where the descent ended to the nearest θ on the front.",
        "reached": "Whether the distance is at most `tolerance`, which is not the same as an even "
        "compromise: either end of the front counts too.",
        "first there": "The first step at that distance; – for never. A descent may leave again.",
        "n steps": "Steps that were taken; fewer than the setting where a loss was no longer "
        "finite. Each stands for `stride` steps of the published example.",
        "loss 1, loss 2": "Of the tasks where the descent ended, after `scale` and `offset`.",
    },
    exact=True,
)
