"""Where do the gradients of two tasks agree? Two parabolas on a line."""

from typing import Any, Self

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from taskdisc.config import Settings
from taskdisc.errors import SettingError
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import figure_of
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study


class GradientCosineSettings(Settings):
    """Two losses (θ − c)², and where they are looked at."""

    main: FiniteFloat = 10.0  # c of the main task
    auxiliary: FiniteFloat = 0.0  # and of the auxiliary
    low: FiniteFloat = -20.0  # θ from here
    high: FiniteFloat = 30.0  # to here
    n_points: int = Field(101, ge=2)

    @model_validator(mode="after")
    def _spans_something(self) -> Self:
        if self.low >= self.high:
            raise SettingError(f"`low` must be below `high` = {self.high:g}, got {self.low:g}.")
        return self


def cells(settings: GradientCosineSettings) -> list[Cell]:
    """One: it takes no time."""
    return [{"n_points": settings.n_points}]


def measure(
    settings: GradientCosineSettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Losses, gradients and the cosine between these at every θ; 0 where a gradient is 0.

    Du et al. 2018, "Adapting Auxiliary Losses Using Gradient Similarity", the example in one
    dimension. There two gradients have a cosine of 1 or −1: they agree but between the minima.
    """
    import torch

    from taskdisc.mtl.weightings.similarity import cosine
    from taskdisc.studies.toys import parabolas

    theta = torch.linspace(settings.low, settings.high, cell["n_points"], dtype=torch.float64)
    theta.requires_grad_()
    centres = torch.tensor([[settings.main], [settings.auxiliary]], dtype=theta.dtype)
    main, auxiliary = parabolas(centres)(theta[:, None]).unbind(dim=1)
    # each loss depends on its own θ alone
    (by_main,) = torch.autograd.grad(main.sum(), theta, retain_graph=True)
    (by_auxiliary,) = torch.autograd.grad(auxiliary.sum(), theta)
    columns = {
        "theta": theta,
        "main_loss": main,
        "auxiliary_loss": auxiliary,
        "main_gradient": by_main,
        "auxiliary_gradient": by_auxiliary,
        "cosine": cosine(by_main * by_auxiliary, by_main.abs(), by_auxiliary.abs()),
    }
    return {name: values.tolist() for name, values in columns.items()}


def answer(settings: GradientCosineSettings, records: list[Record]) -> Answer:
    """A row for every θ."""
    columns = {name: values for name, values in records[0].items() if name != "n_points"}
    table = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Answer(table, _reading(settings, table), {"gradient-cosine": _draw(table)})


def _reading(settings: GradientCosineSettings, table: list[dict[str, Any]]) -> str:
    theta = np.array([row["theta"] for row in table])
    cosine = np.array([row["cosine"] for row in table])
    low, high = sorted((settings.main, settings.auxiliary))
    between = cosine[(theta > low) & (theta < high)]
    outside = cosine[(theta < low) | (theta > high)]
    return (
        f"The cosine of the gradients of (θ − {settings.main:g})² and "
        f"(θ − {settings.auxiliary:g})² is {_all_of(between)} at the {len(between)} θ between "
        f"their minima and {_all_of(outside)} at the {len(outside)} outside: there a step for the "
        "auxiliary is one for the main task too. These are exact values, without repeats."
    )


def _all_of(values: np.ndarray) -> str:
    found = np.unique(values.round(9))
    return " or ".join(f"{value:+.0f}".replace("-", "−") for value in found) or "none"


def _draw(table: list[dict[str, Any]]) -> Plot:
    theta = [row["theta"] for row in table]
    figure, (losses, cosine) = figure_of(2, height=2.6, columns=1)
    for name in ("main", "auxiliary"):
        losses.plot(theta, [row[f"{name}_loss"] for row in table], marker="", label=name)
    losses.set(ylabel="loss", xticklabels=[])
    losses.legend()
    cosine.plot(theta, [row["cosine"] for row in table], marker="", drawstyle="steps-mid")
    cosine.set(xlabel="θ", ylabel="cosine of the gradients", yticks=[-1, 0, 1])
    return Plot(
        figure,
        "Losses of both tasks, and below the cosine of the angle between their gradients. Exact "
        "values: there is nothing to average.",
    )


STUDY = Study(
    "where do the gradients of two tasks agree? (two parabolas on a line)",
    GradientCosineSettings,
    cells,
    measure,
    answer,
    words={
        "θ": "The one parameter, which both tasks share.",
        "loss": "(θ − c)², with its minimum 0 at θ = c: `main` and `auxiliary` of the settings.",
        "cosine": "Of the angle between the tasks' gradients. On a line it is 1 where a step down "
        "one loss is one down the other, −1 where it is one up, and 0 where a gradient is 0.",
    },
    exact=True,
)
