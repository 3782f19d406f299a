"""A row of the table of schedules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from taskdisc.mtl.settings import Setting
from taskdisc.paper import Paper

if TYPE_CHECKING:
    from taskdisc.mtl.schedules.base import Schedule


@dataclass(frozen=True)
class Row:
    """One row of `SCHEDULES`.

    Attributes:
        summary: What it does, one line.
        paper: Where it comes from; None where that is no paper.
        rule: `module:Class` within this package.
        settings: Its settings by name.
        shares: Those of its settings that must add up to 1.
    """

    summary: str
    paper: Paper | None
    rule: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    shares: tuple[str, ...] = ()

    @property
    def make(self) -> "Callable[..., Schedule]":
        """Makes it from a `Setup` and all of its settings by keyword."""
        found: Callable[..., Schedule] = resolve_name(f"taskdisc.mtl.schedules.{self.rule}")
        return found
