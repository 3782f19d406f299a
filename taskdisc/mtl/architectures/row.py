"""A row of the table of architectures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from taskdisc.mtl.settings import Setting
from taskdisc.paper import Paper

if TYPE_CHECKING:
    from taskdisc.mtl.architectures.base import MultiTaskNetwork


@dataclass(frozen=True)
class Row:
    """One row of `ARCHITECTURES`. It names its class, so that reading the table imports no torch.

    Attributes:
        summary: What it is, one line.
        paper: Where it comes from; None where that is no paper.
        rule: `module:Class` within this package.
        settings: Its settings by name.
        least_tasks: How few tasks it takes.
        needs_stages: Whether it needs a stage of the backbone that is trained.
    """

    summary: str
    paper: Paper | None
    rule: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    least_tasks: int = 1
    needs_stages: bool = True

    @property
    def make(self) -> "Callable[..., MultiTaskNetwork]":
        """Makes it from a `Plan` and all of its settings by keyword."""
        found: Callable[..., MultiTaskNetwork] = resolve_name(
            f"taskdisc.mtl.architectures.{self.rule}"
        )
        return found
