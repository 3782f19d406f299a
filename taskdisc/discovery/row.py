"""A row of the tables of proposers and scorers."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from taskdisc.paper import Paper

M = TypeVar("M")


@dataclass(frozen=True)
class Row(Generic[M]):
    """One row of `PROPOSERS` or `SCORERS`.

    Attributes:
        summary: What it does, one line.
        make: Makes it.
        paper: Where it comes from; None where that is no paper.
        needs: What a search computes for it beforehand; empty where nothing.
    """

    summary: str
    make: M
    paper: Paper | None = None
    needs: str = ""
