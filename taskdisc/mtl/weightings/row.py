"""A row of the table of weightings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from taskdisc.mtl.settings import Setting
from taskdisc.paper import Paper

if TYPE_CHECKING:
    from taskdisc.mtl.weightings.base import Weighting


class Needs(Enum):
    """What the trainer computes for a weighting, the costlier further down."""

    LOSSES = "losses"
    GRAMIAN = "inner products of the tasks' gradients"
    JACOBIAN = "the tasks' gradients"
    TWO_BATCHES = "the tasks' gradients on two batches"
    VALIDATION = "the tasks' gradients and a validation batch"


@dataclass(frozen=True)
class Row:
    """One row of `WEIGHTINGS`. It names its class, so that reading the table imports no torch.

    Attributes:
        summary: What it does, one line.
        paper: Where it comes from; None where that is no paper.
        needs: What the trainer computes for it.
        rule: `module:Class` within this package.
        torchjd: The class of torchjd that `rule` calls, where it is an adapter of many.
        settings: Its settings by name.
        requires_main: Whether it treats one task as the main one.
        extra: The extra of torchjd that brings what it solves with.
        least_tasks: How few tasks it takes, from its settings.
        rerun: Whether the trainer computes the losses again after each step, for `after_step`.
        random: Whether it draws.
        one_task: What it gives with a single task, where not that task's plain gradient.
        limits: Properties that it lacks, by name, and why; the tests check that it lacks them.
    """

    summary: str
    paper: Paper | None
    needs: Needs
    rule: str
    torchjd: str = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    requires_main: bool = False
    extra: str = ""
    least_tasks: Callable[[Mapping[str, Any]], int] = lambda settings: 1
    rerun: bool = False
    random: bool = False
    one_task: str = ""
    limits: Mapping[str, str] = field(default_factory=dict)

    @property
    def defaults(self) -> dict[str, Any]:
        """The defaults of its settings."""
        return {name: setting.default for name, setting in self.settings.items()}

    @property
    def make(self) -> Callable[..., "Weighting"]:
        """Makes it from a `Setup` and all of its settings by keyword."""
        return resolve_name(f"taskdisc.mtl.weightings.{self.rule}")
