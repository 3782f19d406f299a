"""Which weighting a study takes, and what the studies of two tasks have in common."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import ConfigDict, Field, FiniteFloat, model_validator

from taskdisc.config import Settings
from taskdisc.mtl.weightings import make_weighting
from taskdisc.mtl.weightings.make import checked
from taskdisc.studies.study import Record

if TYPE_CHECKING:
    from taskdisc.mtl.weightings.base import Weighting

N_TASKS = 2
"""A main task, which is the first, and an auxiliary."""

MOST_PLACES = 100
"""Of a trajectory that a record keeps."""


class Weighted(Settings):
    """A weighting by its name, or as `{name: …, setting: value}`; others at their defaults."""

    model_config = ConfigDict(extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        return {"name": values} if isinstance(values, str) else values

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        checked(self.name, N_TASKS, 0, self.given)
        return self

    @property
    def given(self) -> dict[str, Any]:
        """Its settings that are not left at their defaults."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """Its name, and what is given."""
        given = ", ".join(f"{name} = {value}" for name, value in self.given.items())
        return f"{self.name} ({given})" if given else self.name

    def made(self, seed: int) -> "Weighting":
        """The weighting of two tasks, the first being the main one."""
        return make_weighting(self.name, N_TASKS, 0, seed, **self.given)


Weightings = Annotated[tuple[Weighted, ...], Field(min_length=1)]
Start = tuple[FiniteFloat, FiniteFloat]
Starts = Annotated[tuple[Start, ...], Field(min_length=1)]


def grouped(records: list[Record]) -> dict[str, list[Record]]:
    """Records by weighting."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["weighting"], []).append(record)
    return groups


def thinned(places: np.ndarray) -> list[list[float]]:
    """Some of the places [n_places, 2] of a trajectory, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(places) - 1, MOST_PLACES).round().astype(int))
    return [[round(x, 4) for x in place] for place in places[chosen].tolist()]


def point_text(point: Sequence[float]) -> str:
    """`(x, y)` with real minus signs."""
    return f"({point[0]:g}, {point[1]:g})".replace("-", "−")
