"""A row of the table of backbones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from taskdisc.mtl.settings import Setting
from taskdisc.paper import Paper

if TYPE_CHECKING:
    from torch import nn

    from taskdisc.mtl.backbones.base import Shape


@dataclass(frozen=True)
class Row:
    """One row of `BACKBONES`. It names its function, so that reading the table imports no torch.

    Attributes:
        summary: What it is, one line.
        paper: Where it comes from.
        rule: `module:function` within this package.
        settings: Its settings by name, beside those that all backbones have.
        check: Raises a `SettingError` for values, all by name, that do not do together.
        least_side: How few pixels high and wide images may be.
    """

    summary: str
    paper: Paper | None
    rule: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    check: Callable[[Mapping[str, Any]], None] = lambda values: None
    least_side: int = 1

    @property
    def stages(self) -> "Callable[..., tuple[list[nn.Module], int]]":
        """Makes its stages, and counts those before the fully connected ones.

        It gets the shape [C, H, W] of an image and all of its settings by keyword.
        """
        found: Callable[[Shape], tuple[list[nn.Module], int]] = resolve_name(
            f"taskdisc.mtl.backbones.{self.rule}"
        )
        return found
